//! The few calls that have no safe form.
#![allow(unsafe_code)] // fork, pre_exec, adopting inherited descriptors: no safe form exists for these.

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use nix::unistd::{ForkResult, Pid};

use crate::netns::NetNs;

/// Which side of a fork this is.
#[derive(Debug)]
pub(super) enum Forked {
    Parent(Pid),
    Child,
}

/// Forks. Refused when this process has threads: the child would have only one of them, and their locks.
pub(super) fn fork() -> Result<Forked, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(1);
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: a single-threaded process may do anything after a fork.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Ends this process without running exit handlers that belong to the process it was forked from.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(code) }
}

/// The channel that `variable` names, the process at its other end, and whether the lab is only to be tried. The variable is removed, so that programs started here
/// do not take themselves for the lab.
pub(super) fn take_channel(variable: &str) -> Option<(UnixStream, Pid, bool)> {
    let value = std::env::var(variable).ok()?;
    // SAFETY: called first in `main`, before any other thread could read the environment.
    unsafe { std::env::remove_var(variable) };
    let mut parts = value.split(':');
    let (fd, pid) = (parts.next()?.parse::<RawFd>().ok()?, parts.next()?.parse().ok()?);
    let only_try = parts.next() == Some(super::TRY);
    // Somebody may have set the variable by hand: only an open socket is taken.
    // SAFETY: borrowed only for this question; a closed descriptor answers EBADF.
    let open = fcntl(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.max(3)) }, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    if fd < 3 || open.is_err() {
        return None;
    }
    // SAFETY: open, and inherited for this purpose; nothing else in this fresh process owns it.
    Some((unsafe { UnixStream::from_raw_fd(fd) }, Pid::from_raw(pid), only_try))
}

/// Lets `command` inherit `descriptor` under its number.
pub(super) fn inherit(command: &mut Command, descriptor: &impl AsRawFd) {
    let fd = descriptor.as_raw_fd();
    // SAFETY: one system call, which is async-signal-safe; the caller keeps the descriptor open until the child is spawned.
    unsafe {
        command.pre_exec(move || {
            let borrowed = std::os::fd::BorrowedFd::borrow_raw(fd);
            fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(io::Error::from)
        });
    }
}

/// Sends a descriptor, with the byte that says so.
pub(super) fn send_descriptor(channel: &impl AsRawFd, descriptor: &impl AsRawFd) {
    let fds = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    // A failure means that the inside is gone; its end is reported by `wait`.
    let _ = sendmsg::<UnixAddr>(channel.as_raw_fd(), &[IoSlice::new(b"+\n")], &rights, MsgFlags::MSG_NOSIGNAL, None);
}

/// Sends a refusal in words.
pub(super) fn send_text(channel: &impl AsRawFd, text: &str) {
    let line = format!("-{}\n", text.replace('\n', " "));
    let _ =
        sendmsg::<UnixAddr>(channel.as_raw_fd(), &[IoSlice::new(line.as_bytes())], &[], MsgFlags::MSG_NOSIGNAL, None);
}

/// Waits for what the two functions above send.
pub(super) fn receive_descriptor(channel: &UnixStream) -> io::Result<Result<OwnedFd, String>> {
    let mut first = [0u8; 1];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut received = None;
    {
        let mut parts = [IoSliceMut::new(&mut first)];
        let message =
            recvmsg::<UnixAddr>(channel.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made these descriptors for this process.
                received = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next();
            }
        }
    }
    let mut text = Vec::new();
    let mut byte = [0u8; 1];
    let mut channel = channel;
    while channel.read(&mut byte)? == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    Ok(received.ok_or_else(|| match first[0] {
        b'-' => String::from_utf8_lossy(&text).into_owned(),
        _ => "the outside has ended".to_owned(),
    }))
}

/// Runs `command` in a network namespace, and, with `covers`, in a mount namespace of its own in which each second path shows
/// what is at the first (`None`: an empty directory). All targets must exist.
pub(crate) fn place(command: &mut Command, namespace: &NetNs, covers: Vec<(Option<CString>, CString)>) {
    let namespace = namespace.clone();
    // SAFETY: only system calls on data prepared before the fork; `nix` takes C strings without allocating.
    unsafe {
        command.pre_exec(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            if covers.is_empty() {
                return Ok(());
            }
            unshare(CloneFlags::CLONE_NEWNS)?;
            for (source, target) in &covers {
                match source {
                    Some(source) => {
                        mount(
                            Some(source.as_c_str()),
                            target.as_c_str(),
                            None::<&str>,
                            MsFlags::MS_BIND,
                            None::<&str>,
                        )?;
                    }
                    None => {
                        mount(Some(c"none"), target.as_c_str(), Some(c"tmpfs"), MsFlags::MS_NOSUID, None::<&str>)?;
                    }
                }
            }
            Ok(())
        });
    }
}
