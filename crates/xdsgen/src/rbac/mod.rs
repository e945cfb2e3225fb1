//! AuthorizationPolicy as Envoy RBAC, for HTTP and for bytes.
//!
//! Source: Istio's documentation and code DENY comes before ALLOW. On TCP an ALLOW rule with a field that only HTTP has is dropped
//! (narrower), a DENY rule keeps the rest (wider). Invariant: what cannot be said denies more or allows less, never the
//! other way round.

mod condition;
mod principal;

use condition::{Place, permission, principal};
use fairlead_model::security::{Action, AuthorizationPolicy, AuthorizationRule, Condition};
use fairlead_proto::envoy::rbac::{self, Policy, Rbac};
use std::collections::HashMap;

/// The two filters' rules: enforced, and evaluated only (`istio.io/dry-run`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub enforced: Option<Rbac>,
    pub shadow: Option<Rbac>,
}

/// What Istio prefixes the dry-run results with.
pub const SHADOW_PREFIX_DENY: &str = "istio_dry_run_deny_";
pub const SHADOW_PREFIX_ALLOW: &str = "istio_dry_run_allow_";

/// The rules of one action, on HTTP or on bytes; `None` when no policy has that action.
pub fn rules(policies: &[AuthorizationPolicy], action: Action, http: bool) -> Option<Rules> {
    let of = |dry_run: bool| {
        let policies: Vec<_> = policies.iter().filter(|p| p.action == action && p.dry_run == dry_run).collect();
        if policies.is_empty() {
            return None;
        }
        let rules: HashMap<String, Policy> = policies.iter().flat_map(|p| named_rules(p, http)).collect();
        // No DENY rule is the same as no filter; no ALLOW rule denies everything.
        if rules.is_empty() && action == Action::Deny {
            return None;
        }
        let action = match action {
            Action::Deny => rbac::rbac::Action::Deny,
            Action::Allow => rbac::rbac::Action::Allow,
        };
        Some(Rbac { action: action as i32, policies: rules, ..Default::default() })
    };
    let rules = Rules { enforced: of(false), shadow: of(true) };
    (rules.enforced.is_some() || rules.shadow.is_some()).then_some(rules)
}

fn named_rules(policy: &AuthorizationPolicy, http: bool) -> Vec<(String, Policy)> {
    let object = &policy.origin.object;
    let named = policy.rules.iter().enumerate().filter_map(|(index, rule)| {
        let name = format!("ns[{}]-policy[{}]-rule[{index}]", object.namespace, object.name);
        Some((name, rule_policy(rule, policy.action, http)?))
    });
    named.collect()
}

fn rule_policy(rule: &AuthorizationRule, action: Action, http: bool) -> Option<Policy> {
    if action == Action::Allow {
        let all = rule.from.iter().chain(&rule.to).flatten().chain(&rule.when);
        let http_only = !http && all.into_iter().any(|c| c.attribute.is_http());
        if rule.never || http_only {
            return None;
        }
    }
    let usable = |c: &&Condition| http || !c.attribute.is_http();
    let when = |place: Place| rule.when.iter().filter(usable).filter(move |c| Place::of(&c.attribute) == place);
    // A list is any of its entries; an entry is all of its conditions and all of `when`.
    let nothing = [Vec::new()];
    let to: &[Vec<Condition>] = if rule.to.is_empty() { &nothing } else { &rule.to };
    let from: &[Vec<Condition>] = if rule.from.is_empty() { &nothing } else { &rule.from };
    let permissions = to.iter().map(|to| {
        let own = to.iter().filter(usable).filter(|c| Place::of(&c.attribute) == Place::Permission);
        condition::all_permissions(own.chain(when(Place::Permission)).flat_map(permission).collect())
    });
    let principals = from.iter().map(|from| {
        let own = from.iter().filter(usable).filter(|c| Place::of(&c.attribute) == Place::Principal);
        condition::all_principals(own.chain(when(Place::Principal)).flat_map(principal).collect())
    });
    Some(Policy { permissions: permissions.collect(), principals: principals.collect(), ..Default::default() })
}
