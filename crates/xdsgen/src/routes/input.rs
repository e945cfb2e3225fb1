//! What a route configuration is made of.

use crate::names::ResourceName;
use fairlead_model::route::{DirectAnswer, Fault, HeaderOperations, HttpMatch, Redirect, RetryPolicy, Rewrite};
use fairlead_model::{ClientKind, Origin};
use serde::Serialize;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RoutesInput {
    pub name: ResourceName,
    pub client: ClientKind,
    pub hosts: Vec<HostInput>,
    pub fallback: Fallback,
}

/// What becomes of hosts that no virtual host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Fallback {
    /// Passed through to where they were going.
    AllowAny,
    /// 502.
    BlockAll,
    /// 404.
    NotFound,
    /// Some virtual host has every domain.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HostInput {
    pub name: String,
    pub domains: Vec<String>,
    /// Plaintext requests are sent to https.
    pub to_https: bool,
    pub rules: Vec<RouteEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RouteEntry {
    pub name: String,
    /// Static filters are cleared: they were settled when the entry was made.
    pub when: HttpMatch,
    pub target: RouteTarget,
    pub timeout: Option<Duration>,
    pub retries: Retries,
    pub headers: HeaderOperations,
    pub rewrite: Option<Rewrite>,
    pub fault: Option<Fault>,
    pub origin: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RouteTarget {
    /// At least one. `siblings`: the share of one that is wholly down goes to the others of its host.
    Clusters {
        to: Vec<To>,
        siblings: bool,
    },
    /// `port` is the one the request came to.
    Redirect {
        to: Redirect,
        port: u16,
    },
    Respond(DirectAnswer),
    /// A rule that was refused: 500.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct To {
    pub cluster: ResourceName,
    pub weight: u32,
    pub headers: HeaderOperations,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Retries {
    None,
    /// Profile `fairlead`'s default: whatever can be sent again without harm.
    Safe,
    Policy(RetryPolicy),
}

impl RoutesInput {
    pub fn origins(&self) -> Vec<Origin> {
        let mut origins: Vec<Origin> = Vec::new();
        for origin in self.hosts.iter().flat_map(|h| &h.rules).filter_map(|r| r.origin.as_ref()) {
            if origins.last() != Some(origin) {
                origins.push(origin.clone());
            }
        }
        origins
    }
}
