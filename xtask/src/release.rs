//! `cargo xtask release`: the program as it is meant to be shipped, its functions laid out by what an idle sidecar runs.
//!
//! Of an idle proxy's memory most is the program, and the kernel maps 64 KiB around whatever is touched: 3 MB of functions strewn over
//! 26 MB cost 15 MB. So the program is built, a sidecar of examples/shop is run under valgrind until it was idle for a while, and the
//! program is linked again by the list of its functions (crates/fairlead/build.rs). Invariant: the list is of the very program that is
//! linked by it; it decides where functions stand and never what they do.

use crate::suites;
use anyhow::{Context as _, bail};
use clap::Args;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Valgrind is some fifty times slower than the processor.
const START: Duration = Duration::from_secs(180);
/// What comes round while nothing happens: probes, reports, metrics.
const IDLE: Duration = Duration::from_secs(30);
/// An idle sidecar runs several thousand functions; fewer mean that the program has no names.
const FEWEST: usize = 1000;

#[derive(Args)]
pub struct RecordArgs {
    #[arg(long)]
    binary: PathBuf,
    #[arg(long)]
    into: PathBuf,
}

/// Builds, records in a network namespace of its own, and links again.
pub fn run() -> anyhow::Result<ExitCode> {
    let binary = suites::build_release(None)?;
    let folder = suites::target().join("order");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    println!("running a sidecar of examples/shop under valgrind, for a minute or two");
    let recorded = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe()?)
        .arg("release-record")
        .arg("--binary")
        .arg(&binary)
        .arg("--into")
        .arg(&folder)
        .status()
        .context("unshare (util-linux) is needed for a network namespace")?;
    anyhow::ensure!(recorded.success(), "nothing was recorded");
    let profile = std::fs::read_to_string(folder.join("callgrind.out"))?;
    let names = functions(&profile);
    if names.len() < FEWEST {
        bail!("only {} functions were recorded; is {} stripped?", names.len(), binary.display());
    }
    let list = folder.join("idle.order");
    std::fs::write(&list, names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    println!("linking again, by {} functions", names.len());
    println!("{}", suites::build_release(Some(&list))?.display());
    Ok(ExitCode::SUCCESS)
}

/// In the namespace: a control plane, and a sidecar under valgrind until it is ready and was idle for a while.
pub fn record(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip (iproute2) is needed")?;
    anyhow::ensure!(up.success(), "the loopback interface does not come up");
    let socket = args.into.join("admin.sock");
    let state = |name: &str| args.into.join(name).display().to_string();
    let mut control = Running::start(
        Command::new(&args.binary)
            .args(["control", "--cluster", "east", "--directory", "examples/shop", "--listen", "127.0.0.1:15012"])
            .args(["--state", &state("control"), "--admin", &socket.display().to_string()]),
    )?;
    control.until("the control plane", || socket.exists())?;
    let mut proxy = Running::start(
        Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no", "--demangle=no"])
            .arg(format!("--callgrind-out-file={}", state("callgrind.out")))
            .arg(&args.binary)
            .args(["proxy", "--workload", "east/shop/frontend-0", "--control", "127.0.0.1:15012", "--mark", "1337"])
            .args(["--control-identity", "spiffe://east.shop.example/fairlead/control"])
            .args(["--credentials-from", &socket.display().to_string(), "--state", &state("proxy")]),
    )
    .context("valgrind is needed")?;
    proxy.until("the sidecar", is_ready)?;
    let idle = Instant::now() + IDLE;
    while Instant::now() < idle {
        anyhow::ensure!(is_ready(), "the sidecar is not ready any more");
        std::thread::sleep(Duration::from_secs(2));
    }
    proxy.end()?;
    control.end()?;
    Ok(ExitCode::SUCCESS)
}

/// The functions of a callgrind profile, sorted.
fn functions(profile: &str) -> BTreeSet<&str> {
    let lines = profile.lines().filter_map(|line| line.strip_prefix("fn="));
    // Recursion is told by a number behind an apostrophe; the rest is what has no name.
    let names = lines.map(|name| name.split('\'').next().unwrap_or(name).trim());
    names.filter(|name| !name.is_empty() && !name.starts_with("0x") && !name.contains(' ')).collect()
}

fn is_ready() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:15000")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A child that does not outlive this.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("cannot run {command:?}"))?))
    }

    fn until(&mut self, what: &str, is_there: impl Fn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while !is_there() {
            if let Some(status) = self.0.try_wait()? {
                bail!("{what} ended: {status}");
            }
            anyhow::ensure!(Instant::now() < deadline, "{what} was not ready within {START:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// In order, so that what it recorded is written.
    fn end(&mut self) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_names() {
        let profile =
            "fn=_ZN3one17h01E\n12 4\nfn=_ZN3two17h02E'2\nfn=0x00000000001\nfn=(below main)\ncfn=_ZN5other17h03E\n";
        assert_eq!(functions(profile).into_iter().collect::<Vec<_>>(), ["_ZN3one17h01E", "_ZN3two17h02E"]);
    }
}
