//! Envoy RBAC: rules of HTTP and network filters, decoded once.
//!
//! Invariant: a rule that cannot be decoded refuses its filter, and so its listener; nothing here turns a broken rule into
//! one that matches everything or nothing.

mod decode;
mod evaluate;

use crate::matching::{Cidr, HeaderMatch, PathTemplate, StringMatch};
use std::ops::Range;
use std::sync::Arc;

/// `envoy.extensions.filters.{http,network}.rbac.v3.RBAC`.
#[derive(Clone, Debug)]
pub struct RbacFilter {
    /// `None` enforces nothing.
    pub rules: Option<RuleSet>,
    /// Evaluated and reported, never enforced (Istio's dry-run).
    pub shadow: Option<RuleSet>,
}

/// `envoy.config.rbac.v3.RBAC`.
#[derive(Clone, Debug)]
pub struct RuleSet {
    pub action: RbacAction,
    /// Sorted by name, the order in which Envoy tries them.
    pub policies: Vec<Policy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RbacAction {
    /// Allowed when a policy matches, denied when none does.
    Allow,
    /// Denied when a policy matches.
    Deny,
    /// Never denies.
    Log,
}

/// Matches when any permission and any principal do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `ns[NAMESPACE]-policy[NAME]-rule[INDEX]` for AuthorizationPolicies.
    pub name: Arc<str>,
    pub permissions: Vec<Permission>,
    pub principals: Vec<Principal>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Permission {
    And(Vec<Permission>),
    Or(Vec<Permission>),
    Not(Box<Permission>),
    Any(bool),
    Header(HeaderMatch),
    /// Path without query.
    UrlPath(StringMatch),
    UriTemplate(PathTemplate),
    DestinationIp(Cidr),
    DestinationPort(u16),
    /// Half-open.
    DestinationPortRange(Range<i32>),
    RequestedServerName(StringMatch),
    /// A condition on metadata no filter of this proxy writes (JWT claims): this is its answer when all is missing.
    MissingMetadata(bool),
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Principal {
    And(Vec<Principal>),
    Or(Vec<Principal>),
    Not(Box<Principal>),
    Any(bool),
    /// Came over TLS; with a pattern, the client's SPIFFE ID matches it.
    Authenticated(Option<StringMatch>),
    /// The socket's other end.
    DirectRemoteIp(Cidr),
    /// The client behind trusted proxies.
    RemoteIp(Cidr),
    Header(HeaderMatch),
    UrlPath(StringMatch),
    /// As [`Permission::MissingMetadata`].
    MissingMetadata(bool),
}

impl RbacFilter {
    /// Whether the filter can deny anything.
    pub fn is_enforcing(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.action != RbacAction::Log)
    }
}
