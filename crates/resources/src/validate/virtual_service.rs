//! `VirtualService`: hosts, gateways, TLS and TCP rules. HTTP rules are in `http_route`.

use super::check::Check;
use super::{export_to, http_route, labels, names, overlap, ports};
use crate::field::FieldPath;
use crate::istio::{Destination, L4Match, RouteDestination, TlsMatch, VirtualServiceSpec};
use crate::meta::Meta;

/// Checks a VirtualService.
pub(super) fn check(spec: &VirtualServiceSpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    let delegate = spec.hosts.is_empty();
    let mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
    if delegate {
        if !spec.gateways.is_empty() {
            check.error(&at.key("gateways"), "a delegate (a VirtualService without hosts) has no gateways");
        }
        for (field, written) in [("tls", !spec.tls.is_empty()), ("tcp", !spec.tcp.is_empty())] {
            if written {
                check
                    .error(&at.key(field), format!("a delegate (a VirtualService without hosts) has no {field} rules"));
            }
        }
    }
    gateways(&spec.gateways, &meta.namespace, &at.key("gateways"), check);
    hosts(&spec.hosts, mesh, &at.key("hosts"), check);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        check.error(at, "http, tcp or tls must be provided");
    }
    let context = http_route::Context { delegate, gateways_only: !mesh };
    for (index, rule) in spec.http.iter().enumerate() {
        http_route::check(rule, &context, &at.key("http").index(index), check);
    }
    overlap::check(&spec.http, &at.key("http"), check);
    for (index, rule) in spec.tls.iter().enumerate() {
        let at = at.key("tls").index(index);
        if rule.matches.is_empty() {
            check.error(&at.key("match"), "a TLS rule must have at least one match");
        }
        for (index, block) in rule.matches.iter().enumerate() {
            tls_match(block, &spec.hosts, &at.key("match").index(index), check);
        }
        destinations(&rule.route, "TLS", &at.key("route"), check);
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        let at = at.key("tcp").index(index);
        for (index, block) in rule.matches.iter().enumerate() {
            l4_match(block, &at.key("match").index(index), check);
        }
        destinations(&rule.route, "TCP", &at.key("route"), check);
    }
    export_to::check(&spec.export_to, &meta.namespace, false, &at.key("exportTo"), check);
}

/// Gateway names: `mesh`, `name`, `namespace/name`; a host name is the old form.
pub(super) fn gateways(list: &[String], namespace: &str, at: &FieldPath, check: &mut Check<'_>) {
    for (index, gateway) in list.iter().enumerate() {
        let at = at.index(index);
        match gateway.split_once('/') {
            Some((left, right)) => {
                if left != "." && !names::is_dns_label(left) {
                    check.error(&at, format!("invalid namespace `{left}` of gateway `{gateway}`"));
                }
                if right.split('.').any(|label| !names::is_dns_label(label)) {
                    check.error(&at, format!("invalid name `{right}` of gateway `{gateway}`"));
                }
            }
            None => match names::fqdn(gateway) {
                Some(problem) => check.error(&at, problem),
                None if gateway.contains('.') => {
                    let short = gateway.split('.').next().unwrap_or_default();
                    let message =
                        format!("`{gateway}` is the old form of a gateway's name; write `{namespace}/{short}`");
                    check.warning(&at, message);
                }
                None => {}
            },
        }
    }
}

/// A destination's host, subset and port.
pub(super) fn destination(destination: Option<&Destination>, at: &FieldPath, check: &mut Check<'_>) {
    let Some(destination) = destination else {
        check.error(at, "destination is required");
        return;
    };
    let host = destination.host.as_str();
    if host == "*" {
        check.error(&at.key("host"), "invalid destination host `*`");
    } else {
        check.problem(&at.key("host"), names::wildcard(host));
    }
    if let Some(port) = &destination.port {
        ports::number(port.number, &at.key("port").key("number"), check);
    }
}

