//! `fairlead control`: the control plane of one cluster.

use anyhow::anyhow;
use clap::Args;
use fairlead_control::{ControlOptions, ControlTimings};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Run the control plane of one cluster of a mesh directory.
///
/// It reads and watches `mesh.yaml` and `clusters/<cluster>/`, issues certificates, tells proxies what to do, and exchanges
/// summaries with its peers. `fairlead up DIR` starts one for each cluster.
///
/// Example: fairlead control --cluster east --directory shop --state /var/lib/fairlead/east --admin /run/fairlead/east.sock
#[derive(Args, Debug)]
pub struct ControlArgs {
    /// This cluster: a folder under clusters/.
    #[arg(long)]
    cluster: String,
    /// The mesh directory.
    #[arg(long)]
    directory: PathBuf,
    /// Where proxies and peers connect; may be given several times.
    #[arg(long, default_value = "0.0.0.0:15012")]
    listen: Vec<SocketAddr>,
    /// What peers are told to dial, HOST:PORT; may be given several times.
    #[arg(long)]
    advertise: Vec<String>,
    /// Unix socket of the admin API; only its owner can open it.
    #[arg(long)]
    admin: PathBuf,
    /// Where state is kept over restarts.
    #[arg(long)]
    state: PathBuf,
    /// A CA to issue with, in Istio's cacerts layout, instead of an own root.
    #[arg(long)]
    cacerts: Option<PathBuf>,
    /// Longest life of a workload's certificate.
    #[arg(long, default_value = "24h", value_parser = duration)]
    certificate_lifetime: Duration,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: ControlArgs) -> anyhow::Result<()> {
    super::logging()?;
    fairlead_control::run(ControlOptions {
        cluster: args.cluster,
        directory: args.directory,
        listen: args.listen,
        advertise: args.advertise,
        admin: args.admin,
        state: args.state,
        cacerts: args.cacerts,
        certificate_lifetime: args.certificate_lifetime,
        timings: ControlTimings::default(),
    })
    .await
}

/// A duration as call tables and Go write it.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    fairlead_calls::given::duration(text).map_err(|e| anyhow!(e))
}
