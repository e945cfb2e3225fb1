//! The audience of an export, enforced where the callee's proxy can: by the trust domain in the caller's certificate.
//!
//! Never restricts callers of the own cluster. Rule: a port that is exported only to some members refuses identities of
//! the others, unless another export of the same port admits them. With one trust domain for all (`trust: shared`) a
//! certificate does not tell the member, so nothing is added here and `analyze` says so.

use fairlead_model::ids::ClusterId;
use fairlead_model::matching::StringMatch;
use fairlead_model::origin::Origin;
use fairlead_model::security::{Action, Attribute, AuthorizationPolicy, AuthorizationRule, Condition, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What one workload port may be called by: `None` any member.
pub(crate) type Audiences = BTreeMap<u16, (Option<BTreeSet<ClusterId>>, Origin)>;

/// `members` are the other members with their trust domains.
pub(crate) fn audience_policy(ports: &Audiences, members: &BTreeMap<ClusterId, String>) -> Option<AuthorizationPolicy> {
    let mut rules = Vec::new();
    let mut first: Option<Origin> = None;
    for (port, (audience, origin)) in ports {
        let Some(audience) = audience else { continue };
        let outside: Vec<Value> = members
            .iter()
            .filter(|(cluster, _)| !audience.contains(*cluster))
            .map(|(_, domain)| Value::Match(StringMatch::Exact(domain.clone())))
            .collect();
        if outside.is_empty() {
            continue;
        }
        first.get_or_insert_with(|| origin.clone());
        rules.push(AuthorizationRule {
            origin: Some(origin.clone()),
            from: vec![vec![Condition { attribute: Attribute::TrustDomain, values: outside, not_values: Vec::new() }]],
            to: vec![vec![Condition {
                attribute: Attribute::DestinationPort,
                values: vec![Value::Port(*port)],
                not_values: Vec::new(),
            }]],
            when: Vec::new(),
            never: false,
        });
    }
    Some(AuthorizationPolicy { origin: first?, action: Action::Deny, rules, dry_run: false })
}
