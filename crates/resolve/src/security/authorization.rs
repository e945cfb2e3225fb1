//! AuthorizationPolicies of a cluster, and which workloads they select.
//!
//! Never skips a policy that could not be read: it denies what it may have selected. Trust domains are as written until
//! the members are known (`widen`).

use super::TrustDomains;
use super::conditions::{operation, source, when};
use crate::registry::Item;
use fairlead_model::matching::{LabelSource, Labels, selects};
use fairlead_model::security::{Action, Attribute, AuthorizationPolicy, AuthorizationRule, Value};
use fairlead_resources::istio::{self as written, AuthorizationAction};
use std::collections::BTreeMap;

/// Annotation: evaluate, never enforce.
const DRY_RUN: &str = "istio.io/dry-run";

/// One policy and what it selects in its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub selector: Labels,
    /// Trust domains as written.
    pub policy: AuthorizationPolicy,
}

/// All of a cluster, DENY before ALLOW, inside by namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyIndex {
    pub policies: Vec<Policy>,
    by_namespace: BTreeMap<String, Vec<usize>>,
    root: String,
}

impl PolicyIndex {
    pub fn new(items: &[Item<'_, written::AuthorizationPolicy>], root: &str) -> Self {
        let mut sorted: Vec<(Action, &str, &str, Policy)> = items
            .iter()
            .filter_map(|item| {
                let policy = policy(item)?;
                let meta = &item.object.metadata;
                Some((policy.policy.action, meta.namespace.as_str(), meta.name.as_str(), policy))
            })
            .collect();
        sorted.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let mut index = Self { root: root.to_owned(), ..Self::default() };
        for (at, (_, namespace, _, policy)) in sorted.into_iter().enumerate() {
            index.by_namespace.entry(namespace.to_owned()).or_default().push(at);
            index.policies.push(policy);
        }
        index
    }

    /// Positions in `policies` of those that hold for a workload, in their order.
    pub fn select(&self, namespace: &str, labels: &impl LabelSource) -> Vec<usize> {
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten().copied();
        let own = of(namespace).filter(|_| namespace != self.root);
        let mut found: Vec<usize> =
            of(&self.root).chain(own).filter(|at| selects(&self.policies[*at].selector, labels)).collect();
        found.sort_unstable();
        found
    }
}

/// The policy with its principals and trust domains widened to what they stand for.
pub(crate) fn widen(policy: &AuthorizationPolicy, domains: &TrustDomains) -> AuthorizationPolicy {
    let mut widened = policy.clone();
    for rule in &mut widened.rules {
        let conditions = rule.from.iter_mut().chain(&mut rule.to).flatten().chain(&mut rule.when);
        for condition in conditions {
            let principal = match condition.attribute {
                Attribute::Principal => true,
                Attribute::TrustDomain => false,
                _ => continue,
            };
            let all = |values: &[Value]| -> Vec<Value> {
                let one = |value: &Value| match value {
                    Value::Match(written) if principal => {
                        domains.principals(written).into_iter().map(Value::Match).collect()
                    }
                    Value::Match(written) => domains.trust_domains(written).into_iter().map(Value::Match).collect(),
                    other => vec![other.clone()],
                };
                values.iter().flat_map(one).collect()
            };
            condition.values = all(&condition.values);
            condition.not_values = all(&condition.not_values);
        }
    }
    widened
}

/// `None` for policies that decide nothing: AUDIT, and those attached to objects instead of workloads.
fn policy(item: &Item<'_, written::AuthorizationPolicy>) -> Option<Policy> {
    let object = item.object;
    let spec = &object.spec;
    let selector = spec.selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default();
    if object.unreadable {
        let rules = vec![AuthorizationRule { origin: Some(item.origin("")), ..AuthorizationRule::default() }];
        let policy = AuthorizationPolicy { origin: item.origin(""), action: Action::Deny, rules, dry_run: false };
        return Some(Policy { selector, policy });
    }
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        return None;
    }
    let action = match spec.action {
        AuthorizationAction::Allow => Action::Allow,
        // CUSTOM without the external service it asks: what it matches is denied.
        AuthorizationAction::Deny | AuthorizationAction::Custom => Action::Deny,
        AuthorizationAction::Audit => return None,
    };
    let rules = spec.rules.iter().enumerate().map(|(at, rule)| self::rule(rule, action, at, item)).collect();
    let dry_run = object.metadata.annotation(DRY_RUN) == Some("true") && spec.action != AuthorizationAction::Custom;
    Some(Policy { selector, policy: AuthorizationPolicy { origin: item.origin(""), action, rules, dry_run } })
}

fn rule(
    rule: &written::AuthorizationRule,
    action: Action,
    at: usize,
    item: &Item<'_, written::AuthorizationPolicy>,
) -> AuthorizationRule {
    let namespace = item.object.metadata.namespace.as_str();
    let conditions: Vec<_> = rule.when.iter().map(|condition| when(condition, namespace)).collect();
    let unknown = conditions.iter().any(Option::is_none);
    AuthorizationRule {
        origin: Some(item.origin(&format!("spec.rules[{at}]"))),
        from: rule
            .from
            .iter()
            .map(|from| from.source.as_ref().map(|of| source(of, namespace)).unwrap_or_default())
            .collect(),
        to: rule.to.iter().map(|to| to.operation.as_ref().map(operation).unwrap_or_default()).collect(),
        when: conditions.into_iter().flatten().collect(),
        never: action == Action::Allow && (rule.refused || unknown),
    }
}
