//! May this be done at all?
//!
//! Invariant: an [`Allowed`] comes from [`authorize`] alone, and choosing an endpoint takes one.

use crate::rbac::{RbacAction, RbacFilter, RuleSet};
use crate::request::RequestInfo;
use std::sync::Arc;

/// Proof that authorisation took place and allowed the request.
// The private field is the point: nobody else can make one, not even in this crate's other modules.
#[allow(clippy::manual_non_exhaustive)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The policy of the last ALLOW filter that matched, if there was one.
    pub policy: Option<Arc<str>>,
    /// What dry-run policies would have done.
    pub shadow: Vec<ShadowVerdict>,
    _witness: (),
}

/// A request that must not be served: 403 with response flag `RBAC` details, or a closed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The DENY policy that matched (`ns[NAMESPACE]-policy[NAME]-rule[INDEX]`); `None` when ALLOW policies exist and none
    /// matched.
    pub policy: Option<Arc<str>>,
    /// What dry-run policies up to there would have done.
    pub shadow: Vec<ShadowVerdict>,
}

/// The verdict of one filter's shadow rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowVerdict {
    pub allowed: bool,
    /// The policy that matched, if any.
    pub policy: Option<Arc<str>>,
}

/// Evaluates RBAC filters in order; the first that denies decides.
///
/// # Errors
/// [`Denied`] names the policy.
pub fn authorize<'a>(
    filters: impl IntoIterator<Item = &'a Arc<RbacFilter>>,
    info: &RequestInfo<'_>,
) -> Result<Allowed, Denied> {
    let mut shadow = Vec::new();
    let mut policy = None;
    for filter in filters {
        if let Some(rules) = &filter.shadow {
            let (allowed, policy) = verdict(rules, info);
            shadow.push(ShadowVerdict { allowed, policy });
        }
        let Some(rules) = &filter.rules else { continue };
        let (allowed, matched) = verdict(rules, info);
        if !allowed {
            return Err(Denied { policy: matched, shadow });
        }
        if rules.action == RbacAction::Allow {
            policy = matched;
        }
    }
    Ok(Allowed { policy, shadow, _witness: () })
}

impl Denied {
    /// Envoy's response code details: `rbac_access_denied_matched_policy[NAME]`, `none` where no policy matched.
    pub fn details(&self) -> String {
        format!("rbac_access_denied_matched_policy[{}]", self.policy.as_deref().unwrap_or("none"))
    }

    /// Namespace and name of the AuthorizationPolicy that matched, from Istio's policy key.
    pub fn authorization_policy(&self) -> Option<(&str, &str)> {
        let rest = self.policy.as_deref()?.strip_prefix("ns[")?;
        let (namespace, rest) = rest.split_once("]-policy[")?;
        let (name, _) = rest.split_once("]-rule[")?;
        Some((namespace, name))
    }
}

fn verdict(rules: &RuleSet, info: &RequestInfo<'_>) -> (bool, Option<Arc<str>>) {
    let matched = rules.matching(info).map(|policy| policy.name.clone());
    let allowed = match rules.action {
        RbacAction::Allow => matched.is_some(),
        RbacAction::Deny => matched.is_none(),
        RbacAction::Log => true,
    };
    (allowed, matched)
}
