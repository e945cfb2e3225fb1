//! `cargo xtask bench proxy`: CPU per request of Fairlead and of Envoy, interleaved.
//!
//! Invariant: in one cell both proxies run all the time, and every figure that is compared was measured in the same pairs.

use super::blocks::{self, Contender, PROXY_CPU};
use super::cells::{self, Cell};
use super::report::{CellReport, LoadReport, Report};
use super::{ProxyArgs, certificates, envoy, resources};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where raw data and tables go.
const OUTPUT: &str = "target/bench";
/// Seconds a proxy idles before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

pub fn run(args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    let cells = args.cells.iter().map(|name| cells::named(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let binary =
        PathBuf::from("target/release/fairlead").canonicalize().context("target/release/fairlead is not built")?;
    let envoy = envoy::binary()?;
    let folder = std::env::current_dir()?.join(OUTPUT).join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(args, &cells, &binary, &envoy, &folder);
    // Keys and logs go; raw data is written beside.
    let _ = std::fs::remove_dir_all(&folder);
    let report = measured?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let stem = format!("{OUTPUT}/proxy-{seconds}");
    std::fs::write(format!("{stem}.json"), serde_json::to_string_pretty(&report)?)?;
    let table = report.markdown();
    std::fs::write(format!("{stem}.md"), &table)?;
    println!("\n{table}\nraw data: {stem}.json");
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &ProxyArgs, cells: &[Cell], binary: &Path, envoy: &Path, folder: &Path) -> anyhow::Result<Report> {
    certificates::write(folder)?;
    let (_upstream, upstream) = blocks::start_upstream()?;
    let mut report = Report::new(args);
    for rate in args.rates.iter().copied() {
        report.direct.push((rate, blocks::run(args, None, rate, upstream, None).context("without a proxy")?));
    }
    for cell in cells {
        println!("cell {}: {}", cell.name, cell.says);
        report.cells.push(measure_cell(args, *cell, binary, envoy, folder, upstream)?);
    }
    Ok(report)
}

fn measure_cell(
    args: &ProxyArgs,
    cell: Cell,
    binary: &Path,
    envoy: &Path,
    folder: &Path,
    upstream: SocketAddr,
) -> anyhow::Result<CellReport> {
    let (ours, theirs) = (blocks::free_address()?, blocks::free_address()?);
    let running = resources::start(binary, PROXY_CPU, cell, folder, ours, upstream)?;
    let mut fairlead = Contender { name: "fairlead", running, address: ours };
    let running = envoy::start(envoy, PROXY_CPU, cell, folder, theirs, upstream)?;
    let mut envoy = Contender { name: "envoy", running, address: theirs };
    fairlead.ready()?;
    envoy.ready()?;
    std::thread::sleep(SETTLE);
    let idle = [blocks::memory_mb(&fairlead), blocks::memory_mb(&envoy)];
    let mut loads = Vec::new();
    for rate in args.rates.iter().copied() {
        let pairs = blocks::pairs(args, cell, folder, rate, [&fairlead, &envoy])?;
        loads.push(LoadReport { rate, pairs });
    }
    let after = [blocks::memory_mb(&fairlead), blocks::memory_mb(&envoy)];
    let syscalls = [&fairlead, &envoy].map(|contender| syscalls(args, cell, folder, contender));
    Ok(CellReport { cell, idle_mb: idle, after_mb: after, loads, syscalls })
}

/// System calls per request by `strace -c`, where that is installed and allowed; it slows the proxy down, so nothing else is
/// measured meanwhile.
fn syscalls(args: &ProxyArgs, cell: Cell, folder: &Path, contender: &Contender) -> Option<f64> {
    let file = folder.join("strace");
    let pid = contender.pid().to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-p", &pid, "-o"])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    std::thread::sleep(Duration::from_millis(300));
    let short = ProxyArgs { secs: 1.0, ..args.clone() };
    let block = contender.block(&short, cell, folder, 2000);
    // It prints its counts when interrupted.
    let tracer = rustix::process::Pid::from_child(&strace);
    let _ = rustix::process::kill_process(tracer, rustix::process::Signal::INT);
    let _ = strace.wait();
    let block = block.ok()?;
    let text = std::fs::read_to_string(&file).ok()?;
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    let calls: f64 = total.split_whitespace().next()?.parse().ok()?;
    // The warm-up was traced, too.
    Some(calls / (block.rate() * (block.secs + blocks::WARMUP)))
}
