//! The immutable result of resolving: the mesh as one cluster's control plane sees it.
//!
//! Invariant: a function of the inputs alone (same objects and peer summaries, in any order: equal mesh). Nothing in it
//! is mutated; a change makes a new one that shares what did not change.

use crate::endpoint::WorkloadRef;
use crate::gateway::GatewayConfig;
use crate::ids::{ClusterId, Locality, NetworkId};
use crate::labels::WorkloadLabels;
use crate::route::RouteSet;
use crate::security::WorkloadSecurity;
use crate::service::{Service, ServiceKey};
use crate::settings::MeshSettings;
use crate::shared::{Shared, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Workloads by name.
pub type Workloads = BTreeMap<WorkloadRef, Arc<Workload>>;

#[derive(Clone, Debug, Serialize)]
pub struct ResolvedMesh {
    /// Counts resolutions of this control plane; not part of equality of content.
    pub generation: u64,
    /// The viewer: whose control plane this is.
    pub cluster: ClusterId,
    pub settings: Arc<MeshSettings>,
    pub members: BTreeMap<ClusterId, Arc<Member>>,
    pub services: BTreeMap<ServiceKey, Arc<Service>>,
    /// The viewer's own workloads (those its proxies run beside), gateways included. One map with the cluster's where no policy is added.
    pub workloads: Arc<Workloads>,
    pub routes: Vec<Arc<RouteSet>>,
    pub gateways: Vec<Arc<GatewayConfig>>,
}

/// Health of the path and control stream are told apart (staleness contract).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    pub cluster: ClusterId,
    pub state: MemberState,
    pub trust_domain: String,
    pub networks: Vec<NetworkId>,
    pub gateways: Vec<GatewayAddress>,
    pub locality: Locality,
    /// Its control stream is older than the lease.
    pub stale: bool,
    /// The path to it does not answer: its endpoints are out of rotation.
    pub unreachable: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberState {
    #[default]
    Active,
    Draining,
    Revoked,
}

/// One address of an east-west gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayAddress {
    pub network: NetworkId,
    pub address: SocketAddr,
    /// The gateway workload that answers there.
    pub workload: WorkloadRef,
}

/// A workload of the viewer's cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    pub key: WorkloadRef,
    pub network: NetworkId,
    pub locality: Shared<Locality>,
    pub addresses: Vec<IpAddr>,
    pub labels: WorkloadLabels,
    pub service_account: Text,
    pub identity: Option<Text>,
    /// Whether a proxy of ours stands in front of it.
    pub sidecar: bool,
    pub gateway: Option<GatewayKind>,
    /// Ports it is known to listen on: workload port to the services that target it (service, service port).
    pub ports: Shared<BTreeMap<u16, Vec<(ServiceKey, u16)>>>,
    pub security: Shared<WorkloadSecurity>,
    pub origin: Option<crate::origin::Origin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GatewayKind {
    /// Selected by a Gateway with ordinary servers.
    Ingress,
    /// The cluster's built-in east-west gateway, or one selected by an AUTO_PASSTHROUGH server.
    EastWest,
}

impl ResolvedMesh {
    /// All services with this host that `namespace` may see: its own namespace's first, then others by name.
    pub fn services_of_host<'a>(&'a self, host: &'a str, namespace: &'a str) -> Vec<&'a Arc<Service>> {
        let mut found: Vec<_> =
            self.services.values().filter(|s| s.key.host == host && s.visibility.allows(namespace)).collect();
        found.sort_by_key(|s| s.key.namespace != namespace);
        found
    }

    /// Addresses of gateways into `network`, preferring those of `cluster` (Istio split horizon: same network and
    /// cluster first, else the whole network).
    pub fn gateways_into(&self, network: &NetworkId, cluster: &ClusterId) -> Vec<GatewayAddress> {
        let of = |c: &Member| c.gateways.iter().filter(|g| &g.network == network).cloned().collect::<Vec<_>>();
        let own = self.members.get(cluster).map(|m| of(m)).unwrap_or_default();
        if own.is_empty() { self.members.values().flat_map(|m| of(m)).collect() } else { own }
    }
}
