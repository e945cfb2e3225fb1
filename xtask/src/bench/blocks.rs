//! Blocks of load against one proxy, and their order: A B B A.
//!
//! Invariant: both blocks of a pair are measured the same way, one right after the other.

use super::ProxyArgs;
use super::cells::Cell;
use super::generator::Outcome;
use super::process::{self, Running};
use anyhow::{Context as _, bail};
use serde::Serialize;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Generator and upstream are here, the proxy on the other.
pub const LOAD_CPU: usize = 0;
pub const PROXY_CPU: usize = 1;
/// Before the window of every block: connections are made, pools filled, code and caches warm.
pub const WARMUP: f64 = 0.5;
/// Starting to serve may take this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy under test.
pub struct Contender {
    pub name: &'static str,
    pub running: Running,
    pub address: SocketAddr,
}

/// Two blocks that belong together.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    pub fairlead: Outcome,
    pub envoy: Outcome,
    /// Fairlead came first.
    pub fairlead_first: bool,
}

impl Contender {
    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Waits until it accepts connections.
    pub fn ready(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.running.0.try_wait()? {
                bail!("{} ended at once: {status}", self.name);
            }
            if begun.elapsed() > PATIENCE {
                bail!("{} does not listen on {}", self.name, self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// One block.
    pub fn block(&self, args: &ProxyArgs, cell: Cell, folder: &Path, rate: u64) -> anyhow::Result<Outcome> {
        run(args, cell.tls.then_some(folder), rate, self.address, Some(self.pid()))
            .with_context(|| format!("{}, cell {}, {}", self.name, cell.name, load_name(rate)))
    }
}

/// One block, without a proxy when `watch` is none.
pub fn run(
    args: &ProxyArgs,
    tls: Option<&Path>,
    rate: u64,
    address: SocketAddr,
    watch: Option<u32>,
) -> anyhow::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bench-load");
    for (flag, value) in [
        ("--cpu", LOAD_CPU.to_string()),
        ("--address", address.to_string()),
        ("--connections", args.connections.to_string()),
        ("--rate", rate.to_string()),
        ("--warmup", WARMUP.to_string()),
        ("--secs", args.secs.to_string()),
        ("--watch-cpu", PROXY_CPU.to_string()),
    ] {
        command.arg(flag).arg(value);
    }
    if let Some(pid) = watch {
        command.arg("--watch").arg(pid.to_string());
    }
    if args.poisson {
        command.arg("--poisson");
    }
    if let Some(folder) = tls {
        command.arg("--tls").arg(folder);
    }
    let output = command.stderr(Stdio::inherit()).output().context("the generator does not start")?;
    if !output.status.success() {
        bail!("the generator failed: {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Pairs in the order A B B A …, printed as they come.
pub fn pairs(
    args: &ProxyArgs,
    cell: Cell,
    folder: &Path,
    rate: u64,
    [fairlead, envoy]: [&Contender; 2],
) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::with_capacity(args.pairs);
    for number in 0..args.pairs {
        let fairlead_first = number % 2 == 0;
        let block = |contender: &Contender| contender.block(args, cell, folder, rate);
        let pair = if fairlead_first {
            let first = block(fairlead)?;
            Pair { fairlead: first, envoy: block(envoy)?, fairlead_first }
        } else {
            let first = block(envoy)?;
            Pair { envoy: first, fairlead: block(fairlead)?, fairlead_first }
        };
        println!(
            "  {} {} pair {:>2}/{}: fairlead {:5.1} µs, envoy {:5.1} µs, ratio {:.3}; {:.0}/s and {:.0}/s; steal {:.1} % and {:.1} %",
            cell.name,
            load_name(rate),
            number + 1,
            args.pairs,
            pair.fairlead.cpu_us(),
            pair.envoy.cpu_us(),
            pair.ratio(),
            pair.fairlead.rate(),
            pair.envoy.rate(),
            pair.fairlead.steal * 100.0,
            pair.envoy.steal * 100.0,
        );
        pairs.push(pair);
    }
    Ok(pairs)
}

impl Pair {
    /// CPU per request, Fairlead's to Envoy's.
    pub fn ratio(&self) -> f64 {
        self.fairlead.cpu_us() / self.envoy.cpu_us()
    }

    /// Both proxies answered at least 98 % of the rate.
    pub fn holds(&self, rate: u64) -> bool {
        self.fairlead.rate().min(self.envoy.rate()) >= 0.98 * rate as f64
    }

    pub fn steal(&self) -> f64 {
        self.fairlead.steal.max(self.envoy.steal)
    }
}

impl Outcome {
    /// Microseconds of the proxy's CPU time per request.
    pub fn cpu_us(&self) -> f64 {
        self.usage.cpu_ns as f64 / 1000.0 / self.completed.max(1) as f64
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.completed as f64 / self.secs
    }
}

pub fn load_name(rate: u64) -> String {
    if rate == 0 { "saturation".to_owned() } else { format!("{rate}/s") }
}

/// Starts the upstream and learns its address.
pub fn start_upstream() -> anyhow::Result<(Running, SocketAddr)> {
    use std::io::BufRead as _;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench-upstream", "--cpu", &LOAD_CPU.to_string()]).stdout(Stdio::piped());
    let mut running = Running(command.spawn()?);
    let mut line = String::new();
    if let Some(output) = running.0.stdout.take() {
        std::io::BufReader::new(output).read_line(&mut line)?;
    }
    Ok((running, line.trim().parse().context("the upstream did not say where it listens")?))
}

/// An address nobody listens on right now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Memory of an idle or used process.
pub fn memory_mb(contender: &Contender) -> (f64, f64) {
    let (rss, pss) = process::memory(contender.pid());
    (rss as f64 / 1e6, pss as f64 / 1e6)
}
