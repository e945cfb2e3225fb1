//! What all threads of a proxy share.
//!
//! Everything here is published or atomic. Invariant: nothing here is locked for longer than a few instructions on the
//! request path.

use crate::dns::Upstreams;
use crate::identity::MeshIdentity;
use crate::telemetry::{Families, LogSink, PeerInfo, Records};
use crate::upstream::{Paths, SimpleTls, Trouble, World};
use crate::worker::BoundAddresses;
use fairlead_runtime::Published;
use fairlead_runtime::metrics::Registry;
use http::HeaderValue;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use tokio::sync::mpsc::UnboundedSender;

/// Shared state.
pub struct Shared {
    pub world: Published<World>,
    pub identity: Option<MeshIdentity>,
    pub own: Arc<PeerInfo>,
    /// `x-fairlead-peer` of this proxy.
    pub own_header: Option<HeaderValue>,
    pub registry: Registry,
    pub families: Arc<Families>,
    pub records: Option<Arc<Records>>,
    pub log_sink: LogSink,
    pub bind: BTreeMap<String, SocketAddr>,
    pub addresses: BoundAddresses,
    pub mark: Option<u32>,
    /// Whom the proxy asks for endpoints that are names.
    pub resolvers: Upstreams,
    pub hostname: String,
    /// Requests and connections in flight over all workers.
    pub in_flight: AtomicUsize,
    /// What workers noticed about endpoints and paths, for the conductor.
    pub trouble: UnboundedSender<Trouble>,
    pub paths: Paths,
    pub simple_tls: SimpleTls,
    pub changes: EndpointChanges,
    /// Asked to take no new work, by the admin interface or the control plane; told in reports.
    pub drained: AtomicBool,
}

/// How endpoints have come and gone since the start.
#[derive(Debug, Default)]
pub struct EndpointChanges {
    pub added: AtomicU64,
    pub removed: AtomicU64,
    pub health: AtomicU64,
}
