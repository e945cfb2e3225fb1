//! The inner processes: make the namespaces, become process 1 and process 2.
//!
//! Everything here runs before the program has started a thread; that is what makes `fork` and the removal of an environment
//! variable sound. Invariant: a step that fails is reported to the outside with its cause, and nothing keeps running.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, getppid};
use serde::{Deserialize, Serialize};

use super::syscalls::{self, Forked};
use super::{EnterError, Refusal};
use crate::{links, probe};

/// Where this process stands.
#[derive(Debug)]
pub enum Role {
    /// An ordinary process: [`enter`](super::enter) makes a lab.
    Outside,
    /// The process that runs the lab.
    Inside(Inside),
}

/// The lab's way to the outside.
#[derive(Debug)]
pub struct Inside {
    channel: Mutex<UnixStream>,
}

/// What the inside says to the outside; one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    Ready,
    Refused(Refusal),
    Listen(SocketAddr),
}

impl Inside {
    /// A listener bound *outside*, on the machine's own addresses, so that a browser or a client there can reach the lab.
    pub fn listen_outside(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        let channel = self.channel.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        say(&channel, &Message::Listen(address))?;
        syscalls::receive_descriptor(&channel)?
            .map(TcpListener::from)
            .map_err(|text| std::io::Error::other(format!("listen on {address}: {text}")))
    }
}

/// Tells whether this process is the lab's. Must be the first thing `main` does, before any thread: in the process that
/// [`enter`](super::enter) started, this makes the namespaces, and returns only in the process that is to run the lab.
pub fn role() -> Result<Role, EnterError> {
    let Some((channel, outside, only_try)) = syscalls::take_channel(super::VARIABLE) else { return Ok(Role::Outside) };
    match become_lab(outside) {
        Ok(()) => {
            say(&channel, &Message::Ready).map_err(|e| EnterError::Start(e.to_string()))?;
            if only_try {
                syscalls::exit(0);
            }
            Ok(Role::Inside(Inside { channel: Mutex::new(channel) }))
        }
        Err(refusal) => {
            // The outside prints it; a second voice would print it twice.
            let _ = say(&channel, &Message::Refused(refusal));
            syscalls::exit(2);
        }
    }
}

fn become_lab(outside: Pid) -> Result<(), Refusal> {
    isolate()?;
    // After the change of user namespace, which clears it.
    die_with_parent()?;
    if getppid() != outside {
        syscalls::exit(0);
    }
    let (alive, held) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)
        .map_err(|e| refused("make a pipe", e))?;
    let signals = forwarded();
    let _ = signals.thread_block();
    match fork()? {
        Forked::Parent(first) => {
            drop(alive);
            let code = attend(first, &signals);
            drop(held);
            syscalls::exit(code);
        }
        Forked::Child => {
            drop(held);
            first_process(&alive, &signals)
        }
    }
}

/// Process 1 of the lab; returns in process 2.
fn first_process(alive: &OwnedFd, signals: &SigSet) -> Result<(), Refusal> {
    die_with_parent()?;
    // The parent may have ended before the line above: then nobody holds the other end.
    if matches!(nix::unistd::read(alive, &mut [0]), Ok(0)) {
        syscalls::exit(0);
    }
    // The view of processes inside. Where a container masks parts of /proc the kernel refuses a new one; the old one shows the
    // same processes under other numbers, and everything else in it works.
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), quiet, None::<&str>);
    links::set_up("lo", true)
        .map_err(|e| Refusal::explain("take up a network interface", Some(Errno::EPERM), e.to_string()))?;
    probe::try_rule()?;
    match fork()? {
        Forked::Child => {
            let _ = signals.thread_unblock();
            Ok(())
        }
        Forked::Parent(second) => syscalls::exit(attend(second, signals)),
    }
}

fn isolate() -> Result<(), Refusal> {
    let (uid, gid) = (geteuid(), getegid());
    let others = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    match unshare(CloneFlags::CLONE_NEWUSER | others) {
        Ok(()) => {
            let map = |file: &str, text: String| {
                std::fs::write(file, text).map_err(|e| {
                    Refusal::explain(format!("write {file}"), e.raw_os_error().map(Errno::from_raw), e.to_string())
                })
            };
            map("/proc/self/setgroups", "deny".into())?;
            map("/proc/self/uid_map", format!("0 {uid} 1"))?;
            map("/proc/self/gid_map", format!("0 {gid} 1"))?;
        }
        Err(errno) => {
            // Root needs no user namespace for the others.
            if !uid.is_root() || unshare(others).is_err() {
                return Err(refused("create a user namespace", errno));
            }
        }
    }
    // Mounts made here must not reach the outside. (Under a user namespace they could not; for root they would.)
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|e| refused("make the mounts private", e))
}

fn die_with_parent() -> Result<(), Refusal> {
    set_pdeathsig(Signal::SIGKILL).map_err(|e| refused("ask to die with the parent", e))
}

fn fork() -> Result<Forked, Refusal> {
    syscalls::fork().map_err(|e| refused("fork", e))
}

fn refused(step: &str, errno: Errno) -> Refusal {
    Refusal::explain(step, Some(errno), errno.desc())
}

fn say(mut channel: &UnixStream, message: &Message) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    channel.write_all(&line)
}

fn forwarded() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect()
}

/// Waits for `child`, reaping whatever else ends, and passing signals on. Returns its exit code.
fn attend(child: Pid, signals: &SigSet) -> i32 {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                // No child at all: `child` was reaped without being noticed, which cannot be.
                Err(_) => return 1,
            }
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let _ = kill(child, signal);
            }
        }
    }
}
