//! The balancer of one Envoy cluster.
//!
//! Invariant: built from one assignment and one set of conditions, and never changed; indices are positions in
//! [`Endpoints::iter`].

use super::plan::{Group, Member, Policy, ShareInput, plan, plan_without};
use super::{Condition, Pool};
use crate::upstream::{Endpoint, Endpoints, EnvoyCluster};
use std::sync::Arc;

/// Pools, endpoints and their conditions; see the module for how it is rebuilt.
#[derive(Debug)]
pub struct Balancer {
    pub(super) cluster: Arc<EnvoyCluster>,
    pub(super) endpoints: Box<[Arc<Endpoint>]>,
    pub(super) members: Box<[Member]>,
    groups: Box<[Group]>,
    policy: Policy,
    pub(super) pools: Vec<Pool>,
    /// Running sums of the pools' shares.
    pub(super) ends: Vec<f64>,
}

impl Balancer {
    /// Prepares picking. `condition` is asked once for each endpoint, by its index; `seed` is where round robin starts.
    pub fn build(
        cluster: &Arc<EnvoyCluster>,
        endpoints: &Endpoints,
        mut condition: impl FnMut(usize, &Arc<Endpoint>) -> Condition,
        seed: u64,
    ) -> Self {
        let mut members = Vec::with_capacity(endpoints.len());
        let mut own = Vec::with_capacity(endpoints.len());
        for (group, locality) in endpoints.localities.iter().enumerate() {
            for endpoint in &locality.endpoints {
                let condition = condition(own.len(), endpoint);
                members.push(Member { priority: locality.priority, group, weight: endpoint.weight, condition });
                own.push(endpoint.clone());
            }
        }
        let groups: Vec<Group> =
            endpoints.localities.iter().map(|group| Group { weight: group.weight.unwrap_or(0) }).collect();
        let policy = Policy {
            lb: cluster.lb_policy,
            overprovisioning: endpoints.overprovisioning.max(1),
            panic_threshold: cluster.panic_threshold,
            locality_weighted: cluster.locality_weighted,
            failover_when_none: cluster.failover_when_none,
            weighted_priority_health: endpoints.weighted_priority_health,
        };
        let pools = plan(&ShareInput { members: &members, groups: &groups, policy });
        pools.iter().for_each(|pool| pool.start_at(seed));
        let ends = pools
            .iter()
            .scan(0.0, |sum, pool| {
                *sum += pool.share();
                Some(*sum)
            })
            .collect();
        Self {
            cluster: cluster.clone(),
            endpoints: own.into(),
            members: members.into(),
            groups: groups.into(),
            policy,
            pools,
            ends,
        }
    }

    pub fn cluster(&self) -> &Arc<EnvoyCluster> {
        &self.cluster
    }

    /// All endpoints by index, also those that may not be chosen.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub fn condition(&self, index: usize) -> Option<Condition> {
        self.members.get(index).map(|member| member.condition)
    }

    /// Share of each endpoint by index, exactly what [`Balancer::pick`] samples from; all zero when none may be chosen.
    pub fn shares(&self) -> Vec<f64> {
        self.shares_of(&self.pools)
    }

    pub(super) fn shares_of(&self, pools: &[Pool]) -> Vec<f64> {
        let mut shares = vec![0.0; self.endpoints.len()];
        for (member, share) in pools.iter().flat_map(Pool::shares) {
            shares[member] += share;
        }
        shares
    }

    /// The pools if these priorities could take nothing; empty when no other can.
    pub(super) fn plan_without(&self, priorities: &[u32]) -> Vec<Pool> {
        plan_without(&ShareInput { members: &self.members, groups: &self.groups, policy: self.policy }, priorities)
    }

    /// Where the load goes, priority by priority.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// Whether any endpoint may serve. A subset where none may is "wholly down": its share of a weighted route goes to its
    /// siblings where the route says so.
    pub fn is_usable(&self) -> bool {
        self.members.iter().any(|member| member.condition.state.is_usable())
    }
}
