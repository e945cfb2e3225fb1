//! DestinationRules: does the host exist, does a subset select anything, is a server verified?
//!
//! Never reports a subset whose endpoints are in another cluster the viewer may call.

use super::codes;
use super::services::Hosts;
use crate::registry::{ClusterState, Objects};
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::matching::{Labels, selects};
use fairlead_model::service::{Resolution, ServiceSource};
use fairlead_resources::istio::{ClientTlsMode, ClientTlsSettings, TrafficPolicy};

/// IST0174 and IST0173.
pub(super) fn hosts(state: &ClusterState, hosts: &Hosts<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for rule in &state.destinations.rules {
        let services = hosts.named(&rule.host);
        if services.is_empty() {
            if !rule.host.starts_with('*') {
                let mut at = rule.origin.clone();
                at.path = "spec.host".to_owned();
                diagnostics.push(
                    Diagnostic::warning(codes::UNKNOWN_HOST, at, format!("host {} does not exist", rule.host))
                        .hint("correct the host, or remove the rule"),
                );
            }
            continue;
        }
        // The dialled address is the endpoint; nothing is known of its labels.
        if services.iter().any(|service| service.resolution == Resolution::Passthrough) {
            continue;
        }
        for subset in &rule.subsets {
            let wanted = own_labels(&subset.labels);
            let counts = services
                .iter()
                .filter(|service| service.source != ServiceSource::ServiceEntry || !service.endpoints.is_empty());
            let mut endpoints = counts.flat_map(|service| &service.endpoints);
            // Pods that have no address yet are no endpoints, but they are on their way.
            let mut starting = state.workloads.values().filter(|workload| workload.key.namespace == rule.namespace);
            let found = endpoints.any(|endpoint| selects(&wanted, &endpoint.labels))
                || starting.any(|workload| workload.addresses.is_empty() && selects(&wanted, &workload.labels));
            if !wanted.is_empty() && !found {
                let message = format!("subset {} of {} selects no endpoint", subset.name, rule.host);
                diagnostics.push(
                    Diagnostic::error(codes::EMPTY_SUBSET, subset.origin.clone(), message)
                        .hint("correct the labels, or start workloads that carry them"),
                );
            }
        }
    }
}

/// Labels that workloads carry themselves: places come and go, so a place without endpoints now is no mistake. An empty
/// place is one.
fn own_labels(labels: &Labels) -> Labels {
    let place = |key: &str| key.starts_with("topology.istio.io/") || key.starts_with("topology.kubernetes.io/");
    labels.iter().filter(|(key, value)| !place(key) || value.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// IST0128 and IST0129.
pub(super) fn certificates(objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for item in &objects.destinations {
        let spec = &item.object.spec;
        let selects = spec.workload_selector.is_some();
        let unverified = |tls: &Option<ClientTlsSettings>| {
            tls.as_ref().is_some_and(|tls| {
                matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
                    && tls.ca_certificates.is_empty()
                    && (tls.credential_name.is_empty() || !selects)
            })
        };
        let mut check = |policy: &TrafficPolicy, path: String| {
            let mut report = |code, path: String| {
                let message =
                    "TLS is originated without caCertificates, so the server is verified by the system's roots only";
                diagnostics.push(Diagnostic::warning(code, item.origin(&path), message).hint("write caCertificates"));
            };
            if unverified(&policy.tls) {
                report(codes::NO_ROOTS, format!("{path}.tls"));
            }
            for (at, port) in policy.port_level_settings.iter().enumerate() {
                if unverified(&port.tls) {
                    report(codes::NO_ROOTS_PORT, format!("{path}.portLevelSettings[{at}].tls"));
                }
            }
        };
        if let Some(policy) = &spec.traffic_policy {
            check(policy, "spec.trafficPolicy".to_owned());
        }
    }
}
