//! A copy of a mesh, run by `fairlead up`, and the binary's other commands asked of it.
//!
//! Invariants: one lab at a time, since each fills the machine; whatever happens, it ends with the value that stands for it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The lab's own bound for a start is shorter.
const START: Duration = Duration::from_secs(120);
/// Whatever is waited for comes much earlier.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// The clusters of the mesh.
pub const CLUSTERS: [&str; 3] = ["east", "north", "west"];

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A machine on which no other lab of these tests runs, and where labs keep their files.
pub struct Machine {
    home: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A mesh that runs.
pub struct Mesh {
    pub up: Child,
    pub machine: Machine,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Machine {
    pub fn new() -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // A short path: those of sockets are bounded.
        let home = tempfile::Builder::new().prefix("changes").tempdir_in("/tmp").unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/meshes/trio"), &home.path().join("trio"));
        std::fs::create_dir(home.path().join("run")).unwrap();
        Self { home, _turn: turn }
    }

    /// The copy of the mesh.
    pub fn directory(&self) -> PathBuf {
        self.home.path().join("trio")
    }

    /// Where labs keep their folders.
    pub fn labs(&self) -> PathBuf {
        self.home.path().join("run/fairlead")
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead"));
        command.args(words).current_dir(self.home.path()).env_clear().env("PATH", "");
        command.env("XDG_RUNTIME_DIR", self.home.path().join("run")).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Said {
        said(self.command(words).output().unwrap())
    }

    /// Starts a mesh in the background.
    pub fn up(&self, more: &[&str]) -> Child {
        let log = std::fs::File::create(self.home.path().join("up.log")).unwrap();
        let words: Vec<&str> = ["up", "trio"].iter().chain(more).copied().collect();
        self.command(&words).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// What the mesh said while it started and ran.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("up.log")).unwrap_or_default()
    }

    /// Waits until a lab takes questions.
    pub fn wait(&self, up: &mut Child) {
        let deadline = Instant::now() + START;
        while self.run(&["lab", "status"]).code != 0 {
            let ended = up.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "it does not start: {ended:?}\n{}", self.log());
            std::thread::sleep(PAUSE);
        }
    }
}

impl Mesh {
    pub fn start() -> Self {
        let machine = Machine::new();
        let mut up = machine.up(&[]);
        machine.wait(&mut up);
        let mesh = Self { up, machine };
        // A start is over when the proxies are ready; that every peer knows it comes a moment later.
        until("every cluster knows every program ready", || {
            let rows = CLUSTERS.into_iter().flat_map(|cluster| mesh.get("services", cluster));
            let behind: Vec<_> = rows.filter(|row| row["ready"] != row["total"]).map(|row| row.to_string()).collect();
            if behind.is_empty() { Ok(()) } else { Err(behind.join("\n")) }
        });
        mesh
    }

    /// `fairlead lab …`, which must be done.
    pub fn lab(&self, words: &[&str]) -> String {
        let said = self.try_lab(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.out
    }

    /// `fairlead lab …`, whatever becomes of it.
    pub fn try_lab(&self, words: &[&str]) -> Said {
        self.machine.run(&[&["lab"], words].concat())
    }

    /// Status and who answered of one call: `("200", "east/app/web-0")`.
    pub fn call(&self, from: &str, request: &str) -> (String, String) {
        let got: Value = serde_json::from_str(&self.lab(&["call", from, request])).unwrap();
        let status = got["status"].as_str().map_or_else(|| got["status"].to_string(), str::to_owned);
        (status, got["body"]["workload"].as_str().unwrap_or_default().to_owned())
    }

    /// Calls until the answer is this one.
    pub fn comes_to(&self, from: &str, request: &str, wanted: (&str, &str)) {
        until(&format!("{from} {request} gets {wanted:?}"), || {
            let (status, who) = self.call(from, request);
            ((status.as_str(), who.as_str()) == wanted).then_some(()).ok_or(format!("{status} {who}"))
        });
    }

    /// A listing as JSON, of one cluster's control plane.
    pub fn get(&self, what: &str, cluster: &str) -> Vec<Value> {
        let said = self.machine.run(&["get", what, "--cluster", cluster, "-o", "json"]);
        assert_eq!(said.code, 0, "get {what}: {said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    /// A page of a proxy's admin interface.
    pub fn page(&self, proxy: &str, path: &str) -> String {
        self.lab(&["admin", proxy, path])
    }

    /// Starts a command whose report is read at its end.
    pub fn begin(&self, words: &[&str]) -> Report {
        let all = [&["lab"], words, &["-o", "json"]].concat();
        Report(self.machine.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What is broken: nothing, in words.
    pub fn is_whole(&self) -> bool {
        self.lab(&["status"]).contains("all is whole")
    }
}

/// A measurement under way.
pub struct Report(Child);

impl Report {
    /// As Ctrl-C does, and harder.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub fn end(self) -> Value {
        let said = said(self.0.wait_with_output().unwrap());
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }
}

fn said(output: Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Asks until the answer is yes; what it was last is told when it does not come.
pub fn until<T>(what: &str, mut asked: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match asked() {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => panic!("{what}: not within {PATIENCE:?}, last: {last}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Tells a child to end in order, and waits for it.
pub fn end(child: &mut Child, signal: Signal) -> i32 {
    if matches!(child.try_wait(), Ok(None)) {
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Ok(Some(status)) => return status.code().unwrap_or(-1),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return -1;
            }
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        end(&mut self.up, Signal::SIGTERM);
        if std::thread::panicking() {
            eprintln!("{}", self.machine.log());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
