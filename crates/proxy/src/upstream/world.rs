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

    /// Whether all that may be chosen of an Envoy cluster was tried.
    pub fn is_used_up(&self, cluster: &str, tried: &Tried) -> bool {
        !tried.is_empty() && self.upstream(cluster).is_some_and(|upstream| upstream.balancer.load().is_used_up(tried))
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

    /// An address of a gateway that may be used: at random among those that `worse` ranks lowest.
    pub fn any_address(&self, worse: impl Fn(SocketAddr) -> u8) -> Option<SocketAddr> {
        let balancer = self.balancer.load();
        let usable = self.members.iter().filter_map(|member| match member.endpoint.address {
            EndpointAddress::Socket(address) => {
                balancer.condition(member.index).is_some_and(|c| c.state.is_usable()).then_some(address)
            }
            EndpointAddress::Named { .. } | EndpointAddress::Gateway { .. } => None,
        });
        one_of_the_best(usable, worse, |n| fastrand::usize(..n))
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

/// One of the items that `worse` ranks lowest, each with the same chance, in one pass. `below(n)` is a random number below `n`.
fn one_of_the_best<T: Copy>(
    items: impl Iterator<Item = T>,
    worse: impl Fn(T) -> u8,
    below: impl Fn(usize) -> usize,
) -> Option<T> {
    let mut best: Option<(u8, T)> = None;
    let mut equals = 0;
    for item in items {
        let rank = worse(item);
        match best {
            Some((lowest, _)) if rank > lowest => continue,
            Some((lowest, _)) if rank == lowest => equals += 1,
            _ => equals = 1,
        }
        if below(equals) == 0 {
            best = Some((rank, item));
        }
    }
    best.map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use super::one_of_the_best;

    #[test]
    fn the_best_share_equally_and_the_worse_serve_when_there_is_no_other() {
        let rank = |worst: u8| move |item: u8| u8::from(item == worst);
        let mut random = fastrand::Rng::with_seed(7);
        let mut seen = [0u32; 4];
        for _ in 0..6000 {
            let seed = random.u64(..);
            let rng = std::cell::RefCell::new(fastrand::Rng::with_seed(seed));
            let chosen = one_of_the_best(0u8..4, rank(2), |n| rng.borrow_mut().usize(..n)).unwrap();
            seen[usize::from(chosen)] += 1;
        }
        assert_eq!(seen[2], 0, "{seen:?}");
        assert!([0, 1, 3].iter().all(|i| (1850..2150).contains(&seen[*i])), "{seen:?}");
        assert_eq!(one_of_the_best([2u8].into_iter(), rank(2), |_| 0), Some(2));
        assert_eq!(one_of_the_best(std::iter::empty::<u8>(), rank(2), |_| 0), None);
    }
}
