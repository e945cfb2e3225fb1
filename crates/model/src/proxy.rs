//! One proxy as the control plane knows it.
//!
//! Invariant: derived from the proxy's certificate and the workload it names, never from what the proxy claims, but for
//! `client`, which only selects an encoding.

use crate::endpoint::WorkloadRef;
use crate::ids::{Locality, NetworkId};
use crate::matching::Labels;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProxyDescription {
    pub workload: WorkloadRef,
    pub role: ProxyRole,
    pub client: ClientKind,
    pub network: NetworkId,
    pub locality: Locality,
    pub addresses: Vec<IpAddr>,
    pub labels: Labels,
    pub service_account: String,
    pub identity: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyRole {
    Sidecar,
    /// A gateway selected by Gateway objects.
    Gateway,
    EastWest,
}

/// What can be said to a client is a capability table, not a generator each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientKind {
    Fairlead,
    Envoy,
    Grpc,
}
