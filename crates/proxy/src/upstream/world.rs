//! What a request pins: one snapshot, and its Envoy clusters with members and balancers.
//!
//! Invariant: members are in the order of the balancer's indices; a world is never changed but for its balancers, which are
//! replaced whole when conditions change.

use super::member::{Member, MemberState};
use super::stats::ClusterStats;
use crate::worker::Connection;
use ahash::AHashMap;
use arc_swap::ArcSwap;
use fairlead_engine::Snapshot;
use fairlead_engine::balance::{Avoid, Balancer, NoEndpoint, PickContext, Tried};
use fairlead_engine::decide::Allowed;
use fairlead_engine::upstream::{ClusterKind, Endpoint, EndpointAddress, Endpoints, EnvoyCluster};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One generation of everything a request needs.
#[derive(Debug, Default)]
pub struct World {
    pub snapshot: Arc<Snapshot>,
    pub upstreams: AHashMap<Arc<str>, Arc<Upstream>>,
}

/// One Envoy cluster.
#[derive(Debug)]
pub struct Upstream {
    pub cluster: Arc<EnvoyCluster>,
    pub endpoints: Arc<Endpoints>,
    pub members: Vec<Arc<Member>>,
    pub stats: Arc<ClusterStats>,
    pub(super) balancer: ArcSwap<Balancer>,
    /// Members of an ORIGINAL_DST cluster, made as connections ask for them.
    original: Mutex<AHashMap<SocketAddr, Arc<Member>>>,
}

/// Destinations remembered by an ORIGINAL_DST cluster.
const MAX_ORIGINAL: usize = 1024;

static NEXT_SLOT: AtomicU64 = AtomicU64::new(1);

/// A number no other endpoint of this process has.
pub fn new_slot() -> u64 {
    NEXT_SLOT.fetch_add(1, Ordering::Relaxed)
}

impl World {
    pub fn upstream(&self, cluster: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(cluster)
    }

    /// Whether an Envoy cluster has an endpoint that may be chosen.
    pub fn is_usable(&self, cluster: &str) -> bool {
        self.upstream(cluster).is_some_and(|upstream| upstream.is_usable())
    }
}

impl Upstream {
    pub fn new(
        cluster: Arc<EnvoyCluster>,
        endpoints: Arc<Endpoints>,
        members: Vec<Arc<Member>>,
        stats: Arc<ClusterStats>,
        balancer: Balancer,
    ) -> Self {
        Self {
            cluster,
            endpoints,
            members,
            stats,
            balancer: ArcSwap::from_pointee(balancer),
            original: Mutex::default(),
        }
    }

    pub fn balancer(&self) -> Arc<Balancer> {
        self.balancer.load_full()
    }

    pub fn is_usable(&self) -> bool {
        matches!(self.cluster.kind, ClusterKind::OriginalDst) || self.balancer.load().is_usable()
    }

    /// Going where the connection was going would lead back here: nobody redirected it, it was made to this very listener.
    pub fn is_itself(&self, connection: &Connection) -> bool {
        matches!(self.cluster.kind, ClusterKind::OriginalDst) && connection.original == connection.local
    }

    /// Chooses the endpoint of one try. `original` is where the connection was going.
    ///
    /// # Errors
    /// No endpoint may be chosen.
    pub fn pick(
        &self,
        allowed: &Allowed,
        tried: &Tried,
        avoid: Avoid,
        original: SocketAddr,
    ) -> Result<Arc<Member>, NoEndpoint> {
        if let ClusterKind::OriginalDst = self.cluster.kind {
            return Ok(self.original(original));
        }
        let balancer = self.balancer.load();
        let mut context = PickContext {
            random: &mut || fastrand::u64(..),
            in_flight: &|index| self.members.get(index).map_or(0, |m| m.state.rq_active.load(Ordering::Relaxed)),
            tried,
            avoid,
        };
        let pick = balancer.pick(allowed, &mut context).inspect_err(|_| {
            self.stats.none_healthy.fetch_add(1, Ordering::Relaxed);
        })?;
        self.members.get(pick.index).cloned().ok_or(NoEndpoint::Empty)
    }

    /// An address of a gateway, at random among those that may be used.
    pub fn any_address(&self) -> Option<SocketAddr> {
        let balancer = self.balancer.load();
        let usable = |m: &&Arc<Member>| balancer.condition(m.index).is_some_and(|c| c.state.is_usable());
        let count = self.members.iter().filter(usable).count();
        let chosen = self.members.iter().filter(usable).nth(fastrand::usize(..count.max(1)))?;
        match chosen.endpoint.address {
            EndpointAddress::Socket(address) => Some(address),
            EndpointAddress::Named { .. } | EndpointAddress::Gateway { .. } => None,
        }
    }

    fn original(&self, address: SocketAddr) -> Arc<Member> {
        let mut known = self.original.lock();
        if let Some(member) = known.get(&address) {
            return member.clone();
        }
        if known.len() >= MAX_ORIGINAL {
            known.clear();
        }
        let member = Arc::new(Member {
            endpoint: Arc::new(Endpoint::original(address)),
            state: MemberState::new(new_slot()),
            monitor: None,
            index: 0,
        });
        known.insert(address, member.clone());
        member
    }
}
