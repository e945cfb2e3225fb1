//! What a name covers.
//!
//! Never puts another cluster's endpoints under a Service that was never shared. The rule is at the top of `view`.

use super::offers::{Offer, Offers};
use super::{CLUSTER_SET, health, ports};
use crate::analyze::codes;
use crate::exports::summary::with_ports;
use crate::registry::{ClusterState, OwnService};
use crate::routes::host;
use crate::settings::cluster_local::is_local;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::endpoint::Endpoint;
use fairlead_model::ids::ClusterId;
use fairlead_model::matching::{Labels, Visibility};
use fairlead_model::mesh::MemberState;
use fairlead_model::service::{Resolution, Service, ServiceKey, ServicePort, ServiceSource};
use fairlead_model::settings::{ClusterLocalNames, Export, Profile};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every service that exists for the viewer, without virtual IPs and policies.
pub(super) fn services(
    state: &ClusterState,
    offers: &Offers<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<ServiceKey, Service> {
    let mut found: BTreeMap<ServiceKey, Service> = BTreeMap::new();
    let none = Vec::new();
    let cluster_set = state.settings.profile == Profile::Fairlead || state.settings.export == Export::Explicit;
    for own in state.services.values() {
        if own.service.source == ServiceSource::ServiceEntry {
            let mut service = own.service.clone();
            drain_own(state, &mut service.endpoints);
            found.insert(service.key.clone(), service);
            continue;
        }
        let theirs = offers.get(&(own.service.key.namespace.as_str(), own.service.name.as_str())).unwrap_or(&none);
        let plain = plain_with_own(state, own, theirs);
        report_differences(own, theirs, diagnostics);
        found.insert(plain.key.clone(), plain);
        if cluster_set && (own.export.is_some() || !theirs.is_empty()) {
            let set =
                exported(state, own.export.as_ref().map(|_| &**own), theirs, CLUSTER_SET, ServiceSource::ClusterSet);
            found.insert(set.key.clone(), set);
        }
    }
    let span = state.settings.cluster_local_names == ClusterLocalNames::Span;
    for ((namespace, name), theirs) in offers {
        let host = host::join(name, namespace, &state.settings.domain);
        let key = ServiceKey { namespace: (*namespace).to_owned(), host };
        if state.services.contains_key(&key) {
            continue;
        }
        if cluster_set {
            let set = exported(state, None, theirs, CLUSTER_SET, ServiceSource::ClusterSet);
            found.insert(set.key.clone(), set);
        }
        if span && !is_local(&state.settings.cluster_local_hosts, &key.host) {
            let plain = exported(state, None, theirs, &state.settings.domain, ServiceSource::Kubernetes);
            found.insert(key, plain);
        }
    }
    found
}

/// A plain name with a Service of the own cluster.
fn plain_with_own(state: &ClusterState, own: &OwnService, theirs: &[Offer<'_>]) -> Service {
    let settings = &state.settings;
    let mut service = own.service.clone();
    let shared = settings.profile == Profile::Istio || own.export.is_some() || own.merge;
    let spans = settings.cluster_local_names == ClusterLocalNames::Span
        && !is_local(&settings.cluster_local_hosts, &service.key.host);
    if theirs.is_empty() || !shared || !spans {
        drain_own(state, &mut service.endpoints);
        return service;
    }
    let merged = {
        let mut sources: Vec<(i64, &ClusterId, &[_])> =
            theirs.iter().map(|offer| (offer.service.created, offer.cluster, offer.service.ports.as_slice())).collect();
        // Only an export takes part in the contest of ages; otherwise the own Service says what its name means here.
        let created = own.export.as_ref().map_or(i64::MIN, |rule| rule.created);
        let created = if settings.profile == Profile::Istio { i64::MIN } else { created };
        sources.push((created, &state.cluster, own.service.ports.as_slice()));
        sources.sort_by_key(|(created, cluster, _)| (*created, *cluster));
        ports::merged(settings.profile, sources.into_iter().map(|(_, _, ports)| ports))
    };
    service.ports = merged;
    service.clusters.extend(theirs.iter().map(|offer| offer.cluster.clone()));
    service.endpoints.extend(theirs.iter().flat_map(|offer| offer.endpoints.iter().cloned()));
    drain(state, theirs, &mut service.endpoints);
    service
}

/// Exported endpoints only: a `clusterset.local` name, or a plain name without a Service of the own cluster.
fn exported(
    state: &ClusterState,
    own: Option<&OwnService>,
    theirs: &[Offer<'_>],
    suffix: &str,
    source: ServiceSource,
) -> Service {
    struct Source<'a> {
        created: i64,
        cluster: &'a ClusterId,
        ports: Vec<ServicePort>,
        headless: bool,
        labels: &'a Labels,
        visibility: &'a Visibility,
    }
    let mut sources: Vec<Source<'_>> = theirs
        .iter()
        .map(|offer| Source {
            created: offer.service.created,
            cluster: offer.cluster,
            ports: offer.service.ports.clone(),
            headless: offer.service.headless,
            labels: &offer.service.labels,
            visibility: &offer.service.visibility,
        })
        .collect();
    if let Some(own) = own {
        let ports = own.service.ports.iter().filter(|port| own.service.exported.contains(&port.number));
        sources.push(Source {
            created: own.export.as_ref().map_or(i64::MAX, |rule| rule.created),
            cluster: &state.cluster,
            ports: ports.cloned().collect(),
            headless: own.service.headless,
            labels: &own.service.labels,
            visibility: &own.service.visibility,
        });
    }
    sources.sort_by_key(|source| (source.created, source.cluster));
    let (namespace, name) = match (own, theirs.first()) {
        (Some(own), _) => (own.service.key.namespace.clone(), own.service.name.clone()),
        (None, Some(offer)) => (offer.service.namespace.clone(), offer.service.name.clone()),
        (None, None) => Default::default(),
    };
    let oldest = sources.first();
    let mut endpoints: Vec<Arc<Endpoint>> = own.map(own_exported).unwrap_or_default();
    endpoints.extend(theirs.iter().flat_map(|offer| offer.endpoints.iter().cloned()));
    drain(state, theirs, &mut endpoints);
    Service {
        key: ServiceKey { host: host::join(&name, &namespace, suffix), namespace },
        name,
        source,
        headless: oldest.is_some_and(|source| source.headless),
        labels: oldest.map(|source| source.labels.clone()).unwrap_or_default(),
        visibility: oldest.map(|source| source.visibility.clone()).unwrap_or_default(),
        clusters: sources.iter().map(|source| source.cluster.clone()).collect(),
        ports: ports::merged(state.settings.profile, sources.iter().map(|source| source.ports.as_slice())),
        vips: Vec::new(),
        cidrs: Vec::new(),
        resolution: Resolution::Endpoints,
        external: false,
        exported: own.map(|own| own.service.exported.clone()).unwrap_or_default(),
        traffic_distribution: own.and_then(|own| own.service.traffic_distribution.clone()),
        endpoints,
        subject_alt_names: Vec::new(),
        policies: Vec::new(),
        origins: own.map(|own| own.service.origins.clone()).unwrap_or_default(),
    }
}

/// Own endpoints with the exported ports only.
fn own_exported(own: &OwnService) -> Vec<Arc<Endpoint>> {
    let exported = &own.service.exported;
    let one = |endpoint: &Arc<Endpoint>| {
        if endpoint.ports.keys().all(|port| exported.contains(port)) {
            endpoint.clone()
        } else {
            Arc::new(with_ports(endpoint, exported))
        }
    };
    own.service.endpoints.iter().map(one).collect()
}

fn drain(state: &ClusterState, theirs: &[Offer<'_>], endpoints: &mut [Arc<Endpoint>]) {
    let mut draining: BTreeSet<&ClusterId> =
        theirs.iter().filter(|offer| offer.draining).map(|offer| offer.cluster).collect();
    if state.member.state == MemberState::Draining {
        draining.insert(&state.cluster);
    }
    health::drain(endpoints, &draining);
}

/// Everything of the service is in the own cluster, so it goes on even while the cluster drains.
fn drain_own(state: &ClusterState, endpoints: &mut [Arc<Endpoint>]) {
    drain(state, &[], endpoints);
}

/// IST0170, on the own Service.
fn report_differences(own: &OwnService, theirs: &[Offer<'_>], diagnostics: &mut Vec<Diagnostic>) {
    if own.export.is_none() && !own.merge {
        return;
    }
    let Some(origin) = own.service.origins.first() else { return };
    let crosses = |port: &&ServicePort| own.export.as_ref().is_none_or(|rule| rule.has_port(port));
    let exported: Vec<ServicePort> = own.service.ports.iter().filter(crosses).cloned().collect();
    for offer in theirs {
        let mut found = ports::differences(&exported, &offer.service.ports);
        if offer.service.headless != own.service.headless {
            found.push("only one of the two is headless".to_owned());
        }
        if !found.is_empty() {
            let message = format!("the service differs from {}'s: {}", offer.cluster, found.join("; "));
            diagnostics.push(
                Diagnostic::warning(codes::CLUSTERS_DIFFER, origin.clone(), message)
                    .hint("make ports, protocols and type equal in all clusters, or export fewer ports"),
            );
        }
    }
}
