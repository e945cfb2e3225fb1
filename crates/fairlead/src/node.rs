//! `fairlead node`: what a Kubernetes node does for pods without a sidecar, in the lab. Hidden: `up` starts it.

use clap::Args;
use fairlead_lab::node::NodeOptions;
use std::net::{IpAddr, SocketAddr};
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
    /// Name of a server outside the mesh, NAME=ADDRESS; may be given several times.
    #[arg(long = "host", value_parser = host)]
    hosts: Vec<(String, IpAddr)>,
}

/// Runs until it is ended.
pub async fn run(args: NodeArgs) -> anyhow::Result<()> {
    crate::logging()?;
    let options =
        NodeOptions { cluster: args.cluster, admin: args.admin, dns: args.dns, relay: args.relay, hosts: args.hosts };
    Ok(fairlead_lab::node::run(options).await?)
}

fn host(text: &str) -> anyhow::Result<(String, IpAddr)> {
    let (name, address) = text.split_once('=').ok_or_else(|| anyhow::anyhow!("`{text}`: write NAME=ADDRESS"))?;
    Ok((name.to_owned(), address.parse()?))
}