/// The sum of weights of several destinations, none of them negative.
pub(super) fn weights(weights: &[i32], at: &FieldPath, check: &mut Check<'_>) {
    for (index, weight) in weights.iter().enumerate() {
        if *weight < 0 {
            check.error(&at.index(index).key("weight"), format!("weight {weight} is negative"));
        }
    }
    let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
    if weights.len() > 1 && total == 0 {
        check.error(at, "the total weight of the destinations is 0");
    }
}

fn hosts(hosts: &[String], mesh: bool, at: &FieldPath, check: &mut Check<'_>) {
    let mut all_good = true;
    for (index, host) in hosts.iter().enumerate() {
        if names::is_ip(host) {
            continue;
        }
        if let Some(problem) = names::wildcard(host) {
            check.error(&at.index(index), problem);
            all_good = false;
        } else if mesh && host == "*" {
            check.error(&at.index(index), "host `*` is not allowed for rules of the mesh gateway");
            all_good = false;
        }
    }
    if !all_good {
        return;
    }
    for (index, host) in hosts.iter().enumerate() {
        if let Some(other) = hosts.iter().take(index).find(|other| names::matches_host(other, host)) {
            check.error(&at.index(index), format!("duplicate hosts: `{other}` and `{host}` overlap"));
        }
    }
}

fn destinations(list: &[RouteDestination], what: &str, at: &FieldPath, check: &mut Check<'_>) {
    if list.is_empty() {
        check.error(at, format!("{what} route is required"));
    }
    for (index, entry) in list.iter().enumerate() {
        destination(entry.destination.as_ref(), &at.index(index).key("destination"), check);
    }
    let list: Vec<i32> = list.iter().map(|entry| entry.weight).collect();
    weights(&list, at, check);
}

fn tls_match(block: &TlsMatch, hosts: &[String], at: &FieldPath, check: &mut Check<'_>) {
    if block.sni_hosts.is_empty() {
        check.error(&at.key("sniHosts"), "a TLS match must have at least one SNI host");
    }
    for (index, host) in block.sni_hosts.iter().enumerate() {
        let at = at.key("sniHosts").index(index);
        if names::is_ip(host) {
            check.warning(&at, format!("`{host}` is an IP address; clients do not send those as SNI"));
            continue;
        }
        if let Some(problem) = names::wildcard(host) {
            check.error(&at, problem);
        } else if !hosts.iter().any(|covering| is_subset(host, covering)) {
            check.error(&at, format!("SNI host `{host}` is not a subset of the VirtualService's hosts"));
        }
    }
    subnets(&block.destination_subnets, &at.key("destinationSubnets"), check);
    statics(block.port, &block.source_labels, &block.source_namespace, at, check);
}

fn l4_match(block: &L4Match, at: &FieldPath, check: &mut Check<'_>) {
    subnets(&block.destination_subnets, &at.key("destinationSubnets"), check);
    statics(block.port, &block.source_labels, &block.source_namespace, at, check);
}

/// The filters that depend on configuration only.
pub(super) fn statics(
    port: u32,
    source_labels: &std::collections::BTreeMap<String, String>,
    source_namespace: &str,
    at: &FieldPath,
    check: &mut Check<'_>,
) {
    if port > 65535 {
        ports::number(port, &at.key("port"), check);
    }
    labels::labels(source_labels, &at.key("sourceLabels"), check);
    if !source_namespace.is_empty() && !names::is_dns_label(source_namespace) {
        check.error(&at.key("sourceNamespace"), format!("`{source_namespace}` is not a namespace"));
    }
}

fn subnets(list: &[String], at: &FieldPath, check: &mut Check<'_>) {
    for (index, subnet) in list.iter().enumerate() {
        check.problem(&at.index(index), names::address_or_cidr(subnet));
    }
}

/// Whether every name that `host` stands for is one of `covering`'s.
fn is_subset(host: &str, covering: &str) -> bool {
    match (host.strip_prefix('*'), covering.strip_prefix('*')) {
        (_, Some("")) => true,
        (None, None) => host == covering,
        (None, Some(suffix)) => host.ends_with(suffix),
        (Some(_), None) => false,
        (Some(x), Some(y)) => x.ends_with(y),
    }
}
