//! What an endpoint resource is made of.

use super::locality::LocalityRule;
use crate::names::ResourceName;
use fairlead_model::ids::Locality;
use fairlead_model::matching::Labels;
use fairlead_model::{ClientKind, ClusterId, Endpoint, NetworkId, Origin};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct EndpointsInput {
    pub name: ResourceName,
    pub target: Target,
    pub caller: Caller,
    pub rule: LocalityRule,
    pub encryption: Encryption,
    /// Those that serve the port and carry the subset's labels.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Networks (with the cluster whose gateways are preferred) that are entered through gateways.
    pub hops: BTreeSet<(NetworkId, ClusterId)>,
    /// Clusters whose path does not answer: their endpoints count, but take nothing.
    pub unreachable: BTreeSet<ClusterId>,
    /// Clusters that take no new requests.
    pub draining: BTreeSet<ClusterId>,
    /// Unhealthy endpoints leave the totals (profile `istio`).
    pub drop_unhealthy: bool,
    #[serde(skip)]
    pub origins: Vec<Origin>,
}

/// Whose endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Target {
    pub host: String,
    /// Service port.
    pub port: u16,
    pub subset: Option<String>,
}

/// What of the caller matters. Fields the locality rule does not look at are left unset, so that more callers are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Caller {
    pub client: ClientKind,
    pub network: NetworkId,
    pub cluster: ClusterId,
    pub locality: Locality,
    pub labels: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Encryption {
    /// Mutual TLS where the endpoint's proxy takes it.
    Automatic,
    /// The Envoy cluster as a whole uses mutual TLS, with this server name (if a rule writes one) where no gateway needs
    /// the endpoint's own.
    Always { sni: Option<String> },
    /// Plaintext, or TLS that is not the mesh's.
    Never,
    /// This proxy is the gateway: bytes are passed on, and only to endpoints that take mutual TLS.
    Relay,
}
