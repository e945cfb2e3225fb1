//! What one cluster tells another: the content of a peering stream.
//!
//! Invariant: filtered for its audience by the sender; an address is only told inside one network; the same types are
//! built in memory by the offline tools and carried by the peering stream live.

use crate::endpoint::Endpoint;
use crate::ids::{ClusterId, Locality, NetworkId};
use crate::matching::{Labels, Visibility};
use crate::mesh::{GatewayAddress, MemberState};
use crate::service::ServicePort;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A member as it describes itself (or is introduced).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberSummary {
    pub cluster: ClusterId,
    /// Grows each time the cluster joins anew.
    pub incarnation: u64,
    pub state: MemberState,
    pub trust_domain: String,
    pub networks: Vec<NetworkId>,
    pub gateways: Vec<GatewayAddress>,
    pub locality: Locality,
    pub version: String,
}

/// One exported service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceSummary {
    pub namespace: String,
    pub name: String,
    pub ports: Vec<ServicePort>,
    pub headless: bool,
    /// Which namespaces may see it, in every member (`exportTo: ["."]` is the same namespace everywhere).
    #[serde(default)]
    pub visibility: Visibility,
    pub labels: Labels,
    pub service_accounts: BTreeSet<String>,
    /// Unix seconds; decides conflicts (oldest export wins).
    pub created: i64,
    /// ready and total endpoints by locality.
    pub capacity: BTreeMap<String, (u32, u32)>,
}

/// All that `cluster` tells one audience.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterSummary {
    pub member: MemberSummary,
    /// Keyed `namespace/name`.
    pub services: BTreeMap<String, Arc<ServiceSummary>>,
    /// Keyed `namespace/name`: endpoints of that exported service.
    pub endpoints: BTreeMap<String, Vec<Arc<Endpoint>>>,
}

/// How the receiver judges a peer at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerStatus {
    pub stale: bool,
    pub unreachable: bool,
}
