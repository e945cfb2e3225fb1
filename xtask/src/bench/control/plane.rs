//! The control plane that is measured: the product's own process, an API server for it, and the CA that both sides know.
//!
//! Invariant: it ends with this value, and so does what it wrote.

use super::api_server::{ApiServer, Handle};
use super::mesh::Mesh;
use crate::bench::process::{Running, Usage};
use anyhow::{Context as _, ensure};
use fairlead_identity::{Ca, SystemRandom, TrustDomain};
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const CLUSTER: &str = "east";
pub const DOMAIN: &str = "east.bench.example";
/// Everything begins within this, or something is wrong.
const SOON: Duration = Duration::from_secs(60);

pub struct Plane {
    folder: PathBuf,
    pub ca: Ca,
    pub address: SocketAddr,
    server: ApiServer,
    process: Option<Running>,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Anonymous memory that is resident: what the program's file takes is not in it.
    pub anonymous: f64,
}

impl Plane {
    /// An API server with this mesh, and a control plane that has read all of it.
    pub fn start(mesh: Mesh) -> anyhow::Result<Self> {
        let folder = std::env::current_dir()?.join(format!("target/bench/plane-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let cacerts = folder.join("cacerts");
        std::fs::create_dir_all(&cacerts)?;
        let ca = Ca::create_root(CLUSTER, &TrustDomain::new(DOMAIN)?, UnixTime::now(), &mut SystemRandom)?;
        for (name, text) in ca.to_pem().files() {
            std::fs::write(cacerts.join(name), text)?;
        }
        let server = ApiServer::start(&[]);
        mesh.write(&server.handle());
        // Whoever watches from here on lists first, as after any other pause.
        server.handle().expire();
        let written = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "east",
            "clusters": [{"name": "c", "cluster": {"server": server.address()}}],
            "users": [{"name": "u", "user": {"token": "none"}}],
            "contexts": [{"name": "east", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(folder.join("kubeconfig"), written.to_string())?;
        // Free now; that somebody else takes it in between is told by the process's end.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut plane = Self { folder, ca, address, server, process: None };
        plane.launch()?;
        Ok(plane)
    }

    pub fn api(&self) -> Handle {
        self.server.handle()
    }

    /// Kills it without a word and starts it anew on what it kept; returns when it is ready.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = None;
        self.launch()
    }

    /// Starts it; returns when it has resolved its objects.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(program()?);
        command.args(["control", "--cluster", CLUSTER, "--kubernetes", "--context", "east"]).args([
            "--listen",
            &self.address.to_string(),
            "--advertise",
            &self.address.to_string(),
        ]);
        for (flag, name) in
            [("--kubeconfig", "kubeconfig"), ("--cacerts", "cacerts"), ("--state", "state"), ("--admin", "admin.sock")]
        {
            command.arg(flag).arg(self.folder.join(name));
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.process = Some(Running(child.context("cannot start the control plane")?));
        let begun = Instant::now();
        loop {
            if let Some(running) = &mut self.process
                && let Some(status) = running.0.try_wait()?
            {
                anyhow::bail!("the control plane ended ({status}): see {}", self.log().display());
            }
            if self.ask("/ready").is_ok_and(|ready| ready["ready"] == true) {
                return Ok(());
            }
            ensure!(begun.elapsed() < SOON, "the control plane is not ready: see {}", self.log().display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// A listing of its admin API.
    pub fn ask(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, "")
    }

    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call("POST", path, &body.to_string())
    }

    fn call(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(self.folder.join("admin.sock"))?;
        stream.set_read_timeout(Some(SOON))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}: {body}");
        // Answers without a length come in one chunk.
        let start = body.find(['{', '[']).unwrap_or(0);
        let end = body.rfind(['}', ']']).map_or(body.len(), |end| end + 1);
        Ok(serde_json::from_str(&body[start..end])?)
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, |running| running.0.id())
    }

    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid())
    }

    /// What it holds once that no longer falls.
    pub fn memory(&self) -> Memory {
        let mut least = anonymous(self.pid());
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(250));
            least = least.min(anonymous(self.pid()));
        }
        Memory { anonymous: least }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.process = None;
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Bytes of anonymous memory of a process that are resident.
pub fn anonymous(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

/// The product's binary beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().unwrap_or(Path::new(".")).join("fairlead");
    ensure!(beside.is_file(), "{} is not there: `cargo xtask bench control` builds it", beside.display());
    Ok(beside)
}
