//! What a control plane is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// This cluster.
    pub cluster: String,
    /// The mesh directory: `mesh.yaml` and `clusters/<cluster>/` in it are read and watched.
    pub directory: PathBuf,
    /// Proxies and peers connect here (mutual TLS; joining and first certificates without a client certificate).
    pub listen: Vec<SocketAddr>,
    /// What peers are told to dial, `host:port`.
    pub advertise: Vec<String>,
    /// Admin API: a Unix socket readable by this user only.
    pub admin: PathBuf,
    /// `state.redb` and last-good copies.
    pub state: PathBuf,
    /// A CA in Istio's `cacerts` layout instead of an own root.
    pub cacerts: Option<PathBuf>,
    /// Longest life of a workload's certificate.
    pub certificate_lifetime: Duration,
}
