//! VirtualServices: do their gateways, hosts and destinations exist?
//!
//! Never reports a destination that exists in any cluster the viewer may call.

use super::codes;
use super::services::Hosts;
use crate::registry::ClusterState;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::gateway::GatewayConfig;
use fairlead_model::matching::{Visibility, host_covers};
use fairlead_model::origin::Origin;
use fairlead_model::route::{Backend, GatewayRef, HttpAction, RouteSet};
use fairlead_model::service::{Protocol, Service};
use std::collections::{BTreeMap, HashMap};

/// IST0101 for gateways, IST0132 for hosts that are on none of a Gateway's servers.
pub(super) fn gateways(state: &ClusterState, diagnostics: &mut Vec<Diagnostic>) {
    let known: HashMap<(&str, &str), &GatewayConfig> =
        state.gateways.iter().map(|one| ((one.namespace.as_str(), one.name.as_str()), &**one)).collect();
    for set in &state.routes {
        for (at, gateway) in set.gateways.iter().enumerate() {
            let GatewayRef::Gateway { namespace, name } = gateway else { continue };
            let path = format!("spec.gateways[{at}]");
            if !known.contains_key(&(namespace.as_str(), name.as_str())) {
                let message = format!("gateway {namespace}/{name} does not exist");
                diagnostics.push(
                    Diagnostic::error(codes::NOT_FOUND, inside(&set.origin, &path), message)
                        .hint("correct the name (`namespace/name`), or create the Gateway"),
                );
            }
        }
        let names: Vec<(&str, &str)> = set.gateways.iter().filter_map(named).collect();
        let served =
            |host: &str| names.iter().filter_map(|name| known.get(name)).any(|config| serves(config, set, host));
        let strays: Vec<&str> = set.hosts.iter().map(String::as_str).filter(|host| !served(host)).collect();
        if !names.is_empty() && !strays.is_empty() {
            let message = format!("{} not on any server of the Gateways", strays.join(", "));
            diagnostics.push(
                Diagnostic::warning(codes::HOST_NOT_ON_GATEWAY, inside(&set.origin, "spec.hosts"), message)
                    .hint("add the host to a server of the Gateway, or correct it"),
            );
        }
    }
}

/// Namespace and name, unless it means the sidecars.
fn named(gateway: &GatewayRef) -> Option<(&str, &str)> {
    match gateway {
        GatewayRef::Gateway { namespace, name } => Some((namespace, name)),
        GatewayRef::Mesh => None,
    }
}

fn serves(config: &GatewayConfig, set: &RouteSet, host: &str) -> bool {
    let admits = |namespace: &Option<String>| namespace.as_ref().is_none_or(|namespace| namespace == &set.namespace);
    let hosts = config.servers.iter().flat_map(|server| &server.hosts);
    hosts.filter(|(namespace, _)| admits(namespace)).any(|(_, pattern)| pattern == host || host_covers(pattern, host))
}

/// IST0109 on each of several that claim one host for sidecars.
pub(super) fn same_hosts(state: &ClusterState, diagnostics: &mut Vec<Diagnostic>) {
    let mut claims: BTreeMap<&str, Vec<&RouteSet>> = BTreeMap::new();
    for set in state.routes.iter().filter(|set| set.gateways.contains(&GatewayRef::Mesh)) {
        for host in &set.hosts {
            claims.entry(host).or_default().push(set);
        }
    }
    for (host, sets) in claims.iter().filter(|(_, sets)| sets.len() > 1) {
        for set in sets {
            let others: Vec<String> = sets
                .iter()
                .filter(|other| other.origin.object != set.origin.object && meet(&set.visibility, &other.visibility))
                .map(|other| other.origin.object.to_string())
                .collect();
            if !others.is_empty() {
                let message =
                    format!("host {host} is also claimed by {}; the oldest takes it whole", others.join(", "));
                diagnostics.push(
                    Diagnostic::error(codes::SAME_HOST, inside(&set.origin, "spec.hosts"), message)
                        .hint("put all rules for the host into one VirtualService, or narrow exportTo"),
                );
            }
        }
    }
}

