//! What a control plane is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// This cluster.
    pub cluster: String,
    /// Where its objects are.
    pub source: Source,
    /// Proxies and peers connect here (mutual TLS; joining and first certificates without a client certificate).
    pub listen: Vec<SocketAddr>,
    /// What peers are told to dial, `host:port`.
    pub advertise: Vec<String>,
    /// Admin API: a Unix socket readable by this user only.
    pub admin: PathBuf,
    /// `/ready` and `/metrics` over plain HTTP, for kubelets and scrapers; nothing on it changes anything.
    pub status: Option<SocketAddr>,
    /// Admission webhooks over TLS, for API servers.
    pub webhook: Option<SocketAddr>,
    /// The injector's settings; without a file its defaults hold.
    pub injection: Option<PathBuf>,
    /// `state.redb` and last-good copies.
    pub state: PathBuf,
    /// A CA in Istio's `cacerts` layout instead of an own root.
    pub cacerts: Option<PathBuf>,
    /// Longest life of a workload's certificate.
    pub certificate_lifetime: Duration,
    /// The clocks of the staleness contract; the defaults are what is documented.
    pub timings: ControlTimings,
}

/// Where a cluster's objects are.
#[derive(Clone, Debug)]
pub enum Source {
    /// A mesh directory: `mesh.yaml` and `clusters/<cluster>/` in it are read and watched.
    Directory(PathBuf),
    /// An API server.
    Kubernetes(KubernetesOptions),
}

/// Which API server, and where our own objects are in it.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// The system namespace: `Mesh`, `Peer` and what the control plane writes.
    pub namespace: String,
    /// `None`: as a pod of the cluster, else `$KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// `None`: the kubeconfig's current context.
    pub context: Option<String>,
    /// Of a control plane that runs in another cluster, its primary: where its own state is. `None`: in the same API server.
    pub home: Option<HomeOptions>,
}

/// Where a control plane that serves another cluster keeps its own.
#[derive(Clone, Debug)]
pub struct HomeOptions {
    /// Its namespace in the primary: CA, membership, lease, credential, and the Service by which it is reached.
    pub namespace: String,
    /// `None`: as a pod of the primary.
    pub kubeconfig: Option<PathBuf>,
    /// How long a token for the remote's API server is asked for.
    pub token_lifetime: Duration,
}

/// How long things hold without news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlTimings {
    /// A peer whose control stream ended is stale after this. Default 15 s.
    pub lease: Duration,
    /// A proxy's report outlives its stream by this. Default 10 s.
    pub report_grace: Duration,
    /// After a start the reports of before hold this long, so that proxies have time to come back. Default 30 s.
    pub restart_grace: Duration,
    /// A proxy that knows more than this control plane waits for it to catch up no longer than this. Default 15 s.
    pub catch_up: Duration,
    /// Changes within this window are resolved together. Default 8 ms.
    pub coalesce: Duration,
}

impl Default for ControlTimings {
    fn default() -> Self {
        Self {
            lease: fairlead_peering::Lease::DURATION,
            report_grace: Duration::from_secs(10),
            restart_grace: Duration::from_secs(30),
            catch_up: fairlead_peering::Lease::DURATION,
            coalesce: Duration::from_millis(8),
        }
    }
}
