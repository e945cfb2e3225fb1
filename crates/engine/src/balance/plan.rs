//! From endpoints and their conditions to pools with exact shares.
//!
//! Order of the steps: priorities by Envoy's integer formula; what endpoints under a ramp do not take yet goes to the
//! priorities below; localities by weight and availability; endpoints by weight. With `failover_when_none` the first
//! priority that has a healthy endpoint takes all.

use super::pool::Pool;
use super::priority::{PriorityLoads, TierHealth, priority_loads};
use super::{Condition, EndpointState};
use crate::upstream::LbPolicy;

/// Everything shares depend on.
#[derive(Clone, Debug)]
pub struct ShareInput<'a> {
    pub members: &'a [Member],
    /// Localities, by [`Member::group`].
    pub groups: &'a [Group],
    pub policy: Policy,
}

/// One endpoint as balancing sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub priority: u32,
    /// Index into [`ShareInput::groups`].
    pub group: usize,
    /// At least 1.
    pub weight: u32,
    pub condition: Condition,
}

/// One locality of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `load_balancing_weight`, 0 when unset.
    pub weight: u32,
}

/// How an Envoy cluster spreads load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    pub lb: LbPolicy,
    /// Percent, above 0.
    pub overprovisioning: u32,
    /// Percent; 0 never panics.
    pub panic_threshold: f64,
    pub locality_weighted: bool,
    pub failover_when_none: bool,
    /// Priority health counts weights instead of endpoints.
    pub weighted_priority_health: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lb: LbPolicy::LeastRequest,
            overprovisioning: 140,
            panic_threshold: 0.0,
            locality_weighted: false,
            failover_when_none: false,
            weighted_priority_health: false,
        }
    }
}

/// Which endpoints of a priority a pool is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Healthy,
    Degraded,
    All,
}

/// Share of each member; they sum to 1, or to 0 when none may be chosen.
pub fn shares(input: &ShareInput<'_>) -> Vec<f64> {
    let mut shares = vec![0.0; input.members.len()];
    for pool in plan(input) {
        for (member, share) in pool.shares() {
            shares[member] += share;
        }
    }
    shares
}

/// The pools to pick from; their shares sum to 1. Empty when no endpoint may be chosen.
pub fn plan(input: &ShareInput<'_>) -> Vec<Pool> {
    plan_without(input, &[])
}

/// [`plan`] when some priorities take nothing, as if all in them were dead. Empty when the others cannot take anything.
pub(super) fn plan_without(input: &ShareInput<'_>, priorities: &[u32]) -> Vec<Pool> {
    let mut tiers = Tiers::of(input);
    if !priorities.is_empty() && !tiers.leave_out(priorities) {
        return Vec::new();
    }
    let priorities = tiers.members.len();
    let loads = tiers.loads();
    let mut healthy: Vec<f64> = loads.healthy.iter().map(|load| f64::from(*load) / 100.0).collect();
    let mut degraded: Vec<f64> = loads.degraded.iter().map(|load| f64::from(*load) / 100.0).collect();
    let mut pools = Vec::new();
    for priority in 0..priorities {
        let class = if loads.panic[priority] { Class::All } else { Class::Healthy };
        if healthy[priority] > 0.0 {
            let localities = tiers.localities(priority, class);
            let kept = localities.iter().map(|locality| locality.share * locality.ramp).sum::<f64>();
            let excess = healthy[priority] * (1.0 - kept);
            if class == Class::Healthy
                && excess > 1e-12
                && tiers.pass_down(priority, excess, &mut healthy, &mut degraded)
            {
                healthy[priority] -= excess;
            }
            tiers.add_pools(&mut pools, priority, class, healthy[priority], &localities);
        }
        if degraded[priority] > 0.0 {
            let localities = tiers.localities(priority, Class::Degraded);
            tiers.add_pools(&mut pools, priority, Class::Degraded, degraded[priority], &localities);
        }
    }
    pools
}

/// A locality's part of its priority.
struct LocalityShare {
    members: Vec<usize>,
    /// Before the ramp; all of a priority sum to 1.
    share: f64,
    /// Part of it the ramp lets through, 0.1 to 1.
    ramp: f64,
}

struct Tiers<'a> {
    input: &'a ShareInput<'a>,
    /// Indices of the members of each priority.
    members: Vec<Vec<usize>>,
    health: Vec<TierHealth>,
    /// Nothing is healthy or degraded anywhere: draining endpoints serve as healthy ones.
    draining_serves: bool,
}

impl<'a> Tiers<'a> {
    fn of(input: &'a ShareInput<'a>) -> Self {
        let priorities = input.members.iter().map(|member| member.priority as usize + 1).max().unwrap_or(0);
        let mut members = vec![Vec::new(); priorities];
        for (index, member) in input.members.iter().enumerate() {
            members[member.priority as usize].push(index);
        }
        let better =
            input.members.iter().any(|m| matches!(m.condition.state, EndpointState::Healthy | EndpointState::Degraded));
        let mut tiers = Self { input, members, health: Vec::new(), draining_serves: !better };
        tiers.health = (0..priorities).map(|priority| tiers.count(priority)).collect();
        tiers
    }

    fn count(&self, priority: usize) -> TierHealth {
        let mut health = TierHealth::default();
        for index in &self.members[priority] {
            let member = &self.input.members[*index];
            let amount = if self.input.policy.weighted_priority_health { u64::from(member.weight) } else { 1 };
            health.total += amount;
            health.healthy += if self.is_in(member, Class::Healthy) { amount } else { 0 };
            health.degraded += if self.is_in(member, Class::Degraded) { amount } else { 0 };
        }
        health
    }

