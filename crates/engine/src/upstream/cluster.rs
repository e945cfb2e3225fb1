//! One Envoy cluster: how its endpoints are chosen and reached.

use super::{CircuitBreakers, Endpoint, Endpoints, OutlierConfig};
use crate::listener::{Mode, TlsContext};
use fairlead_model::Origin;
use std::sync::Arc;
use std::time::Duration;

/// A decoded `envoy.config.cluster.v3.Cluster`.
#[derive(Clone, Debug)]
pub struct EnvoyCluster {
    pub name: Arc<str>,
    /// The host in Istio's naming `outbound|PORT|SUBSET|HOST` (or `metadata.istio.services[0].host`); empty for others.
    pub host: Arc<str>,
    /// Service port in Istio's naming, 0 for others.
    pub port: u16,
    /// Subset in Istio's naming, empty for none.
    pub subset: Arc<str>,
    /// Namespace and name of the service (`metadata.istio.services[0]`), empty when untold.
    pub service_namespace: Arc<str>,
    pub service_name: Arc<str>,
    pub kind: ClusterKind,
    pub lb_policy: LbPolicy,
    /// Envoy's default is 5 s.
    pub connect_timeout: Duration,
    /// Percent of healthy endpoints below which a priority uses all of them; Envoy's default is 50.
    pub panic_threshold: f64,
    /// Whether localities share by `load_balancing_weight`.
    pub locality_weighted: bool,
    /// `fairlead.failover_when_none`: priority 0 keeps all while any endpoint of it is healthy.
    pub failover_when_none: bool,
    /// `fairlead.external`: outside the mesh.
    pub external: bool,
    /// `fairlead.unjudged`: the proxy does not look whether the ways to its endpoints answer.
    pub unjudged: bool,
    /// Seen in order; the first whose labels are all on the endpoint applies, else [`EnvoyCluster::transport`].
    pub transport_matches: Vec<TransportMatch>,
    pub transport: UpstreamTransport,
    pub protocol: UpstreamProtocol,
    pub limits: CircuitBreakers,
    pub outlier: Option<OutlierConfig>,
    pub max_requests_per_connection: Option<u32>,
    /// Of connections in the pool; Envoy's default is 1 h, zero disables (`None`).
    pub idle_timeout: Option<Duration>,
    pub origin: Option<Origin>,
}

/// Where endpoints come from.
#[derive(Clone, Debug)]
pub enum ClusterKind {
    /// In the Envoy cluster itself.
    Static(Arc<Endpoints>),
    /// From the `ClusterLoadAssignment` of this name.
    Eds(Arc<str>),
    /// In the Envoy cluster itself, some as names that the proxy resolves every `refresh` (STRICT_DNS, LOGICAL_DNS).
    Dns {
        endpoints: Arc<Endpoints>,
        /// LOGICAL_DNS: one address at a time.
        first_only: bool,
        /// IPv6 addresses where there are no IPv4 ones.
        or_v6: bool,
        refresh: Duration,
    },
    /// Wherever the connection was going; nothing is balanced.
    OriginalDst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LbPolicy {
    RoundRobin,
    LeastRequest,
    Random,
}

/// How an endpoint is spoken to beneath HTTP or TCP.
#[derive(Clone, Debug)]
pub enum UpstreamTransport {
    Raw,
    Tls(Arc<TlsContext>),
}

/// `transport_socket_matches[]`.
#[derive(Clone, Debug)]
pub struct TransportMatch {
    pub name: Arc<str>,
    /// All must equal the endpoint's `envoy.transport_socket_match` metadata; empty matches every endpoint.
    pub labels: Vec<(Box<str>, Box<str>)>,
    pub transport: UpstreamTransport,
}

/// HTTP version towards the endpoints (`HttpProtocolOptions`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// The version the downstream speaks.
    UseDownstream,
    /// By ALPN, HTTP/1.1 if there is none.
    Auto,
}

/// Across networks, and to other clusters, a connection must stand within a second (staleness contract).
const FAR_CONNECT: Duration = Duration::from_secs(1);

impl EnvoyCluster {
    /// How `endpoint` is reached.
    pub fn transport_of(&self, endpoint: &Endpoint) -> &UpstreamTransport {
        self.transport_matches
            .iter()
            .find(|candidate| candidate.labels.iter().all(|(key, value)| endpoint.transport_label(key) == Some(value)))
            .map_or(&self.transport, |found| &found.transport)
    }

    /// How long a connection may take to stand. `far`: through a gateway, or to another cluster of the mesh.
    pub fn connect_limit(&self, far: bool) -> Duration {
        if far && !self.unjudged { FAR_CONNECT.min(self.connect_timeout) } else { self.connect_timeout }
    }

    /// Whether `endpoint` is reached over mesh mutual TLS.
    pub fn is_mesh_tls(&self, endpoint: &Endpoint) -> bool {
        matches!(self.transport_of(endpoint), UpstreamTransport::Tls(tls) if tls.mode == Mode::Mesh)
    }
}
