//! What `given` means: which workloads, clusters and links are in which state.
//!
//! Invariant: names are settled here once; everything later asks about workloads, clusters and addresses only.

use crate::mesh::Mesh;
use fairlead_calls::given::{Answer, Given, duration};
use fairlead_model::endpoint::{Health, WorkloadRef};
use fairlead_model::mesh::GatewayAddress;
use fairlead_model::summary::{ClusterSummary, PeerStatus};
use fairlead_model::{ClusterId, MemberState, Profile};
use fairlead_resolve::ClusterState;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// The state of a mesh beside its objects.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    pub down_clusters: BTreeSet<ClusterId>,
    pub down_control: BTreeSet<ClusterId>,
    /// Programs that do not answer (`cluster/namespace/name`), gateways included.
    pub down: BTreeSet<String>,
    /// Single gateway addresses.
    pub down_addresses: BTreeSet<IpAddr>,
    pub unhealthy: BTreeSet<String>,
    pub drained: BTreeSet<String>,
    pub drained_clusters: BTreeSet<ClusterId>,
    pub stale: BTreeSet<ClusterId>,
    pub revoked: BTreeSet<ClusterId>,
    /// Unordered pairs without a path.
    pub cut: BTreeSet<(ClusterId, ClusterId)>,
    pub returned: BTreeMap<ClusterId, Duration>,
    pub answers: BTreeMap<String, Answer>,
}

impl Conditions {
    pub fn resolve(given: &Given, mesh: &Mesh) -> Result<Self, String> {
        let mut all = Self::default();
        for name in &given.down {
            all.take_down(name, mesh)?;
        }
        for name in &given.unhealthy {
            all.unhealthy.extend(mesh.names().resolve(name)?);
        }
        for name in &given.drained {
            match cluster(name, mesh) {
                Some(cluster) => drop(all.drained_clusters.insert(cluster)),
                None => all.drained.extend(mesh.names().resolve(name)?),
            }
        }
        for name in &given.stale {
            all.stale.insert(known_cluster(name.strip_suffix("/control").unwrap_or(name), mesh)?);
        }
        for name in &given.revoked {
            all.revoked.insert(known_cluster(name, mesh)?);
        }
        for [a, b] in given.cut.iter().chain(&given.blackholed) {
            all.cut.insert(pair(known_cluster(a, mesh)?, known_cluster(b, mesh)?));
        }
        for (name, since) in &given.returned {
            all.returned.insert(known_cluster(name, mesh)?, duration(since)?);
        }
        for (name, answer) in &given.answers {
            for workload in mesh.names().resolve(name)? {
                all.answers.insert(workload, answer.clone());
            }
        }
        // Not decided yet, but a name that means nothing is an error all the same.
        for name in given.listens.keys().chain(&given.server_first) {
            mesh.names().resolve(name)?;
        }
        Ok(all)
    }

    fn take_down(&mut self, name: &str, mesh: &Mesh) -> Result<(), String> {
        if let Some(cluster) = cluster(name, mesh) {
            self.down_clusters.insert(cluster);
            return Ok(());
        }
        if let Some(control) = name.strip_suffix("/control") {
            self.down_control.insert(known_cluster(control, mesh)?);
            return Ok(());
        }
        let (workloads, address) = mesh.names().gateway(name)?;
        if let Some(address) = address {
            self.down_addresses.insert(address);
            return Ok(());
        }
        self.down.extend(workloads);
        Ok(())
    }

    /// What readiness reports would say of a cluster's workloads.
    pub fn health(&self, cluster: &ClusterId, profile: Profile) -> BTreeMap<WorkloadRef, Health> {
        let mut health = BTreeMap::new();
        let mut set = |names: &BTreeSet<String>, value: Health| {
            for name in names {
                if let Some(workload) = workload_ref(name).filter(|w| w.cluster == *cluster) {
                    health.insert(workload, value);
                }
            }
        };
        set(&self.drained, Health::Draining);
        set(&self.unhealthy, Health::Unhealthy);
        // Profile fairlead: the callee's proxy probes its program. Profile istio: nobody does.
        if profile == Profile::Fairlead {
            set(&self.down, Health::Unhealthy);
        }
        health
    }

