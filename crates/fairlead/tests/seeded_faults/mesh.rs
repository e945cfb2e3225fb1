//! A mesh that runs, started by this very program as `fairlead up`, and asked over its socket.
//!
//! Invariant: whatever happens, it ends with the value that stands for it.

use crate::seed;
use fairlead_lab::live::Layout;
use fairlead_lab::live::protocol::{self, Request};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The lab's own bound for a start is shorter.
const START: Duration = Duration::from_secs(120);
/// The runner waits 40 s for a state at most.
const CALLS: Duration = Duration::from_secs(120);
/// A proxy takes a new configuration within milliseconds.
const SEEDED: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

pub struct Mesh {
    process: Child,
    state: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Mesh {
    /// Starts the mesh of `tests/meshes/<name>`.
    pub fn start(name: &str) -> Result<Self, String> {
        let text = |e: std::io::Error| e.to_string();
        // A short path: those of sockets are bounded.
        let state = tempfile::Builder::new().prefix("seeded").tempdir_in("/tmp").map_err(text)?;
        let log = std::fs::File::create(state.path().join("up.log")).map_err(text)?;
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/meshes").join(name);
        seed::tell(state.path(), seed::NONE);
        let process = Command::new(std::env::current_exe().map_err(text)?)
            .arg("up")
            .arg(directory)
            .args(["--state".as_ref(), state.path().as_os_str()])
            .env(seed::FOLDER, state.path())
            .env("XDG_RUNTIME_DIR", state.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(text)?)
            .stderr(log)
            .spawn()
            .map_err(text)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        let mut mesh = Self { process, state, runtime };
        let deadline = Instant::now() + START;
        while mesh.ask(&Request::Status, SEEDED).is_err() {
            if mesh.process.try_wait().map_err(text)?.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(mesh.state.path().join("up.log")).unwrap_or_default();
                return Err(format!("the mesh {name} does not start:\n{log}"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(mesh)
    }

    /// Makes the calls whose `why` contains this text, all when `None`.
    pub fn calls(&self, why: Option<&str>) -> Result<Vec<Value>, String> {
        let rows = self.ask(&Request::Test { only: why.map(str::to_owned) }, CALLS)?;
        rows.as_array().cloned().ok_or_else(|| format!("no list of results: {rows}"))
    }

    /// Gives the proxy of `workload` a fault, or takes it away, and waits until it has it in use.
    pub fn seed(&self, workload: &str, fault: &str) -> Result<(), String> {
        seed::tell(self.state.path(), fault);
        let deadline = Instant::now() + SEEDED;
        loop {
            let told = seed::told_by(self.state.path(), workload);
            if told.as_deref() == Some(fault) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the proxy of {workload} does not come to `{fault}`, it has {told:?}"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn ask(&self, request: &Request, patience: Duration) -> Result<Value, String> {
        let socket = Layout::existing(self.state.path()).socket();
        self.runtime.block_on(async {
            match tokio::time::timeout(patience, protocol::ask(&socket, request, |_| {})).await {
                Ok(Ok(answer)) => answer.map_err(|refusal| refusal.to_string()),
                Ok(Err(e)) => Err(e.to_string()),
                Err(_) => Err(format!("no answer within {patience:?}")),
            }
        })
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        // Everything below it goes with it; SIGTERM lets the logs be written.
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap_or_default());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + SEEDED;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
