//! Everything that can happen to a control plane.
//!
//! Invariant: closed; the owner handles each, and nobody else changes state.

use fairlead_model::report::ProxyStatus;
use fairlead_model::{ClientKind, ClusterId, WorkloadRef};
use fairlead_peering::PeerUpdate;
use fairlead_sources::ClusterObjects;
use fairlead_xds::ResourceView;
use fairlead_xds::server::StreamId;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

pub type ViewSender = watch::Sender<Arc<dyn ResourceView>>;

pub enum Event {
    /// The cluster's folder.
    Objects(ClusterObjects),
    /// `mesh.yaml` of the mesh directory, if it is there.
    MeshFile(Option<Vec<u8>>),
    /// A peer's stream told something.
    Peer(PeerUpdate),
    /// A peer's stream stands or ended.
    PeerLink { cluster: ClusterId, connected: bool },
    /// Membership or trust changed.
    Membership,
    /// A proxy opened a stream; it gets its first view through the reply.
    ProxyConnected {
        stream: StreamId,
        workload: WorkloadRef,
        identity: String,
        client: ClientKind,
        version: String,
        reply: oneshot::Sender<Result<watch::Receiver<Arc<dyn ResourceView>>, String>>,
    },
    /// A peer opened a stream.
    PeerConnected { stream: StreamId, cluster: ClusterId, reply: oneshot::Sender<watch::Receiver<Arc<dyn ResourceView>>> },
    /// A stream has taken (or refused parts of) a generation.
    Settled { stream: StreamId, generation: u64, rejected: usize },
    Nacked { stream: StreamId, names: Vec<String>, detail: String },
    Disconnected { stream: StreamId },
    /// A proxy's report; `None`: its stream ended.
    Status { workload: WorkloadRef, status: Option<ProxyStatus> },
    /// Drain or undrain this cluster.
    Drain(bool),
    /// A question from the admin API.
    Ask(Box<dyn FnOnce(&crate::world::World) + Send>),
}
