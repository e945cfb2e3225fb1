//! Supervised processes inside namespaces.
//!
//! Each has a process group of its own, a log file, and is watched by one task. Invariant: a process that was asked to stop is
//! gone, with all its children, when `stop` or `kill` returns; one that ends by itself is reported with the end of its log.
//! Nothing here restarts a process on its own: that is the caller's decision.

mod files;
mod ready;
mod supervisor;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use files::EtcFiles;
pub use ready::Ready;
pub use supervisor::{Event, ProcessError, State, Status, Supervisor};

/// A process to run.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Whose it is: a name of the plan (a workload that shares a namespace keeps its own name). It says where it runs.
    pub owner: String,
    /// What it is there: `echo`, `proxy`, `control`. Unique for its owner.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Environment variables, added to those of the lab.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory; None: the lab's.
    pub directory: Option<PathBuf>,
    /// What it finds in /etc.
    pub files: Option<EtcFiles>,
    /// When it is ready.
    pub ready: Ready,
    /// How long it may take to become so.
    pub ready_within: Duration,
}

impl ProcessSpec {
    /// A process that is ready as soon as it runs.
    pub fn new(owner: impl Into<String>, name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            owner: owner.into(),
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            files: None,
            ready: Ready::Started,
            ready_within: Duration::from_secs(15),
        }
    }

    /// With these arguments.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With this environment variable.
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Ready on this.
    pub fn ready(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }

    /// With these files in /etc.
    pub fn files(mut self, files: EtcFiles) -> Self {
        self.files = Some(files);
        self
    }
}
