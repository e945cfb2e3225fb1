//! Endpoints of an Envoy cluster, grouped as `ClusterLoadAssignment` groups them.
//!
//! Invariant: an [`EndpointKey`] stays the same over updates while the endpoint does, so that counters, ejections and
//! paths outlive a push.

use fairlead_model::ids::Locality;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A decoded `ClusterLoadAssignment`.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// In the order of the resource.
    pub localities: Vec<LocalityGroup>,
    /// Percent, Envoy's default 140.
    pub overprovisioning: u32,
    /// Whether priority health counts weights instead of endpoints.
    pub weighted_priority_health: bool,
}

/// Endpoints of one locality in one priority.
#[derive(Clone, Debug)]
pub struct LocalityGroup {
    pub locality: Arc<Locality>,
    pub priority: u32,
    /// `load_balancing_weight`; `None` counts as 0 under locality weights (Envoy: gets no traffic).
    pub weight: Option<u32>,
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub key: EndpointKey,
    pub address: EndpointAddress,
    /// `endpoint.hostname`: the server name to ask for, empty for none.
    pub hostname: Arc<str>,
    pub health: EndpointHealth,
    /// At least 1.
    pub weight: u32,
    pub locality: Arc<Locality>,
    pub priority: u32,
    /// `istio.workload`, if told.
    pub workload: Option<WorkloadLabel>,
    /// `fairlead.*`, if told.
    pub fairlead: Option<FairleadEndpoint>,
    pub(super) transport_labels: Vec<(Box<str>, Box<str>)>,
}

/// Names an endpoint within its Envoy cluster: `198.51.100.7:9080` or `envoy://LISTENER/ENDPOINT_ID`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey(pub Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// Dialled directly.
    Socket(SocketAddr),
    /// A name to be resolved first (STRICT_DNS and LOGICAL_DNS only).
    Named { host: Arc<str>, port: u16 },
    /// Behind a gateway (`envoy_internal_address`): dial an endpoint of the Envoy cluster named `hop`.
    Gateway { hop: Arc<str>, endpoint_id: Arc<str> },
}

/// `health_status` as the control plane tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndpointHealth {
    #[default]
    Healthy,
    Degraded,
    Draining,
    Unhealthy,
}

/// `istio.workload`: `name;namespace;canonical;revision;cluster`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadLabel {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub canonical_name: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub cluster: Arc<str>,
}

/// `fairlead` metadata of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FairleadEndpoint {
    /// SPIFFE ID the endpoint must show; empty when it has none.
    pub identity: Arc<str>,
    /// Opaque id, as in `outbound_.PORT_.ep-<id>_.HOST`.
    pub id: Arc<str>,
    pub cluster: Arc<str>,
    pub namespace: Arc<str>,
    pub workload: Arc<str>,
    pub network: Arc<str>,
    /// Address inside its own network, if known here.
    pub address: Option<IpAddr>,
}

impl Endpoints {
    /// All endpoints in the order of the resource: the order of [`crate::balance::Balancer`] indices.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.localities.iter().flat_map(|group| &group.endpoints)
    }

    /// Names among the endpoints.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.iter().filter_map(|endpoint| match &endpoint.address {
            EndpointAddress::Named { host, .. } => Some(host),
            EndpointAddress::Socket(_) | EndpointAddress::Gateway { .. } => None,
        })
    }

    /// Each name replaced by its addresses (or its first, for LOGICAL_DNS); one without any is left out.
    pub fn resolved<'a>(&self, first_only: bool, addresses: impl Fn(&str) -> &'a [IpAddr]) -> Self {
        let mut seen = ahash::AHashSet::new();
        let localities = self.localities.iter().map(|group| {
            let mut endpoints = Vec::with_capacity(group.endpoints.len());
            for endpoint in &group.endpoints {
                let EndpointAddress::Named { host, port } = &endpoint.address else {
                    endpoints.extend(seen.insert(endpoint.key.clone()).then(|| endpoint.clone()));
                    continue;
                };
                let found = addresses(host);
                for ip in &found[..if first_only { found.len().min(1) } else { found.len() }] {
                    let address = EndpointAddress::Socket(SocketAddr::new(*ip, *port));
                    let key = EndpointKey(address.to_string().into());
                    if seen.insert(key.clone()) {
                        endpoints.push(Arc::new(Endpoint { key, address, ..Endpoint::clone(endpoint) }));
                    }
                }
            }
            LocalityGroup { endpoints, ..group.clone() }
        });
        Self { localities: localities.collect(), ..*self }
    }

    pub fn len(&self) -> usize {
        self.localities.iter().map(|group| group.endpoints.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.localities.iter().all(|group| group.endpoints.is_empty())
    }
}

impl Endpoint {
    /// The endpoint of an ORIGINAL_DST Envoy cluster: wherever the connection was going, without metadata.
    pub fn original(address: SocketAddr) -> Self {
        Self {
            key: EndpointKey(address.to_string().into()),
            address: EndpointAddress::Socket(address),
            hostname: "".into(),
            health: EndpointHealth::Healthy,
            weight: 1,
            locality: Arc::default(),
            priority: 0,
            workload: None,
            fairlead: None,
            transport_labels: Vec::new(),
        }
    }

    /// A label of `envoy.transport_socket_match`.
    pub fn transport_label(&self, key: &str) -> Option<&str> {
        self.transport_labels.iter().find(|(have, _)| &**have == key).map(|(_, value)| &**value)
    }

    /// The Envoy cluster of the gateway that leads to this endpoint, if it is behind one.
    pub fn gateway_hop(&self) -> Option<&Arc<str>> {
        match &self.address {
            EndpointAddress::Gateway { hop, .. } => Some(hop),
            EndpointAddress::Socket(_) | EndpointAddress::Named { .. } => None,
        }
    }

    /// SPIFFE ID the endpoint must show, if one is told.
    pub fn identity(&self) -> Option<&Arc<str>> {
        self.fairlead.as_ref().map(|own| &own.identity).filter(|identity| !identity.is_empty())
    }

    /// Mesh cluster it runs in, if told.
    pub fn cluster(&self) -> Option<&Arc<str>> {
        let told = self.fairlead.as_ref().map(|own| &own.cluster);
        told.or_else(|| self.workload.as_ref().map(|workload| &workload.cluster)).filter(|name| !name.is_empty())
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Named { host, port } => write!(f, "{host}:{port}"),
            Self::Gateway { hop, endpoint_id } => write!(f, "envoy://{hop}/{endpoint_id}"),
        }
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
