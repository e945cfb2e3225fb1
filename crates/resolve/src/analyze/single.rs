//! Findings about one object that are made while it is resolved.

use super::codes;
use crate::registry::Item;
use crate::routes::Undelivered;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::origin::Origin;
use fairlead_model::settings::{MeshSettings, Profile};
use fairlead_resources::core as kubernetes;
use fairlead_resources::istio::{DestinationRule, LoadBalancerSettings, ServiceEntry};

/// A Service that is only an alias.
pub(crate) fn external_name(item: &Item<'_, kubernetes::Service>) -> Diagnostic {
    Diagnostic::warning(
        codes::EXTERNAL_NAME,
        item.origin("spec.type"),
        "a Service of type ExternalName has no endpoints and does not resolve here",
    )
    .hint("use a ServiceEntry with the external name as host")
}

/// A second ServiceEntry for one host in one namespace.
pub(crate) fn host_taken(item: &Item<'_, ServiceEntry>, host: &str, by: &[Origin]) -> Diagnostic {
    let by = by.first().map(ToString::to_string).unwrap_or_default();
    Diagnostic::warning(
        codes::HOST_TAKEN,
        item.origin("spec.hosts"),
        format!("host {host} is taken by {by}; this entry is not used for it"),
    )
    .hint("keep one ServiceEntry for a host and namespace")
}

/// A delegation that leads nowhere: its rule is left out, as in Istio.
pub(crate) fn delegation(problem: &Undelivered) -> Diagnostic {
    let (origin, message) = (problem.origin.clone(), problem.message.clone());
    if problem.missing {
        return Diagnostic::error(codes::NOT_FOUND, origin, message)
            .hint("correct delegate.name and delegate.namespace, or export the VirtualService");
    }
    Diagnostic::warning(codes::UNREACHABLE_RULE, origin, message)
        .hint("make each match of the delegate a subset of a match of the rule that delegates")
}

/// `distribute` and `failover` together: profile `fairlead` composes them, Istio's validation refuses the rule.
pub(crate) fn refused_by_profile(item: &Item<'_, DestinationRule>, settings: &MeshSettings) -> Option<Diagnostic> {
    if settings.profile == Profile::Fairlead {
        return None;
    }
    let both = |balancer: &Option<LoadBalancerSettings>| {
        let setting = balancer.as_ref().and_then(|balancer| balancer.locality_lb_setting.as_ref());
        setting.is_some_and(|setting| !setting.distribute.is_empty() && !setting.failover.is_empty())
    };
    let spec = &item.object.spec;
    let policies = spec.traffic_policy.iter().map(|policy| (policy, "spec.trafficPolicy".to_owned()));
    let subsets = spec.subsets.iter().enumerate();
    let of_subsets = subsets.filter_map(|(at, subset)| {
        Some((subset.traffic_policy.as_ref()?, format!("spec.subsets[{at}].trafficPolicy")))
    });
    let refused = policies.chain(of_subsets).find_map(|(policy, path)| {
        let in_port = policy.port_level_settings.iter().any(|port| both(&port.load_balancer));
        (both(&policy.load_balancer) || in_port).then_some(path)
    })?;
    let message = "distribute and failover cannot stand together in profile istio; the rule is refused";
    Some(
        Diagnostic::error(codes::REFUSED, item.origin(&refused), message)
            .hint("keep one of the two, or use profile fairlead"),
    )
}
