//! The first process of a node's namespaces: starts the node, and asks after every process that ends.
//!
//! Invariant: it has no other child that anybody waits for, so whatever ends here may be forgotten. When it ends, the kernel ends all
//! processes of the node.

use anyhow::bail;
use nix::sys::wait::{WaitStatus, wait};
use std::process::Command;

/// Runs `cluster-node` with the same words.
pub fn run(words: &[String]) -> anyhow::Result<()> {
    let node = Command::new("/proc/self/exe").arg("cluster-node").args(words).spawn()?;
    let node = nix::unistd::Pid::from_raw(node.id().cast_signed());
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == node => bail!("the node ended with {code}"),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == node => bail!("the node was ended by {signal}"),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
