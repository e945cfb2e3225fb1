//! Everything that can happen to a control plane.
//!
//! Invariant: closed; the owner handles each, and nobody else changes state.

use crate::store::Bucket;
use fairlead_identity::VerifiedPeer;
use fairlead_model::report::ProxyStatus;
use fairlead_model::{ClientKind, ClusterId, WorkloadRef};
use fairlead_peering::PeerUpdate;
use fairlead_resources::fairlead::Mesh;
use fairlead_sources::ClusterObjects;
use fairlead_xds::server::{StreamId, Views};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tokio::sync::oneshot;

pub enum Event {
    /// The cluster's folder.
    Objects(ClusterObjects),
    /// A Kubernetes cluster: its objects, what its `Mesh` object says, and where peers reach this control plane, unless that was
    /// settled at the start.
    Cluster {
        objects: ClusterObjects,
        mesh: Mesh,
        advertise: Option<Vec<String>>,
    },
    /// `mesh.yaml` of the mesh directory, if it is there; or why it cannot be read.
    MeshFile(Result<Option<Vec<u8>>, String>),
    /// Addresses of load balancers that have names only, by name.
    LookedUp(BTreeMap<String, Vec<IpAddr>>),
    /// A peer's stream told something.
    Peer(PeerUpdate),
    /// A peer's stream stands or ended.
    PeerLink {
        cluster: ClusterId,
        connected: bool,
    },
    /// Membership or trust may have changed.
    Membership,
    /// Somebody opened a discovery stream; it gets its views through the reply.
    Connected {
        stream: StreamId,
        peer: VerifiedPeer,
        client: Client,
        /// What it was served before, as [`crate::freshness::Known`] writes it; empty when nothing.
        freshness: String,
        reply: oneshot::Sender<Result<Views, String>>,
    },
    /// A stream has taken (or refused parts of) a generation.
    Settled {
        stream: StreamId,
        generation: u64,
        rejected: usize,
    },
    Nacked {
        stream: StreamId,
        names: Vec<String>,
        detail: String,
    },
    Disconnected {
        stream: StreamId,
    },
    /// A proxy's report; `None`: its stream ended.
    Report {
        stream: u64,
        workload: WorkloadRef,
        status: Option<ProxyStatus>,
    },
    /// Another replica has stored something of these.
    Stored(BTreeSet<Bucket>),
    /// Drain or undrain this cluster.
    Drain(bool),
    /// A question from the admin API.
    Ask(Box<dyn FnOnce(&crate::world::World) + Send>),
}

/// Who has a discovery stream.
#[derive(Clone, Debug)]
pub enum Client {
    Proxy { workload: WorkloadRef, identity: String, kind: ClientKind, version: String },
    Peer { cluster: ClusterId },
}

impl Event {
    /// Whether what is known of sources may be another after it, though it changes nothing else.
    pub fn tells_of_sources(&self) -> bool {
        matches!(self, Self::Peer(_) | Self::Membership | Self::Stored(_))
    }
}
