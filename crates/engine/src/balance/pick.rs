//! Picking an endpoint for one try.
//!
//! A first try samples the pools. A later one avoids what was tried: as Envoy's `previous_hosts` does it (choose again,
//! a few times) and `previous_priorities` (the load goes to priorities not tried yet), or Fairlead's way: never the same
//! endpoint while another is usable, and away from a path that failed.

use super::{Balancer, EndpointState, Pool};
use crate::decide::Allowed;
use crate::route::RoutePlan;
use crate::upstream::{Endpoint, EndpointKey, LbPolicy};
use smallvec::SmallVec;
use std::sync::Arc;

/// What a pick may use.
pub struct PickContext<'a> {
    /// Uniform over all of `u64`.
    pub random: &'a mut dyn FnMut() -> u64,
    /// Requests in flight at the endpoint of this index.
    pub in_flight: &'a dyn Fn(usize) -> u32,
    /// Endpoints tried before for the same request.
    pub tried: &'a Tried,
    pub avoid: Avoid,
}

/// How a retry avoids what was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Avoid {
    /// It does not.
    #[default]
    Nothing,
    /// Envoy: choose again while the choice was tried before, at most `hosts` times; then take it. After every `priorities`
    /// tries (0: never) the load goes to the priorities that were not tried; when all were, it begins anew.
    Previous { hosts: u32, priorities: u32 },
    /// Fairlead: another endpoint if any is usable; rather one of another cluster and gateway once a path is in doubt or
    /// two endpoints have failed, also from lower priorities.
    Elsewhere,
}

/// Endpoints tried for one request.
#[derive(Clone, Debug, Default)]
pub struct Tried(SmallVec<[TriedEndpoint; 4]>);

#[derive(Clone, Debug)]
struct TriedEndpoint {
    key: EndpointKey,
    cluster: Option<Arc<str>>,
    hop: Option<Arc<str>>,
    path_in_doubt: bool,
}

/// The endpoint for this try: `balancer.endpoints()[index]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    pub index: usize,
    pub priority: u32,
    /// Chosen although unhealthy, because too few are healthy.
    pub panic: bool,
}

/// Tried before, class of health, on a path that failed, priority.
type Rank = (bool, u8, bool, u32);

/// Nobody may be chosen: response flag `UH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// The Envoy cluster has no endpoints.
    Empty,
    /// It has, but none that may be chosen.
    NoneUsable,
}

impl Avoid {
    /// How retries of a route avoid what was tried.
    pub fn of(plan: &RoutePlan) -> Self {
        match &plan.retry {
            _ if plan.default_retry => Self::Elsewhere,
            Some(retry) => Self::Previous {
                hosts: if retry.avoid_previous_hosts { retry.host_selection_attempts } else { 0 },
                priorities: retry.avoid_previous_priorities,
            },
            None => Self::Nothing,
        }
    }
}

