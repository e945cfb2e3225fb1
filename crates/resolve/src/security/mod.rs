//! What a workload's own proxy demands of callers: PeerAuthentication and AuthorizationPolicy.
//!
//! Never opens on bad input. Precedence: mutual TLS by workload (selector, not in the root namespace), then namespace,
//! then mesh (root namespace without selector), the oldest at each level, UNSET falls through, nothing written is
//! PERMISSIVE. Authorization policies of the root namespace and of the workload's namespace all apply, DENY before ALLOW.

mod audience;
mod authorization;
mod conditions;
mod peer_authentication;
pub(crate) mod trust_domain;

pub(crate) use audience::{Audiences, audience_policy};
pub(crate) use authorization::{Policy, PolicyIndex, widen};
pub(crate) use peer_authentication::PeerAuthentications;
pub use trust_domain::TrustDomains;
