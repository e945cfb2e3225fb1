//! The viewer's workloads with the authorization policies that hold for them.
//!
//! Never leaves a policy out because a name in it means nobody. Invariant: DENY before ALLOW; export audiences come first.

use crate::registry::ClusterState;
use crate::security::{Audiences, TrustDomains, audience_policy, widen};
use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::{Member, MemberState, Workload, Workloads};
use fairlead_model::security::AuthorizationPolicy;
use fairlead_model::settings::Trust;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn workloads(state: &ClusterState, members: &BTreeMap<ClusterId, Member>) -> Arc<Workloads> {
    let restricted = state.settings.trust == Trust::PerCluster
        && state.services.values().any(|own| own.export.as_ref().is_some_and(|rule| rule.to.is_some()));
    if !restricted && state.selected.is_empty() {
        return state.workloads.clone();
    }
    let alive = members.values().filter(|member| member.state != MemberState::Revoked);
    let domains = TrustDomains::new(&state.settings, alive.map(|member| member.trust_domain.clone()));
    let policies: Vec<AuthorizationPolicy> =
        state.policies.iter().map(|policy| widen(&policy.policy, &domains)).collect();
    let others: BTreeMap<ClusterId, String> = members
        .values()
        .filter(|member| member.cluster != state.cluster && member.state != MemberState::Revoked)
        .map(|member| (member.cluster.clone(), member.trust_domain.clone()))
        .collect();
    let one = |workload: &Arc<Workload>| {
        let audience = restricted.then(|| audience_policy(&audiences(state, workload), &others)).flatten();
        let selected = state.selected.get(&workload.key).map(Vec::as_slice).unwrap_or_default();
        if audience.is_none() && selected.is_empty() {
            return workload.clone();
        }
        let mut secured = (**workload).clone();
        let selected = selected.iter().filter_map(|at| policies.get(*at).cloned());
        secured.security.policies = audience.into_iter().chain(selected).collect();
        Arc::new(secured)
    };
    Arc::new(state.workloads.iter().map(|(key, workload)| (key.clone(), one(workload))).collect())
}

/// Per port: the union of the audiences of all exports that reach it. Ports that no export covers are not restricted here:
/// no gateway has a route for them.
fn audiences(state: &ClusterState, workload: &Workload) -> Audiences {
    let mut found = Audiences::new();
    for (port, served) in &workload.ports {
        for (key, number) in served {
            let Some(own) = state.services.get(key).filter(|own| own.service.exported.contains(number)) else {
                continue;
            };
            let Some(rule) = &own.export else { continue };
            match found.get_mut(port) {
                None => drop(found.insert(*port, (rule.to.clone(), rule.origin.clone()))),
                Some((audience, _)) => {
                    *audience = match (audience.take(), &rule.to) {
                        (Some(mut known), Some(more)) => {
                            known.extend(more.iter().cloned());
                            Some(known)
                        }
                        _ => None,
                    };
                }
            }
        }
    }
    found
}
