//! `cargo xtask bench`: measurements, never assertions.
//!
//! Figures of a debug build mean nothing, so the command builds `fairlead` and itself in release (with the feature `bench`)
//! and hands over to that. Invariant: generator, upstream and proxies are processes of their own, pinned before they start.

use clap::{Args, Subcommand};
use std::process::ExitCode;

#[cfg(feature = "bench")]
mod blocks;
#[cfg(feature = "bench")]
mod cells;
#[cfg(feature = "bench")]
mod certificates;
#[cfg(feature = "bench")]
mod connection;
#[cfg(feature = "bench")]
mod control;
#[cfg(feature = "bench")]
mod envoy;
#[cfg(feature = "bench")]
mod generator;
#[cfg(feature = "bench")]
mod process;
#[cfg(feature = "bench")]
mod proxy;
#[cfg(feature = "bench")]
mod report;
#[cfg(feature = "bench")]
mod resolving;
#[cfg(feature = "bench")]
mod resources;
#[cfg(feature = "bench")]
mod schedule;
#[cfg(any(test, feature = "bench"))]
mod statistics;
#[cfg(feature = "bench")]
mod upstream;

#[cfg(feature = "bench")]
pub use generator::{LoadArgs, run as load};
#[cfg(feature = "bench")]
pub use upstream::{UpstreamArgs, run as upstream};

#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// CPU per request of the proxy, interleaved with Envoy's.
    Proxy(ProxyArgs),
    /// A control plane with simulated proxies and peers: latency of changes, CPU, memory, reconnects, against the bars.
    Control(ControlArgs),
    /// Full and incremental resolving and generating of a large mesh, in memory.
    Resolving(ResolvingArgs),
}

/// How to measure proxies.
#[derive(Args, Clone, Debug)]
#[cfg_attr(not(feature = "bench"), allow(dead_code))]
pub struct ProxyArgs {
    /// Cells, comma-separated: h1 (lean plaintext), mesh (request ids, default stats, access log, 20 policies), tls (mutual
    /// TLS downstream).
    #[arg(long, value_delimiter = ',', default_values_t = ["h1".to_owned(), "mesh".to_owned(), "tls".to_owned()])]
    cells: Vec<String>,
    /// Requests per second of the fixed rates, comma-separated; 0 is saturation.
    #[arg(long, value_delimiter = ',', default_values_t = [2000, 10_000, 0])]
    rates: Vec<u64>,
    /// Pairs of blocks per cell and load, in the order A B B A.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Measured seconds of a block.
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Connections of the generator.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Arrivals of the fixed rates by a Poisson process instead of uniformly.
    #[arg(long)]
    poisson: bool,
}

/// How to measure resolving.
#[derive(Args, Clone, Debug)]
#[cfg_attr(not(feature = "bench"), allow(dead_code))]
pub struct ResolvingArgs {
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Endpoints of each service.
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Proxies that are generated for.
    #[arg(long, default_value_t = 20)]
    proxies: usize,
    #[arg(long, default_value_t = 15)]
    repeat: usize,
}

/// How to measure the control plane's process.
#[derive(Args, Clone, Debug)]
#[cfg_attr(not(feature = "bench"), allow(dead_code))]
pub struct ControlArgs {
    /// A small mesh and few proxies: whether everything runs, with figures that mean nothing.
    #[arg(long)]
    quick: bool,
    /// Parts, comma-separated: endpoints (memory of an endpoint), proxies (memory of a proxy), changes, storm, peers.
    #[arg(long, value_delimiter = ',',
          default_values_t = ["endpoints", "proxies", "changes", "storm", "peers"].map(str::to_owned))]
    parts: Vec<String>,
    #[arg(short, long, default_value = "table")]
    output: ControlOutput,
}

/// How the result is printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlOutput {
    Table,
    Json,
}

#[cfg(feature = "bench")]
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!("WARNING: this is a debug build; `cargo xtask bench` without features builds in release by itself");
    }
    match args.what {
        What::Proxy(args) => proxy::run(&args),
        What::Control(args) => control::run(&args),
        What::Resolving(args) => resolving::run(&args),
    }
}

#[cfg(not(feature = "bench"))]
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    use anyhow::Context as _;
    use std::process::Command;
    let mut build = Command::new(crate::suites::cargo());
    build.args(["build", "--release", "--package", "xtask", "--features", "xtask/bench"]);
    if !matches!(args.what, What::Resolving(_)) {
        build.args(["--package", "fairlead"]);
    }
    eprintln!("building in release");
    anyhow::ensure!(build.status()?.success(), "the release build failed");
    let own = crate::suites::target().join("release/xtask").canonicalize().context("the build left no xtask")?;
    let status = Command::new(own).args(std::env::args_os().skip(1)).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