impl Tried {
    /// Notes a try. `path_in_doubt`: it failed in a way that says more about the way there than about the endpoint
    /// (connect failure, unanswered ping, dead path).
    pub fn note(&mut self, endpoint: &Endpoint, path_in_doubt: bool) {
        self.0.push(TriedEndpoint {
            key: endpoint.key.clone(),
            cluster: endpoint.cluster().cloned(),
            hop: endpoint.gateway_hop().cloned(),
            path_in_doubt,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn contains(&self, key: &EndpointKey) -> bool {
        self.0.iter().any(|tried| tried.key == *key)
    }

    /// Whether going to `endpoint` means going where a try has failed in a telling way.
    fn same_way(&self, endpoint: &Endpoint) -> bool {
        let several = self.0.len() > 1;
        self.0.iter().filter(|tried| several || tried.path_in_doubt).any(|tried| {
            // Endpoints on the same network share nothing but their cluster's fate; those behind a gateway, the gateway.
            match (&tried.hop, endpoint.gateway_hop()) {
                (Some(a), Some(b)) if a == b => true,
                (Some(_), None) | (None, Some(_)) => false,
                _ => tried.cluster.is_some() && tried.cluster.as_ref() == endpoint.cluster(),
            }
        })
    }
}

impl Balancer {
    /// Whether there is something to choose, and all of it was tried: another try here would be at one that failed.
    pub fn is_used_up(&self, tried: &Tried) -> bool {
        if tried.is_empty() {
            return false;
        }
        let shares = self.shares();
        let mut chosen = self.endpoints().iter().zip(shares).filter(|(_, share)| *share > 0.0).peekable();
        chosen.peek().is_some() && chosen.all(|(endpoint, _)| tried.contains(&endpoint.key))
    }

    /// Picks an endpoint for a request that was allowed.
    ///
    /// # Errors
    /// When no endpoint may be chosen.
    pub fn pick(&self, _: &Allowed, context: &mut PickContext<'_>) -> Result<Pick, NoEndpoint> {
        let again = !context.tried.is_empty();
        match context.avoid {
            Avoid::Elsewhere if again => match self.elsewhere(context) {
                Some(pick) => Ok(pick),
                None => self.sample(context),
            },
            Avoid::Previous { hosts, priorities } if again => {
                let other = self.other_priorities(context.tried, priorities, (context.random)());
                let pools = other.as_deref().unwrap_or(&self.pools);
                let mut pick = self.sample_from(pools, context)?;
                for _ in 0..hosts {
                    if !context.tried.contains(&self.endpoints[pick.index].key) {
                        break;
                    }
                    pick = self.sample_from(pools, context)?;
                }
                Ok(pick)
            }
            _ => self.sample(context),
        }
    }

    /// The pools when priorities that were tried get nothing; `None` while the load is as ever. Envoy's
    /// `PreviousPrioritiesRetryPriority`: looked at after every `frequency` tries, forgotten when nothing else is left.
    fn other_priorities(&self, tried: &Tried, frequency: u32, seed: u64) -> Option<Vec<Pool>> {
        if frequency == 0 {
            return None;
        }
        let (mut attempted, mut since, mut pools) = (Vec::new(), 0, None);
        for tried in &tried.0 {
            since += 1;
            attempted.extend(self.endpoints.iter().find(|known| known.key == tried.key).map(|known| known.priority));
            if since % frequency != 0 {
                continue;
            }
            let planned = self.plan_without(&attempted);
            if planned.is_empty() {
                (attempted, since, pools) = (Vec::new(), 0, None);
            } else {
                pools = Some(planned);
            }
        }
        pools.iter().flatten().for_each(|pool| pool.start_at(seed));
        pools
    }

    /// Share of each endpoint by index in a try after those `tried`, as [`Balancer::pick`] has it. Of previous hosts as if the
    /// choice were repeated until it is fresh while anything fresh has a share.
    pub fn shares_again(&self, tried: &Tried, avoid: Avoid) -> Vec<f64> {
        let other = match avoid {
            Avoid::Previous { priorities, .. } => self.other_priorities(tried, priorities, 0),
            _ => None,
        };
        let shares = self.shares_of(other.as_deref().unwrap_or(&self.pools));
        if tried.is_empty() {
            return shares;
        }
        let weights: Vec<f64> = match avoid {
            Avoid::Elsewhere => {
                let ranks: Vec<_> = (0..self.endpoints.len()).map(|index| self.rank(index, tried)).collect();
                let best = ranks.iter().flatten().min();
                let of = |(index, rank): (usize, &Option<Rank>)| {
                    if rank.is_some() && rank.as_ref() == best { self.weight_of(index) as f64 } else { 0.0 }
                };
                ranks.iter().enumerate().map(of).collect()
            }
            Avoid::Nothing | Avoid::Previous { hosts: 0, .. } => return shares,
            Avoid::Previous { .. } => {
                let fresh = |(endpoint, share): (&Arc<Endpoint>, &f64)| {
                    if tried.contains(&endpoint.key) { 0.0 } else { *share }
                };
                self.endpoints.iter().zip(&shares).map(fresh).collect()
            }
        };
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 { weights.into_iter().map(|weight| weight / sum).collect() } else { shares }
    }

    fn sample(&self, context: &mut PickContext<'_>) -> Result<Pick, NoEndpoint> {
        let pool = match self.pools.as_slice() {
            [] if self.endpoints.is_empty() => return Err(NoEndpoint::Empty),
            [] => return Err(NoEndpoint::NoneUsable),
            [only] => only,
            pools => {
                let point = point(context, self.ends.last().copied().unwrap_or(1.0));
                &pools[self.ends.partition_point(|end| *end <= point).min(pools.len() - 1)]
            }
        };
        Ok(self.sample_pool(pool, context))
    }

    /// As [`Balancer::sample`], of pools made for one try.
    fn sample_from(&self, pools: &[Pool], context: &mut PickContext<'_>) -> Result<Pick, NoEndpoint> {
        let Some(last) = pools.last() else { return self.sample(context) };
        let mut point = point(context, pools.iter().map(Pool::share).sum());
        let pool = pools.iter().find(|pool| {
            point -= pool.share();
            point < 0.0
        });
        Ok(self.sample_pool(pool.unwrap_or(last), context))
    }

    fn sample_pool(&self, pool: &Pool, context: &mut PickContext<'_>) -> Pick {
        let index = match self.cluster.lb_policy {
            LbPolicy::RoundRobin => pool.next(),
            LbPolicy::Random => pool.sample((context.random)()),
            LbPolicy::LeastRequest => {
                let random = [(context.random)(), (context.random)()];
                pool.sample_two(random, context.in_flight)
            }
        };
        Pick { index, priority: pool.priority(), panic: pool.is_panic() }
    }

    /// The best usable endpoint that is not where the request has been; `None` when no endpoint is usable.
    fn elsewhere(&self, context: &mut PickContext<'_>) -> Option<Pick> {
        let mut best: Option<(usize, Rank)> = None;
        let mut weight_of_best = 0u64;
        for index in 0..self.endpoints.len() {
            let Some(rank) = self.rank(index, context.tried) else { continue };
            match best {
                Some((_, current)) if rank > current => continue,
                Some((_, current)) if rank == current => {}
                _ => weight_of_best = 0,
            }
            // Among equals one at random, by weight, in one pass.
            let weight = self.weight_of(index);
            weight_of_best += weight;
            if best.is_none_or(|(_, current)| rank < current) || (context.random)() % weight_of_best < weight {
                best = Some((index, rank));
            }
        }
        best.map(|(index, _)| Pick { index, priority: self.endpoints[index].priority, panic: false })
    }

    /// How far an endpoint is from being where a later try should go: the least is best; `None` when it is not usable.
    fn rank(&self, index: usize, tried: &Tried) -> Option<Rank> {
        let endpoint = self.endpoints.get(index)?;
        let class = match self.condition(index)?.state {
            EndpointState::Healthy => 0,
            EndpointState::Degraded => 1,
            EndpointState::Draining => 2,
            _ => return None,
        };
        Some((tried.contains(&endpoint.key), class, tried.same_way(endpoint), endpoint.priority))
    }

    fn weight_of(&self, index: usize) -> u64 {
        u64::from(self.endpoints[index].weight) * u64::from(self.members[index].condition.ramp.tenths())
    }
}

/// Uniform below `sum`, which is that of all shares (1, but for rounding): 53 bits make a float.
fn point(context: &mut PickContext<'_>, sum: f64) -> f64 {
    ((context.random)() >> 11) as f64 / (1u64 << 53) as f64 * sum
}
