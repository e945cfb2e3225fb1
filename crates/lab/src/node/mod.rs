//! What a Kubernetes node does for pods without a sidecar: a name server for the cluster's own services, and a stand-in for
//! kube-proxy that takes connections to service addresses.
//!
//! It is told by its cluster's control plane what exists and what is ready, and keeps the last it was told. Must never do what a mesh
//! does: no other cluster, no routing rule, no encryption. Invariant: a connection goes to a ready local endpoint chosen at random, or
//! is refused.

mod names;
mod relay;
pub mod rules;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};

use crate::live::admin::{self, AdminError};
use table::Table;

/// How often the control plane is asked; kube-proxy learns of changes in about this time.
const LOOK: Duration = Duration::from_millis(250);

/// How a node is run.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its cluster.
    pub cluster: String,
    /// Admin socket of the cluster's control plane.
    pub admin: PathBuf,
    /// Where it answers names.
    pub dns: SocketAddr,
    /// Where connections to service addresses arrive.
    pub relay: SocketAddr,
    /// Names of servers outside the mesh: what a name server of the machine would know.
    pub hosts: Vec<(String, IpAddr)>,
}

/// What is known, replaced as a whole.
type Known = Arc<RwLock<Arc<Table>>>;

/// Serves until a listener breaks.
///
/// # Errors
/// An address that cannot be bound.
pub async fn run(options: NodeOptions) -> std::io::Result<()> {
    let known: Known = Arc::new(RwLock::new(Arc::new(Table::default().with_hosts(&options.hosts))));
    tokio::spawn(learn(options.clone(), known.clone()));
    let udp = UdpSocket::bind(options.dns).await?;
    let tcp = TcpListener::bind(options.dns).await?;
    let relay = TcpListener::bind(options.relay).await?;
    tokio::select! {
        done = names::serve_udp(udp, known.clone()) => done,
        done = names::serve_tcp(tcp, known.clone()) => done,
        done = relay::serve(relay, known) => done,
    }
}

async fn learn(options: NodeOptions, known: Known) {
    loop {
        // While the control plane is away the last table holds.
        if let Ok(table) = ask(&options.admin, &options.cluster).await {
            let table = table.with_hosts(&options.hosts);
            *known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn ask(admin: &Path, cluster: &str) -> Result<Table, AdminError> {
    let names = admin::get(admin, "/names").await?;
    let services = admin::get(admin, "/services").await?;
    let endpoints = admin::get(admin, "/endpoints").await?;
    Ok(Table::read(cluster, &names, &services, &endpoints))
}

fn now(known: &Known) -> Arc<Table> {
    known.read().unwrap_or_else(PoisonError::into_inner).clone()
}
