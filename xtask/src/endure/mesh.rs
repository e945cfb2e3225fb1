//! A running mesh, and the verbs that are said to it.
//!
//! Invariant: it ends with this value, however the run ends, and its folder goes with it unless something was not met.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A mesh that is not ready by then never will be.
const READY: Duration = Duration::from_secs(60);

pub struct Mesh {
    child: Child,
    folder: PathBuf,
    uid: Option<u32>,
    /// From the start until every proxy had acknowledged its configuration.
    pub ready_after: Duration,
}

/// A load that runs beside.
pub struct Running {
    name: String,
    began: Instant,
    thread: JoinHandle<anyhow::Result<Value>>,
}

impl Mesh {
    /// Copies binary and mesh to a folder that the user can read, starts it there, and waits until it is ready.
    pub fn start(binary: &Path, mesh: &Path, uid: Option<u32>, certificates: Option<Duration>) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("fairlead-endure-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        copy(mesh, &folder.join("mesh"))?;
        std::fs::copy(binary, folder.join("fairlead"))?;
        std::fs::create_dir_all(folder.join("run"))?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        std::os::unix::fs::chown(folder.join("run"), uid, uid)?;
        std::fs::set_permissions(folder.join("run"), std::fs::Permissions::from_mode(0o700))?;
        let log = std::fs::File::create(folder.join("up.log"))?;
        let began = Instant::now();
        let mut up = command(&folder, uid);
        // Few records, so that their rings are full before growth is looked for.
        up.arg("up")
            .arg(folder.join("mesh"))
            .args(["--records", "500"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null());
        if let Some(life) = certificates {
            up.arg("--certificate-lifetime").arg(format!("{}s", life.as_secs()));
        }
        let child = up.spawn()?;
        let mut mesh = Self { child, folder, uid, ready_after: Duration::ZERO };
        while !mesh.has_said("acknowledged their configuration")? {
            if let Some(status) = mesh.child.try_wait()? {
                bail!("`up` ended with {status}; see {}", mesh.folder.join("up.log").display());
            }
            if began.elapsed() > READY {
                bail!("not ready after {READY:?}; see {}", mesh.folder.join("up.log").display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        mesh.ready_after = began.elapsed();
        println!("ready after {:.1} s", mesh.ready_after.as_secs_f32());
        Ok(mesh)
    }

    /// Whether `up` has printed these words.
    fn has_said(&self, words: &str) -> anyhow::Result<bool> {
        Ok(std::fs::read_to_string(self.folder.join("up.log"))?.contains(words))
    }

    /// `fairlead lab WORDS…`
    pub fn lab(&self, words: &[&str]) -> anyhow::Result<()> {
        let output = command(&self.folder, self.uid).arg("lab").args(words).output()?;
        if !output.status.success() {
            bail!("lab {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// What `fairlead WORDS…` prints, byte for byte.
    pub fn said_by(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = command(&self.folder, self.uid).args(words).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `fairlead lab load FROM REQUEST`, beside everything else.
    pub fn load(&self, from: &str, request: &str, rate: u32, time: Duration) -> Running {
        self.beside(&["load", from, request, "--rate", &rate.to_string()], time)
    }

    /// `fairlead lab hold FROM REQUEST`, beside everything else.
    pub fn hold(&self, from: &str, request: &str, streams: u32, time: Duration) -> Running {
        self.beside(&["hold", from, request, "--streams", &streams.to_string()], time)
    }

    fn beside(&self, words: &[&str], time: Duration) -> Running {
        let mut load = command(&self.folder, self.uid);
        load.arg("lab").args(words).args(["--for", &format!("{}s", time.as_secs()), "-o", "json"]);
        let thread = std::thread::spawn(move || {
            let output = load.output()?;
            serde_json::from_slice(&output.stdout)
                .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))
        });
        Running { name: format!("{} {}", words[1], words[2]), began: Instant::now(), thread }
    }

    /// The binary that runs, by which its processes are found.
    pub fn binary(&self) -> PathBuf {
        self.folder.join("fairlead")
    }
}

impl Running {
    /// Seconds since it began.
    pub fn second(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Its name and what became of it.
    pub fn join(self) -> anyhow::Result<(String, Value)> {
        let report = self.thread.join().map_err(|_| anyhow::anyhow!("{}: the load ended early", self.name))?;
        report.map(|report| (self.name, report))
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = command(&self.folder, self.uid).args(["lab", "down"]).output();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn command(folder: &Path, uid: Option<u32>) -> Command {
    let mut command = Command::new(folder.join("fairlead"));
    command.env_clear().env("PATH", "").env("XDG_RUNTIME_DIR", folder.join("run")).current_dir(folder);
    if let Some(uid) = uid {
        // Becoming somebody else leaves all supplementary groups behind.
        command.uid(uid).gid(uid);
    }
    command
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
