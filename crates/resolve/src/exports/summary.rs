//! What a cluster tells one peer.
//!
//! Never carries a port that is not exported. Invariant: an endpoint's address is in it only if the audience has a network
//! that reaches the endpoint's.

use super::rule::ExportRule;
use crate::registry::{ClusterState, OwnService};
use crate::settings::network_of;
use fairlead_model::endpoint::{Endpoint, Health};
use fairlead_model::ids::{ClusterId, NetworkId};
use fairlead_model::service::ServiceSource;
use fairlead_model::summary::{ClusterSummary, ServiceSummary};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whom a summary is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    pub cluster: ClusterId,
    /// The networks it has workloads in.
    pub networks: Vec<NetworkId>,
}

/// For a member whose network stands in the mesh's settings (or is the profile's default).
pub fn export(state: &ClusterState, audience: &ClusterId) -> ClusterSummary {
    let networks = vec![network_of(&state.settings, audience)];
    export_to(state, &Audience { cluster: audience.clone(), networks })
}

/// For a member whose networks are known from what it says of itself.
pub fn export_to(state: &ClusterState, audience: &Audience) -> ClusterSummary {
    let mut summary =
        ClusterSummary { member: state.member.clone(), services: BTreeMap::new(), endpoints: BTreeMap::new() };
    for own in state.services.values().filter(|own| own.service.source == ServiceSource::Kubernetes) {
        let Some(rule) = own.export.as_ref().filter(|rule| rule.allows(&audience.cluster)) else { continue };
        let key = format!("{}/{}", own.service.key.namespace, own.service.name);
        summary.services.insert(key.clone(), Arc::new(service(own, rule)));
        summary.endpoints.insert(key, endpoints(own, audience));
    }
    summary
}

fn service(own: &OwnService, rule: &ExportRule) -> ServiceSummary {
    let service = &own.service;
    let mut capacity: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut service_accounts = BTreeSet::new();
    for endpoint in &service.endpoints {
        let (ready, total) = capacity.entry(endpoint.locality.to_string()).or_default();
        *total += 1;
        *ready += u32::from(endpoint.health == Health::Healthy);
        service_accounts.extend(endpoint.identity.as_ref().map(ToString::to_string));
    }
    ServiceSummary {
        namespace: service.key.namespace.clone(),
        name: service.name.clone(),
        ports: service.ports.iter().filter(|port| service.exported.contains(&port.number)).cloned().collect(),
        headless: service.headless,
        visibility: service.visibility.clone(),
        labels: if rule.labels.is_empty() { service.labels.clone() } else { rule.labels.clone() },
        service_accounts,
        created: rule.created,
        capacity,
    }
}

fn endpoints(own: &OwnService, audience: &Audience) -> Vec<Arc<Endpoint>> {
    let exported = &own.service.exported;
    let one = |endpoint: &Arc<Endpoint>| {
        let reachable = audience.networks.iter().any(|network| network.reaches(&endpoint.network));
        let all_ports = endpoint.ports.keys().all(|port| exported.contains(port));
        if reachable && all_ports {
            return endpoint.clone();
        }
        let mut told = with_ports(endpoint, exported);
        if !reachable {
            told.address = None;
            told.additional_addresses = Vec::new();
        }
        Arc::new(told)
    };
    own.service.endpoints.iter().map(one).collect()
}

/// The endpoint with these service ports only.
pub(crate) fn with_ports(endpoint: &Endpoint, ports: &BTreeSet<u16>) -> Endpoint {
    let mut told = endpoint.clone();
    told.ports.retain(|port, _| ports.contains(port));
    told.mutual_tls.retain(|port| ports.contains(port));
    told
}