fn meet(one: &Visibility, other: &Visibility) -> bool {
    match (one, other) {
        (Visibility::Namespaces(one), Visibility::Namespaces(other)) => !one.is_disjoint(other),
        (Visibility::Namespaces(one), Visibility::Public) | (Visibility::Public, Visibility::Namespaces(one)) => {
            !one.is_empty()
        }
        (Visibility::Public, Visibility::Public) => true,
    }
}

/// IST0101 for hosts, ports and subsets; IST0112 for destinations that need a port.
pub(super) fn destinations(state: &ClusterState, hosts: &Hosts<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut subsets: HashMap<&str, Vec<&str>> = HashMap::new();
    for rule in &state.destinations.rules {
        let names = rule.subsets.iter().map(|subset| subset.name.as_str());
        subsets.entry(rule.host.as_str()).or_default().extend(names);
    }
    let patterns: Vec<(&str, &Vec<&str>)> =
        subsets.iter().filter(|(host, _)| host.starts_with('*')).map(|(host, names)| (*host, names)).collect();
    let has_subset = |host: &str, subset: &str| {
        subsets.get(host).is_some_and(|names| names.contains(&subset))
            || patterns.iter().any(|(pattern, names)| host_covers(pattern, host) && names.contains(&subset))
    };
    for set in &state.routes {
        let http = set.http.iter().flat_map(|rule| match &rule.action {
            HttpAction::Route(backends) => backends.as_slice(),
            HttpAction::Redirect(_) | HttpAction::Respond(_) | HttpAction::Refused { .. } => &[],
        });
        let rest = set.tls.iter().flat_map(|rule| &rule.backends).chain(set.tcp.iter().flat_map(|rule| &rule.backends));
        for backend in http.chain(rest) {
            let Some(service) = hosts.visible(&backend.host, &set.namespace).into_iter().next() else {
                let message = format!("host {} does not exist for namespace {}", backend.host, set.namespace);
                diagnostics.push(
                    Diagnostic::error(codes::NOT_FOUND, inside(&backend.origin, "destination.host"), message)
                        .hint("correct the name, or export the service from the cluster that has it"),
                );
                continue;
            };
            port(backend, service, diagnostics);
            if let Some(subset) = &backend.subset
                && !has_subset(&backend.host, subset)
            {
                let message = format!("no DestinationRule for {} has the subset {subset}", backend.host);
                diagnostics.push(
                    Diagnostic::error(codes::NOT_FOUND, inside(&backend.origin, "destination.subset"), message)
                        .hint("correct the name, or define the subset in a DestinationRule of the caller's cluster"),
                );
            }
        }
    }
}

fn port(backend: &Backend, service: &Service, diagnostics: &mut Vec<Diagnostic>) {
    let ports: Vec<u16> =
        service.ports.iter().filter(|port| port.protocol != Protocol::Udp).map(|port| port.number).collect();
    match backend.port {
        Some(number) if !ports.contains(&number) => {
            let message = format!("{} has no port {number}; it has {ports:?}", backend.host);
            diagnostics.push(
                Diagnostic::error(codes::NOT_FOUND, inside(&backend.origin, "destination.port"), message)
                    .hint("use a port number of the Service"),
            );
        }
        None if ports.len() > 1 => {
            let message = format!("{} has several ports {ports:?}, so the destination needs one", backend.host);
            diagnostics.push(
                Diagnostic::error(codes::PORT_NEEDED, inside(&backend.origin, "destination"), message)
                    .hint("write destination.port.number"),
            );
        }
        _ => {}
    }
}

/// A path below an origin's, on its line.
fn inside(origin: &Origin, path: &str) -> Origin {
    let mut at = origin.clone();
    at.path = if at.path.is_empty() { path.to_owned() } else { format!("{}.{path}", at.path) };
    at
}
