//! What is remembered of one Envoy cluster over updates.
//!
//! Invariant: an endpoint that comes back under the same key with the same way to it has its old counters and connections;
//! any other difference gives it a new connection slot.

use super::member::{Member, MemberState};
use super::stats::ClusterStats;
use super::world::{Upstream, new_slot};
use ahash::AHashMap;
use fairlead_engine::outlier::Detector;
use fairlead_engine::upstream::{Endpoint, EndpointHealth, EndpointKey, Endpoints, EnvoyCluster};
use std::sync::Arc;
use std::time::Instant;

/// One Envoy cluster's memory.
pub struct Memory {
    pub stats: Arc<ClusterStats>,
    pub detector: Option<Detector>,
    pub upstream: Option<Arc<Upstream>>,
    members: AHashMap<EndpointKey, Remembered>,
}

struct Remembered {
    state: Arc<MemberState>,
    /// Everything a connection depends on.
    way: String,
    health: EndpointHealth,
}

/// What an update changed.
#[derive(Debug, Default)]
pub struct Changed {
    pub added: u64,
    pub removed: u64,
    pub health: u64,
    /// Slots that take no new requests on their connections.
    pub retired: Vec<u64>,
    /// Slots whose waiting attempts must move.
    pub left: Vec<u64>,
}

impl Memory {
    pub fn new() -> Self {
        Self { stats: Arc::default(), detector: None, upstream: None, members: AHashMap::new() }
    }

    /// Members for new endpoints, and what that changed.
    pub fn update(
        &mut self,
        cluster: &Arc<EnvoyCluster>,
        endpoints: &Endpoints,
        now: Instant,
    ) -> (Vec<Arc<Member>>, Changed) {
        match (&mut self.detector, &cluster.outlier) {
            (Some(detector), Some(config)) => detector.configure(config.clone()),
            (None, Some(config)) => self.detector = Some(Detector::new(config.clone(), now)),
            (_, None) => self.detector = None,
        }
        if let Some(detector) = &mut self.detector {
            detector.keep(endpoints.iter().map(|endpoint| &endpoint.key));
        }
        let mut changed = Changed::default();
        let mut before = std::mem::take(&mut self.members);
        let mut members = Vec::with_capacity(endpoints.len());
        for (index, endpoint) in endpoints.iter().enumerate() {
            let remembered = remember(before.remove(&endpoint.key), cluster, endpoint, &mut changed);
            members.push(Arc::new(Member {
                endpoint: endpoint.clone(),
                state: remembered.state.clone(),
                monitor: self.detector.as_ref().and_then(|d| d.monitor(&endpoint.key)).cloned(),
                index,
            }));
            self.members.insert(endpoint.key.clone(), remembered);
        }
        for gone in before.into_values() {
            changed.removed += 1;
            changed.left.push(gone.state.slot);
            changed.retired.push(gone.state.slot);
        }
        (members, changed)
    }

    /// The Envoy cluster is gone: so are its endpoints.
    pub fn forget(self) -> Changed {
        let slots: Vec<u64> = self.members.values().map(|m| m.state.slot).collect();
        Changed { removed: slots.len() as u64, retired: slots.clone(), left: slots, ..Changed::default() }
    }
}

impl Changed {
    pub fn merge(&mut self, other: Changed) {
        self.added += other.added;
        self.removed += other.removed;
        self.health += other.health;
        self.retired.extend(other.retired);
        self.left.extend(other.left);
    }
}

fn remember(old: Option<Remembered>, cluster: &EnvoyCluster, endpoint: &Endpoint, changed: &mut Changed) -> Remembered {
    let way = way(cluster, endpoint);
    let Some(old) = old else {
        changed.added += 1;
        return Remembered { state: MemberState::new(new_slot()), way, health: endpoint.health };
    };
    if old.health != endpoint.health {
        changed.health += 1;
        if endpoint.health == EndpointHealth::Unhealthy {
            changed.left.push(old.state.slot);
        }
    }
    if old.way == way {
        return Remembered { health: endpoint.health, ..old };
    }
    changed.retired.push(old.state.slot);
    Remembered { state: MemberState::new(new_slot()), way, health: endpoint.health }
}

fn way(cluster: &EnvoyCluster, endpoint: &Endpoint) -> String {
    format!(
        "{:?} {} {:?} {:?} {:?}",
        endpoint.address,
        endpoint.hostname,
        endpoint.identity(),
        cluster.protocol,
        cluster.transport_of(endpoint)
    )
}
