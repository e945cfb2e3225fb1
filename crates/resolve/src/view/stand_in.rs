//! Pod names of headless services across networks.
//!
//! Never stands in for a pod that can be dialled, or for a name that two other clusters have. Rule (profile `fairlead`): a
//! pod name means the own cluster's pod, else the one other cluster's, reached through its gateway. The caller's side is a
//! service of one endpoint with a virtual IP; the callee's side is a service that nobody sees and the gateway serves.
//! Profile `istio`: none (not supported across networks).

use crate::registry::ClusterState;
use fairlead_model::endpoint::Endpoint;
use fairlead_model::matching::Visibility;
use fairlead_model::service::{Service, ServiceKey, ServiceSource};
use fairlead_model::settings::Profile;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The key of a pod's stand-in under a headless service.
pub(crate) fn stand_in_key(service: &Service, pod: &str) -> ServiceKey {
    ServiceKey { namespace: service.key.namespace.clone(), host: format!("{pod}.{}", service.key.host) }
}

/// Names of Kubernetes Services have no dots; those of stand-ins do.
pub(crate) fn is_stand_in(service: &Service) -> bool {
    service.source != ServiceSource::ServiceEntry && service.name.contains('.')
}

/// Whose destination policies hold: a stand-in has its service's.
pub(super) fn policy_key(service: &Service) -> ServiceKey {
    let mut key = service.key.clone();
    if is_stand_in(service)
        && let Some((_, rest)) = service.name.rsplit_once('.')
        && let Some(at) = key.host.find(&format!(".{rest}.{}.", key.namespace))
    {
        key.host.replace_range(..=at, "");
    }
    key
}

/// Adds the stand-ins of all headless services.
pub(super) fn add(state: &ClusterState, services: &mut BTreeMap<ServiceKey, Service>) {
    if state.settings.profile == Profile::Istio {
        return;
    }
    let mut found = Vec::new();
    for service in services.values().filter(|service| service.headless) {
        let own: BTreeSet<&str> = service
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.workload.cluster == state.cluster)
            .map(|endpoint| endpoint.workload.name.as_str())
            .collect();
        let mut others: BTreeMap<&str, Vec<&Arc<Endpoint>>> = BTreeMap::new();
        for endpoint in &service.endpoints {
            let pod = endpoint.workload.name.as_str();
            if endpoint.workload.cluster == state.cluster {
                if !service.exported.is_empty() {
                    let hidden = Visibility::Namespaces(BTreeSet::new());
                    found.push(Service { visibility: hidden, ..stand_in(service, endpoint, true) });
                }
            } else if !own.contains(pod) {
                others.entry(pod).or_default().push(endpoint);
            }
        }
        for endpoints in others.values() {
            let dialled = |endpoint: &Endpoint| {
                endpoint.address.is_some() && state.member.networks.iter().any(|own| own.reaches(&endpoint.network))
            };
            if let [endpoint] = endpoints.as_slice()
                && !dialled(endpoint)
            {
                found.push(stand_in(service, endpoint, false));
            }
        }
    }
    for service in found {
        services.entry(service.key.clone()).or_insert(service);
    }
}

fn stand_in(service: &Service, endpoint: &Arc<Endpoint>, own: bool) -> Service {
    Service {
        key: stand_in_key(service, &endpoint.workload.name),
        name: format!("{}.{}", endpoint.workload.name, service.name),
        // The own pod is dialled at its own address.
        headless: own,
        exported: if own { service.exported.clone() } else { BTreeSet::new() },
        clusters: BTreeSet::from([endpoint.workload.cluster.clone()]),
        endpoints: vec![endpoint.clone()],
        ..service.clone()
    }
}
