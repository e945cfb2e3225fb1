//! One workload serving one service.
//!
//! Invariant: an endpoint carries its own cluster, locality, labels, identity and health also when it is reached through
//! a gateway; nothing of the gateway leaks into it.

use crate::ids::{ClusterId, Locality, NetworkId};
use crate::labels::WorkloadLabels;
use crate::shared::{Shared, Text};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Opaque and stable: names one (workload, service) in `outbound_.PORT_.ep-<id>_.HOST`. Lower-case hex, at most 16
/// characters; a function of cluster, namespace, workload and host only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub Arc<str>);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `cluster/namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadRef {
    pub cluster: ClusterId,
    pub namespace: Text,
    pub name: Text,
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.namespace, self.name)
    }
}

/// Envoy's health statuses, as far as a source can tell them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    #[default]
    Healthy,
    Unhealthy,
    /// Takes no new requests unless nothing else can serve.
    Draining,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    /// The workload; for a static ServiceEntry endpoint that is no workload, `name` is its address.
    pub workload: WorkloadRef,
    pub network: NetworkId,
    pub locality: Shared<Locality>,
    /// Its address inside its network. A peer does not tell addresses of networks the receiver is not in.
    pub address: Option<IpAddr>,
    /// Its addresses of other families, if the service has those, too: names of headless services mean them. It is one endpoint all the same.
    #[serde(default)]
    pub additional_addresses: Vec<IpAddr>,
    /// A DNS name that stands for its address; only where `address` is `None`.
    #[serde(default)]
    pub hostname: Option<Text>,
    /// Service port number to the port the workload listens on. A port it does not have is absent.
    pub ports: Shared<BTreeMap<u16, u16>>,
    /// Workload labels, with `topology.istio.io/cluster`, `…/network`, `topology.kubernetes.io/region|zone` injected.
    pub labels: WorkloadLabels,
    /// SPIFFE ID of the workload, if it has an identity.
    pub identity: Option<Text>,
    /// Service ports on which its proxy accepts mutual TLS (it has one, and PeerAuthentication there is not DISABLE).
    pub mutual_tls: Shared<BTreeSet<u16>>,
    /// Relative to other endpoints; at least 1.
    pub weight: u32,
    pub health: Health,
}

impl Endpoint {
    /// All addresses, the one that proxies dial first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.address.into_iter().chain(self.additional_addresses.iter().copied())
    }
}