    /// `false` when nobody else is available.
    fn leave_out(&mut self, priorities: &[u32]) -> bool {
        for priority in priorities {
            let tier = &mut self.health[*priority as usize];
            (tier.healthy, tier.degraded) = (0, 0);
        }
        let loads = priority_loads(&self.health, self.input.policy.overprovisioning, 0.0);
        loads.healthy.iter().chain(&loads.degraded).any(|load| *load > 0)
    }

    fn is_in(&self, member: &Member, class: Class) -> bool {
        match (class, member.condition.state) {
            (Class::All, _) | (Class::Healthy, EndpointState::Healthy) | (Class::Degraded, EndpointState::Degraded) => {
                true
            }
            (Class::Healthy, EndpointState::Draining) => self.draining_serves,
            _ => false,
        }
    }

    fn loads(&mut self) -> PriorityLoads {
        let policy = &self.input.policy;
        let mut loads = priority_loads(&self.health, policy.overprovisioning, policy.panic_threshold);
        if !policy.failover_when_none {
            return loads;
        }
        let healthy = self.health.iter().position(|tier| tier.healthy > 0);
        let degraded = self.health.iter().position(|tier| tier.degraded > 0);
        let first = match (healthy, degraded) {
            (None, None) => return loads,
            (Some(first), _) | (None, Some(first)) => first,
        };
        loads.healthy.fill(0);
        loads.degraded.fill(0);
        loads.panic.fill(false);
        let side = if healthy.is_some() { &mut loads.healthy } else { &mut loads.degraded };
        side[first] = 100;
        loads
    }

    /// Gives `excess` of a priority to those below it, as if they were all there is. `false` when there is nobody.
    fn pass_down(&self, priority: usize, excess: f64, healthy: &mut [f64], degraded: &mut [f64]) -> bool {
        let below = &self.health[priority + 1..];
        if self.input.policy.failover_when_none || below.iter().all(|tier| tier.healthy + tier.degraded == 0) {
            return false;
        }
        // Never panic here: endpoints under a ramp are better than dead ones.
        let loads = priority_loads(below, self.input.policy.overprovisioning, 0.0);
        for (offset, (h, d)) in loads.healthy.iter().zip(&loads.degraded).enumerate() {
            healthy[priority + 1 + offset] += excess * f64::from(*h) / 100.0;
            degraded[priority + 1 + offset] += excess * f64::from(*d) / 100.0;
        }
        true
    }

    /// The localities of a priority that a class of endpoints is in. Without locality weights, and in panic, all are one.
    fn localities(&self, priority: usize, class: Class) -> Vec<LocalityShare> {
        let members: Vec<usize> = self.members[priority]
            .iter()
            .copied()
            .filter(|index| self.is_in(&self.input.members[*index], class))
            .collect();
        if members.is_empty() {
            return Vec::new();
        }
        let weighted = self.input.policy.locality_weighted && class != Class::All;
        let by_locality = if weighted { self.by_locality(priority, class, &members) } else { Vec::new() };
        if !by_locality.is_empty() {
            return by_locality;
        }
        // No locality has a weight: Envoy then balances over the whole priority.
        let ramp = self.ramp(class, &members);
        vec![LocalityShare { members, share: 1.0, ramp }]
    }

    fn by_locality(&self, priority: usize, class: Class, members: &[usize]) -> Vec<LocalityShare> {
        let mut localities = Vec::new();
        let mut sum = 0.0;
        for (index, group) in self.input.groups.iter().enumerate() {
            let own: Vec<usize> = members.iter().copied().filter(|m| self.input.members[*m].group == index).collect();
            if own.is_empty() || group.weight == 0 {
                continue;
            }
            let total = self.members[priority].iter().filter(|m| self.input.members[**m].group == index).count();
            let available = f64::from(self.input.policy.overprovisioning) / 100.0 * own.len() as f64 / total as f64;
            let share = f64::from(group.weight) * available.min(1.0);
            sum += share;
            localities.push(LocalityShare { ramp: self.ramp(class, &own), members: own, share });
        }
        localities.iter_mut().for_each(|locality| locality.share /= sum);
        localities
    }

    /// Part of the members' weight that their ramps let through.
    fn ramp(&self, class: Class, members: &[usize]) -> f64 {
        if class != Class::Healthy {
            return 1.0;
        }
        let (mut ramped, mut full) = (0u64, 0u64);
        for index in members {
            let weight = u64::from(self.weight(&self.input.members[*index]));
            ramped += weight * u64::from(self.input.members[*index].condition.ramp.tenths());
            full += weight * 10;
        }
        ramped as f64 / full as f64
    }

    /// Envoy's random balancer does not look at weights.
    fn weight(&self, member: &Member) -> u32 {
        if self.input.policy.lb == LbPolicy::Random { 1 } else { member.weight.max(1) }
    }

    fn add_pools(&self, pools: &mut Vec<Pool>, priority: usize, class: Class, load: f64, localities: &[LocalityShare]) {
        let kept: f64 = localities.iter().map(|locality| locality.share * locality.ramp).sum();
        for locality in localities {
            let share = load * locality.share * locality.ramp / kept;
            let weighted = locality.members.iter().map(|index| {
                let member = &self.input.members[*index];
                let tenths = if class == Class::Healthy { member.condition.ramp.tenths() } else { 10 };
                (*index, u64::from(self.weight(member)) * u64::from(tenths))
            });
            pools.push(Pool::new(share, priority as u32, class == Class::All, weighted));
        }
    }
}
