//! How a lab ends: by itself, by a signal, by force; and how it does not begin.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};

use fairlead_lab::process::{ProcessSpec, Ready};
use fairlead_lab::topology::{self, ClusterSpec, Spec, Topology, WorkloadSpec};
use fairlead_lab::{EnterError, Handle, Inside, Refusal};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::programs;

pub fn codes_and_signals() {
    let code = fairlead_lab::enter_with(vec!["ending".into(), "code".into()], Vec::new());
    assert_eq!(code.unwrap(), 42);
    let (mut lab, mut output) = start("signal");
    assert_eq!(line(&mut output), "ready");
    kill(Pid::from_raw(lab.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(line(&mut output), "ending in order");
    assert_eq!(lab.wait().unwrap().code(), Some(43));
}

/// Every process of the lab holds the writing end of a pipe; when reading it ends, they are all gone.
pub fn killed() {
    let (reading, writing) = nix::unistd::pipe().unwrap();
    fcntl(&reading, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let (mut lab, mut output) = start("force");
    drop(writing);
    let spaces: Vec<String> = line(&mut output).split(' ').map(str::to_owned).collect();
    assert_eq!(spaces.len(), 3, "the lab's own namespace, a workload's, and where its program runs");
    assert!(held(&spaces), "the check must see what it looks for");
    lab.kill().unwrap();
    lab.wait().unwrap();
    programs::drain(File::from(reading));
    // A process closes its files a moment before it leaves its namespaces.
    while held(&spaces) {
        std::thread::yield_now();
    }
}

/// What the lab does that is to end.
pub async fn inside(how: &str, lab: Inside) {
    match how {
        "code" => {
            let listener = lab.listen_outside("127.0.0.1:0".parse().unwrap()).unwrap();
            assert_ne!(listener.local_addr().unwrap().port(), 0);
            let error = lab.listen_outside("192.0.2.1:80".parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("192.0.2.1:80"), "{error}");
            std::process::exit(42)
        }
        "signal" => {
            let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            println!("ready");
            signals.recv().await;
            println!("ending in order");
            std::process::exit(43)
        }
        "force" => {
            let workload = WorkloadSpec { name: "shop/a".into(), ..WorkloadSpec::default() };
            let cluster = ClusterSpec { workloads: vec![workload], ..ClusterSpec::default() };
            let spec = Spec { clusters: [("east".to_owned(), cluster)].into(), externals: Vec::new() };
            let directory = tempfile::tempdir().unwrap();
            let handle = Handle::new(Topology::apply(topology::plan(&spec).unwrap()).unwrap(), directory.path());
            let echo = ProcessSpec::new("east/shop/a", "echo", std::env::current_exe().unwrap())
                .arguments(["program", "echo", "a", "9000"])
                .ready(Ready::Tcp("127.0.0.1:9000".parse().unwrap()));
            handle.spawn(echo).await.unwrap();
            let pid = handle.processes()[0].pid.unwrap();
            let own = |link: &str| std::fs::read_link(link).unwrap().display().to_string();
            let there =
                handle.in_ns("east/shop/a", || std::fs::read_link("/proc/thread-self/ns/net").unwrap()).await.unwrap();
            println!("{} {} {}", own("/proc/self/ns/net"), there.display(), own(&format!("/proc/{pid}/ns/net")));
            std::future::pending().await
        }
        other => panic!("no such ending: {other}"),
    }
}

/// In a lab no further one is possible when the lab's own limits say so; the error says which.
pub fn refused() -> ExitCode {
    for kind in ["user", "net"] {
        std::fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), "0").unwrap();
    }
    let Err(EnterError::Refused(Refusal { step, remedy, .. })) = fairlead_lab::probe::probe() else {
        panic!("it works")
    };
    assert_eq!(step, "create a user namespace");
    let remedy = remedy.unwrap();
    assert!(remedy.contains("user.max_user_namespaces"), "{remedy}");
    ExitCode::SUCCESS
}

fn start(how: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let program = std::env::current_exe().unwrap();
    let mut lab = Command::new(program).args(["enter", "ending", how]).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(lab.stdout.take().unwrap());
    (lab, output)
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Whether any process on this machine is in one of these network namespaces.
fn held(spaces: &[String]) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|p| std::fs::read_link(p.path().join("ns/net")).ok())
        .any(|link| spaces.contains(&link.display().to_string()))
}
