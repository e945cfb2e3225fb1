//! `fairlead node`: what a Kubernetes node does for pods without a sidecar, in the lab. Hidden: `up` starts it.

use clap::Args;
use fairlead_lab::node::NodeOptions;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Answer names of the own cluster and relay connections to service addresses, for pods without a sidecar.
#[derive(Args, Debug)]
pub struct NodeArgs {
    /// Its cluster.
    #[arg(long)]
    cluster: String,
    /// Admin socket of the cluster's control plane.
    #[arg(long)]
    admin: PathBuf,
    /// Where it answers names.
    #[arg(long)]
    dns: SocketAddr,
    /// Where redirected connections arrive.
    #[arg(long)]
    relay: SocketAddr,
}

/// Runs until it is ended.
pub async fn run(args: NodeArgs) -> anyhow::Result<()> {
    crate::logging()?;
    let options = NodeOptions { cluster: args.cluster, admin: args.admin, dns: args.dns, relay: args.relay };
    Ok(fairlead_lab::node::run(options).await?)
}
