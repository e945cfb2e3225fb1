//! `cargo xtask cluster`: real Kubernetes clusters on one Linux machine, as plain processes in namespaces.
//!
//! No Docker, no systemd, no virtual machine, no registry; pods are real (kubelet, containerd, runc). See docs/test-bed.md. Needs root.
//! Invariant: `down` leaves nothing, and nothing ever leaves the machine.

mod admission;
mod bed;
mod build;
mod cgroup;
mod chart;
pub mod check;
mod command;
mod configuration;
mod diagnosis;
mod dual_stack;
mod enter;
mod faults;
mod hybrid;
mod images;
mod ingress;
mod init;
mod install;
mod kubeconfig;
mod load_balancer;
mod mesh;
mod network;
mod node;
mod pki;
mod plan;
mod remote;
mod replicas;
mod requirements;
mod start;
mod stop;
mod suite;
mod supervisor;
mod webhook;

pub use mesh::{ManifestsArgs, print_manifests};
pub use node::NodeArgs;
pub use suite::{Extent, prepare, run as suite};
pub use webhook::WebhookArgs;

use crate::tally::Tally;
use anyhow::Context as _;
use bed::{Bed, BedArgs};
use clap::{Args, Subcommand};
use enter::Place;
use faults::Fault;
use plan::{Families, Shape};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `cargo xtask cluster`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cargo xtask cluster up --clusters 2 --shape nonflat\n  \
    cargo xtask image && cargo xtask cluster load\n  cargo xtask cluster kubectl 1 get pods --all-namespaces\n  \
    cargo xtask cluster exec lan target/debug/fairlead check --context c1\n  cargo xtask cluster down")]
