//! Choosing an endpoint of an Envoy cluster: priorities, localities, panic, weights, ramps, by Envoy's formulas.
//!
//! [`plan`] turns endpoints and their conditions into pools with exact shares; a [`Balancer`] keeps the pools of one Envoy
//! cluster and picks from them. Invariant: `pick` samples from exactly the fractions that `shares` tells.

mod balancer;
mod pick;
mod plan;
mod pool;
mod priority;

pub use balancer::Balancer;
pub use pick::{Avoid, NoEndpoint, Pick, PickContext, Tried};
pub use plan::{Group, Member, Policy, ShareInput, plan, shares};
pub use pool::Pool;
pub use priority::{PriorityLoads, TierHealth, priority_loads};

use crate::upstream::EndpointHealth;
use std::time::Duration;

/// Whether an endpoint may be chosen, all that is known taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndpointState {
    #[default]
    Healthy,
    /// Takes only what healthy endpoints of all priorities leave over (Envoy's degraded hosts).
    Degraded,
    /// Takes requests only when there is nothing healthy or degraded in any priority.
    Draining,
    /// The control plane says so.
    Unhealthy,
    /// By outlier detection.
    Ejected,
    /// Its gateway, or the way to its cluster, does not answer.
    PathDown,
}

/// How much of its weight an endpoint has that came back: tenths, 1 to 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ramp(u8);

/// State and ramp of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Condition {
    pub state: EndpointState,
    pub ramp: Ramp,
}

impl Ramp {
    pub const FULL: Self = Self(10);
    /// How long a return takes (staleness contract).
    pub const LENGTH: Duration = Duration::from_secs(10);

    /// max(0.1, t / 10 s) in steps of 1 s, `t` since the first good probe.
    pub fn since(t: Duration) -> Self {
        Self(t.as_secs().clamp(1, 10) as u8)
    }

    /// 1 to 10.
    pub fn tenths(self) -> u8 {
        self.0
    }

    pub fn is_full(self) -> bool {
        self == Self::FULL
    }
}

impl Default for Ramp {
    fn default() -> Self {
        Self::FULL
    }
}

impl EndpointState {
    /// Joins what the control plane says with what this proxy sees; the worse wins.
    pub fn of(health: EndpointHealth, ejected: bool, path_down: bool) -> Self {
        match health {
            _ if path_down => Self::PathDown,
            EndpointHealth::Unhealthy => Self::Unhealthy,
            _ if ejected => Self::Ejected,
            EndpointHealth::Draining => Self::Draining,
            EndpointHealth::Degraded => Self::Degraded,
            EndpointHealth::Healthy => Self::Healthy,
        }
    }

    /// Whether it may serve at all.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded | Self::Draining)
    }
}

impl Condition {
    pub fn new(state: EndpointState, ramp: Ramp) -> Self {
        Self { state, ramp }
    }
}
