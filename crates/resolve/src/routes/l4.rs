//! TLS and TCP rules.
//!
//! Never lets a refused rule's connections fall to a later rule: it keeps its place without backends, and what it matches
//! is closed.

use super::backends::{Target, backends, port_number};
use super::route_set::{Names, gateway_refs};
use fairlead_model::origin::Origin;
use fairlead_model::route::{Backend, L4Match, TcpRule, TlsRule};
use fairlead_resources::istio as written;

pub(super) fn tls_rule(
    rule: &written::TlsRoute,
    names: &Names<'_>,
    index: usize,
    origin: &dyn Fn(&str) -> Origin,
) -> TlsRule {
    let path = format!("spec.tls[{index}]");
    let matches = rule.matches.iter().map(|one| L4Match {
        sni_hosts: one.sni_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        destination_subnets: one.destination_subnets.clone(),
        port: port_number(one.port),
        source_labels: one.source_labels.clone(),
        source_namespace: Some(one.source_namespace.clone()).filter(|namespace| !namespace.is_empty()),
        gateways: gateway_refs(&one.gateways, names.namespace),
    });
    TlsRule {
        origin: origin(&path),
        matches: matches.collect(),
        backends: l4_backends(&rule.route, rule.refused, names, &path, origin),
    }
}

pub(super) fn tcp_rule(
    rule: &written::TcpRoute,
    names: &Names<'_>,
    index: usize,
    origin: &dyn Fn(&str) -> Origin,
) -> TcpRule {
    let path = format!("spec.tcp[{index}]");
    let matches = rule.matches.iter().map(|one| L4Match {
        sni_hosts: Vec::new(),
        destination_subnets: one.destination_subnets.clone(),
        port: port_number(one.port),
        source_labels: one.source_labels.clone(),
        source_namespace: Some(one.source_namespace.clone()).filter(|namespace| !namespace.is_empty()),
        gateways: gateway_refs(&one.gateways, names.namespace),
    });
    TcpRule {
        origin: origin(&path),
        matches: matches.collect(),
        backends: l4_backends(&rule.route, rule.refused, names, &path, origin),
    }
}

fn l4_backends(
    route: &[written::RouteDestination],
    refused: bool,
    names: &Names<'_>,
    path: &str,
    origin: &dyn Fn(&str) -> Origin,
) -> Vec<Backend> {
    if refused {
        return Vec::new();
    }
    let targets = route.iter().map(|target| Target {
        destination: target.destination.as_ref(),
        weight: target.weight,
        headers: None,
    });
    backends(targets, names.namespace, names.domain, |at| origin(&format!("{path}.route[{at}]")))
}