    pub fn state(&self, cluster: &ClusterId) -> MemberState {
        if self.drained_clusters.contains(cluster) { MemberState::Draining } else { MemberState::Active }
    }

    /// Whether packets from a place in one cluster reach the other.
    pub fn linked(&self, a: &ClusterId, b: &ClusterId) -> bool {
        a == b || !self.cut.contains(&pair(a.clone(), b.clone()))
    }

    /// Whether a workload (or gateway) can be connected to at all.
    pub fn is_down(&self, workload: &WorkloadRef) -> bool {
        self.down_clusters.contains(&workload.cluster) || self.down.contains(&workload.to_string())
    }

    /// What the other clusters tell `viewer`, and how it judges them.
    pub fn peers(
        &self,
        viewer: &ClusterId,
        states: &BTreeMap<ClusterId, ClusterState>,
    ) -> BTreeMap<ClusterId, (ClusterSummary, PeerStatus)> {
        let mut peers = BTreeMap::new();
        let Some(own) = states.get(viewer) else { return peers };
        for (cluster, state) in states {
            if cluster == viewer || self.revoked.contains(cluster) {
                continue;
            }
            let summary = fairlead_resolve::export(state, viewer);
            let judges = own.settings.profile == Profile::Fairlead;
            let status = if judges {
                self.judge(viewer, cluster, own, state)
            } else {
                PeerStatus { stale: self.silent(viewer, cluster), unreachable: false }
            };
            peers.insert(cluster.clone(), (summary, status));
        }
        peers
    }

    fn silent(&self, viewer: &ClusterId, peer: &ClusterId) -> bool {
        self.stale.contains(peer)
            || self.stale.contains(viewer)
            || self.down_clusters.contains(peer)
            || self.down_control.contains(peer)
            || !self.linked(viewer, peer)
    }

    fn judge(&self, viewer: &ClusterId, peer: &ClusterId, own: &ClusterState, state: &ClusterState) -> PeerStatus {
        let flat = own.member.networks.iter().any(|n| state.member.networks.iter().any(|m| n.reaches(m)));
        // A cluster keeps its share while one of its gateways lives. What is behind dead ones still counts in totals.
        let gateways = &state.member.gateways;
        let gateways_dead = !flat && !gateways.is_empty() && gateways.iter().all(|g| self.is_dead_gateway(g));
        PeerStatus {
            stale: self.silent(viewer, peer),
            unreachable: self.down_clusters.contains(peer)
                || self.revoked.contains(viewer)
                || !self.linked(viewer, peer)
                || gateways_dead,
        }
    }

    fn is_dead_gateway(&self, gateway: &GatewayAddress) -> bool {
        self.is_down(&gateway.workload) || self.down_addresses.contains(&gateway.address.ip())
    }
}

/// Reads `cluster/namespace/name`.
pub fn workload_ref(name: &str) -> Option<WorkloadRef> {
    let mut parts = name.split('/');
    Some(WorkloadRef { cluster: parts.next()?.into(), namespace: parts.next()?.into(), name: parts.next()?.into() })
}

fn pair(a: ClusterId, b: ClusterId) -> (ClusterId, ClusterId) {
    if a <= b { (a, b) } else { (b, a) }
}

fn cluster(name: &str, mesh: &Mesh) -> Option<ClusterId> {
    mesh.clusters.keys().find(|c| c.as_str() == name).cloned()
}

fn known_cluster(name: &str, mesh: &Mesh) -> Result<ClusterId, String> {
    cluster(name, mesh).ok_or_else(|| format!("`{name}` is no cluster of this mesh"))
}