pub struct ClusterArgs {
    #[command(flatten)]
    bed: BedArgs,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Build Kubernetes, etcd, CoreDNS and Helm from Go modules (some minutes the first time), and the images clusters need.
    Build {
        /// Install Debian packages that are missing.
        #[arg(long)]
        install: bool,
    },
    /// Start clusters 1 to N, and build first what is not built. Clusters that run already are left alone.
    Up {
        #[arg(long, default_value_t = 2)]
        clusters: u8,
        #[arg(long, default_value = "nonflat")]
        shape: Shape,
        /// Address families, the first that of Services that ask for nothing; by default IPv4, and IPv6 where this machine has it.
        #[arg(long)]
        families: Option<Families>,
    },
    /// End all clusters and remove everything of them.
    Down,
    /// What runs, with its cost.
    Status,
    /// Run a program in the lan beside the nodes (`lan`), or in a node (`1`). KUBECONFIG is set.
    Exec {
        place: Place,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
    /// kubectl for one cluster: `cluster kubectl 1 get pods -A`.
    Kubectl {
        cluster: u8,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
    /// Import an image archive into running clusters: that of `cargo xtask image`, or the one named.
    Load {
        archive: Option<PathBuf>,
        /// Only into these clusters.
        #[arg(long, value_delimiter = ',')]
        into: Vec<u8>,
    },
    /// End a program of a cluster (etcd, kube-apiserver, kubelet, …) and keep it ended.
    Stop { cluster: u8, component: String },
    /// Let a program that was stopped run again.
    Start { cluster: u8, component: String },
    /// Reset and refuse connections between two clusters, until `heal`.
    Cut { one: u8, other: u8 },
    /// Lose packets between two clusters, until `heal`.
    Blackhole { one: u8, other: u8 },
    /// Mend all links.
    Heal,
    /// Prove what the running clusters can do, without any mesh.
    Check,
    /// One step of the suite `kubernetes` on the running clusters, which must be of its shape and have the image: `cluster step install`.
    Step { name: String },
    /// The steps of a set of the suite, on clusters started for them: `cluster --suite=2 steps`.
    Steps {
        /// Only those of a plain `cargo xtask test`.
        #[arg(long)]
        plain: bool,
        /// Write what was counted into this file, as JSON.
        #[arg(long)]
        tally: Option<PathBuf>,
    },
}

pub fn run(args: ClusterArgs) -> anyhow::Result<ExitCode> {
    let bed = Bed::open(args.bed.whose())?;
    let changes =
        matches!(args.what, What::Up { .. } | What::Down | What::Step { .. } | What::Steps { .. } | What::Check);
    let _turn = if changes { bed.turn()? } else { None };
    match args.what {
        What::Build { install } => {
            if install {
                build::install_packages()?;
            }
            let _lock = bed.lock()?;
            build::run(&bed)?;
            println!("programs in {}, images in {}", bed.bin().display(), bed.images().display());
            for line in requirements::missing() {
                println!("to start clusters: {line}");
            }
        }
        What::Up { clusters, shape, families } => start::up(&bed, clusters, shape, families)?,
        What::Down => stop::down(&bed)?,
        What::Status => status(&bed),
        What::Exec { place, words } => return Err(enter::command(&bed, place, &words)?.exec().into()),
        What::Kubectl { cluster, words } => return Err(enter::kubectl(&bed, cluster)?.args(words).exec().into()),
        What::Load { archive, into } => {
            let archive = archive.unwrap_or_else(crate::image::path);
            let into = if into.is_empty() { bed.running() } else { into };
            images::load(&bed, &archive, &into)?;
        }
        What::Stop { cluster, component } => set_stopped(&bed, cluster, &component, true)?,
        What::Start { cluster, component } => set_stopped(&bed, cluster, &component, false)?,
        What::Cut { one, other } => faults::break_link(&bed, one, other, Fault::Cut)?,
        What::Blackhole { one, other } => faults::break_link(&bed, one, other, Fault::Blackhole)?,
        What::Heal => faults::heal(&bed)?,
        What::Check => return Ok(told(&check::run(&bed)?)),
        What::Step { name } => {
            let names: Vec<_> = suite::steps().map(|step| step.name).collect();
            let step = suite::steps().find(|step| step.name == name);
            let step = step.with_context(|| format!("no step is called {name}; there are {}", names.join(", ")))?;
            let shape = step.shape.name();
            anyhow::ensure!(enter::shape(&bed)? == step.shape, "this step needs clusters of shape {shape}");
            return Ok(told(&(step.run)(&bed)?));
        }
        What::Steps { plain, tally } => {
            let extent = if plain { Extent::Plain } else { Extent::All };
            return Ok(told(&suite::all(&bed, extent, tally)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what was counted.
fn told(tally: &Tally) -> ExitCode {
    println!("{} passed, {} failed", tally.passed, tally.failures.len());
    ExitCode::from(u8::from(!tally.failures.is_empty()))
}

/// The first process of a node's namespaces; `cluster up` starts it.
pub fn init() -> anyhow::Result<()> {
    init::run(&std::env::args().skip(2).collect::<Vec<_>>())
}

/// The node inside; [`init`] starts it.
pub fn node(args: &NodeArgs) -> anyhow::Result<()> {
    node::run(args)
}

/// A webhook for `cluster check`.
pub fn webhook(args: &WebhookArgs) -> anyhow::Result<()> {
    webhook::run(args)
}

fn status(bed: &Bed) {
    let running = bed.running();
    let Some(shape) = bed.shape().filter(|_| !running.is_empty()) else {
        println!("no cluster runs: `cargo xtask cluster up`");
        return;
    };
    println!("shape {}, KUBECONFIG={}", shape.name(), bed.kubeconfig().display());
    let plan = bed.plan(shape);
    for cluster in running {
        let (cpu, memory) = cgroup::usage(&bed.node_name(cluster)).unwrap_or_default();
        println!(
            "c{cluster}: node {}, pods {}, services {}; {:.1} s of processor time, {} MiB",
            plan.node(cluster),
            plan.pods(cluster),
            plan.services(cluster),
            std::time::Duration::from_nanos(cpu).as_secs_f32(),
            memory >> 20
        );
    }
}

fn set_stopped(bed: &Bed, cluster: u8, component: &str, stopped: bool) -> anyhow::Result<()> {
    bed.init(cluster)?;
    let components = configuration::components(bed, bed.plan(enter::shape(bed)?), cluster);
    let known: Vec<_> = components.iter().map(|known| known.name).collect();
    anyhow::ensure!(known.contains(&component), "there is no `{component}` in a cluster: {}", known.join(", "));
    supervisor::set_stopped(&bed.cluster(cluster), component, stopped)
}
