//! The outer process: starts the program again, waits for it, passes signals on, opens listeners for it.
//!
//! Must never do anything for the lab but that; all state is inside. Invariant: the thread that starts the inner program is the
//! one that waits for it, because "die with the parent" means the parent's *thread*.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::inside::Message;
use super::{EnterError, TRY, VARIABLE, syscalls};

/// Starts this program again, with the same arguments, inside a new lab, and waits for it. Returns its exit code, 128 + n when
/// signal n ended it. SIGINT, SIGTERM and SIGHUP are passed on as SIGTERM, once each.
///
/// # Errors
/// `Refused` when this machine does not allow a lab; nothing runs then.
pub fn enter() -> Result<i32, EnterError> {
    enter_with(std::env::args_os().skip(1).collect(), Vec::new())
}

/// As [`enter`], with other arguments and additional environment variables.
pub fn enter_with(arguments: Vec<OsString>, environment: Vec<(OsString, OsString)>) -> Result<i32, EnterError> {
    on_thread(arguments, environment, false)
}

/// Makes a lab and lets it go again. The program's `main` must call [`role`](super::role) first.
pub(crate) fn try_enter() -> Result<(), EnterError> {
    on_thread(Vec::new(), Vec::new(), true).map(drop)
}

fn on_thread(
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    only_try: bool,
) -> Result<i32, EnterError> {
    // A thread of its own: the caller may be inside a runtime already, and its thread may end before the lab does.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("lab".into())
            .spawn_scoped(scope, || run(arguments, environment, only_try));
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(EnterError::Start("the thread that waits for it panicked".into())),
            Err(e) => Err(EnterError::Start(e.to_string())),
        }
    })
}

fn run(arguments: Vec<OsString>, environment: Vec<(OsString, OsString)>, only_try: bool) -> Result<i32, EnterError> {
    let start = |e: std::io::Error| EnterError::Start(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start)?;
    runtime.block_on(async {
        let (ours, theirs) = StdUnixStream::pair().map_err(start)?;
        let mut command = Command::new("/proc/self/exe");
        if let Some(name) = std::env::args_os().next() {
            std::os::unix::process::CommandExt::arg0(&mut command, name);
        }
        // A process group of its own: a Ctrl-C reaches only this process, which passes exactly one signal on.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(arguments).envs(environment);
        let purpose = if only_try { TRY } else { "run" };
        command.env(VARIABLE, format!("{}:{}:{purpose}", theirs.as_raw_fd(), std::process::id()));
        syscalls::inherit(&mut command, &theirs);
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(start)?;
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(start)?;
        drop(theirs);
        ours.set_nonblocking(true).map_err(start)?;
        let mut messages = BufReader::new(UnixStream::from_std(ours).map_err(start)?).lines();
        let mut open = true;
        let mut ready = false;
        loop {
            tokio::select! {
                biased;
                line = messages.next_line(), if open => match message(line) {
                    Some(Message::Ready) => ready = true,
                    Some(Message::Refused(refusal)) => {
                        let _ = child.wait().await;
                        return Err(EnterError::Refused(refusal));
                    }
                    Some(Message::Listen(address)) => answer(messages.get_ref().get_ref(), address),
                    None => open = false,
                },
                status = child.wait() => {
                    let code = code(status.map_err(start)?);
                    // Its last words may not have been read yet; with it, the channel's other end is closed.
                    while let Some(last) = message(messages.next_line().await) {
                        match last {
                            Message::Ready => ready = true,
                            Message::Refused(refusal) => return Err(EnterError::Refused(refusal)),
                            Message::Listen(_) => {}
                        }
                    }
                    return if ready {
                        Ok(code)
                    } else {
                        Err(EnterError::Start(format!("it ended with code {code} before the lab was there")))
                    };
                }
                () = any(&mut signals) => {
                    if let Some(pid) = child.id() {
                        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
                    }
                }
            }
        }
    })
}

fn message(line: std::io::Result<Option<String>>) -> Option<Message> {
    serde_json::from_str(&line.ok().flatten()?).ok()
}

/// Binds outside and hands the listener in. Sending cannot block: there is at most one answer under way.
fn answer(channel: &UnixStream, address: SocketAddr) {
    match std::net::TcpListener::bind(address) {
        Ok(listener) => syscalls::send_descriptor(channel, &listener),
        Err(e) => syscalls::send_text(channel, &e.to_string()),
    }
}

async fn any(signals: &mut [tokio::signal::unix::Signal]) {
    std::future::poll_fn(|context| {
        if signals.iter_mut().any(|s| s.poll_recv(context).is_ready()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
