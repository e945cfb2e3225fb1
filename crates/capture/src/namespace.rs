//! Work in another network namespace, by its path.
//!
//! Must never change the namespace of a thread that does anything else. Invariant: the thread that enters ends with the work.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a thread of its own inside the network namespace at `path`.
///
/// # Errors
/// It is not there, or may not be entered (CAP_SYS_ADMIN), or the work panicked.
pub fn inside<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let namespace = File::open(path)?;
    let thread = std::thread::Builder::new().name("namespace".into()).spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the work panicked")))
}
