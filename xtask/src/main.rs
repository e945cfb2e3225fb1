//! The project's own commands: `cargo xtask test|tidy|gen|golden|bench|cluster|image`.
//!
//! Needs nothing installed but Rust; what a suite needs beyond that it fetches pinned into `target/`, and where that fails the
//! suite says so and counts as skipped. Invariant: a suite that did not run is never counted as passed.

mod bench;
mod cluster;
mod endure;
mod generate;
mod image;
mod readme;
mod release;
mod suites;
mod tally;
mod tidy;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every suite and print one closing line. This is what CI runs.
    Test {
        /// Only suites whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// As root: install the Debian packages that suites need and this machine lacks.
        #[arg(long)]
        install: bool,
    },
    /// Check crate edges, file lengths, module docs, unread goldens and the symbols that docs/behaviours.md names.
    Tidy,
    /// Write the generated documents (docs/diagnostics.md, JSON Schemas); fails in CI when they differ.
    Gen {
        /// Only compare.
        #[arg(long)]
        check: bool,
    },
    /// Run the tests that have goldens and write what they get.
    Golden,
    /// Load a mesh for minutes or an hour while it is broken and healed; longer than the test command may take.
    Endure(endure::EndureArgs),
    /// Measure: `bench proxy` against Envoy, `bench control` against its bars, `bench resolving`. Builds in release first.
    Bench(bench::BenchArgs),
    /// Real Kubernetes clusters on this machine: build, up, down, exec, kubectl, load.
    Cluster(cluster::ClusterArgs),
    /// Fairlead's image, from the local binary: target/image/fairlead.tar.
    Image(image::ImageArgs),
    /// Build in release as it is meant to be shipped: laid out by what an idle sidecar runs, which saves a third of its memory.
    Release,
    /// A cluster of a mesh directory as objects for an API server, its workloads as StatefulSets of the echo program.
    Manifests(cluster::ManifestsArgs),
    /// The first process of a node.
    #[command(hide = true)]
    ClusterInit(cluster::NodeArgs),
    /// A node, inside its namespaces.
    #[command(hide = true)]
    ClusterNode(cluster::NodeArgs),
    /// In a network namespace: what an idle sidecar runs.
    #[command(hide = true)]
    ReleaseRecord(release::RecordArgs),
    /// A webhook for `cluster check`.
    #[command(hide = true)]
    ClusterWebhook(cluster::WebhookArgs),
    /// The load generator, a process of its own so that it can be pinned.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchLoad(bench::LoadArgs),
    /// The upstream, a process of its own so that it can be pinned.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchUpstream(bench::UpstreamArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    std::env::set_current_dir(root()?).context("cannot enter the workspace")?;
    match Cli::parse().command {
        Command::Test { only, install } => suites::run(only.as_deref(), install),
        Command::Tidy => {
            let faults = tidy::check(Path::new("."))?;
            for fault in &faults {
                println!("{fault}");
            }
            println!("tidy: {} finding(s)", faults.len());
            Ok(ExitCode::from(u8::from(!faults.is_empty())))
        }
        Command::Gen { check } => generate::run(check),
        Command::Golden => suites::golden(),
        Command::Endure(args) => endure::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Manifests(args) => cluster::print_manifests(&args),
        Command::Image(args) => image::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Release => release::run(),
        Command::ReleaseRecord(args) => release::record(&args),
        Command::ClusterInit(_) => cluster::init().map(|()| ExitCode::FAILURE),
        Command::ClusterNode(args) => cluster::node(&args).map(|()| ExitCode::FAILURE),
        Command::ClusterWebhook(args) => cluster::webhook(&args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "bench")]
        Command::BenchLoad(args) => bench::load(&args),
        #[cfg(feature = "bench")]
        Command::BenchUpstream(args) => bench::upstream(&args),
    }
}

fn root() -> anyhow::Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_owned).context("xtask has no parent folder")
}
