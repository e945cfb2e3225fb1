//! `ServiceEntry`: hosts, addresses, ports, and what each resolution needs.

use std::collections::HashSet;

use super::check::Check;
use super::{export_to, labels, names, ports, workload_entry};
use crate::field::FieldPath;
use crate::istio::{Resolution, ServiceEntrySpec, ServiceLocation, WorkloadEntrySpec};
use crate::meta::Meta;

/// Label that makes a waypoint serve the entry.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Label that switches automatic addresses off.
const AUTO_ALLOCATE: &str = "networking.istio.io/enable-autoallocate-ip";

/// Checks a ServiceEntry.
pub(super) fn check(spec: &ServiceEntrySpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    hosts(spec, &at.key("hosts"), check);
    let cidr = addresses(spec, &at.key("addresses"), check);
    if cidr && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
        check.error(&at.key("addresses"), "CIDR addresses are allowed for resolution NONE and STATIC only");
    }
    let names = service_ports(spec, &at.key("ports"), check);
    if let Some(selector) = &spec.workload_selector {
        if !spec.endpoints.is_empty() {
            check.error(at, "only one of workloadSelector and endpoints may be set");
        }
        labels::workload_selector(Some(selector), &at.key("workloadSelector"), check);
        if spec.resolution == Resolution::None && spec.endpoints.is_empty() {
            check.warning(&at.key("workloadSelector"), "workloadSelector has no effect with resolution NONE");
        }
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        endpoint_of(spec, endpoint, &names, &at.key("endpoints").index(index), check);
    }
    match spec.resolution {
        Resolution::None if !spec.endpoints.is_empty() => {
            check.error(&at.key("endpoints"), "resolution NONE must not have endpoints");
        }
        Resolution::None | Resolution::Static => {}
        Resolution::Dns | Resolution::DnsRoundRobin => dns(spec, at, check),
        Resolution::DynamicDns => dynamic_dns(spec, meta, at, check),
    }
    ambiguous_tcp(spec, meta, at, check);
    export_to::check(&spec.export_to, &meta.namespace, true, &at.key("exportTo"), check);
}

fn hosts(spec: &ServiceEntrySpec, at: &FieldPath, check: &mut Check<'_>) {
    if spec.hosts.is_empty() {
        check.error(at, "a service entry must have at least one host");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let at = at.index(index);
        if host == "*" {
            check.error(&at, "invalid host `*`");
        } else if let Some(problem) = names::wildcard(host) {
            check.error(&at, problem);
        } else if names::is_partial_wildcard(host) {
            check.warning(&at, format!("partial wildcard `{host}` matches nothing; write `*.` and a domain"));
        }
    }
}

/// Whether one of the addresses is a range.
fn addresses(spec: &ServiceEntrySpec, at: &FieldPath, check: &mut Check<'_>) -> bool {
    let mut cidr = false;
    for (index, address) in spec.addresses.iter().enumerate() {
        check.problem(&at.index(index), names::address_or_cidr(address));
        cidr |= address.contains('/');
    }
    cidr
}

fn service_ports<'a>(spec: &'a ServiceEntrySpec, at: &FieldPath, check: &mut Check<'_>) -> HashSet<&'a str> {
    let (mut seen_names, mut seen_numbers) = (HashSet::new(), HashSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let at = at.index(index);
        ports::name(&port.name, &at.key("name"), check);
        ports::protocol(&port.protocol, true, &at.key("protocol"), check);
        ports::number(port.number, &at.key("number"), check);
        if port.target_port != 0 {
            ports::number(port.target_port, &at.key("targetPort"), check);
            if spec.resolution == Resolution::None && port.target_port != port.number {
                check.warning(&at.key("targetPort"), "targetPort has no effect with resolution NONE");
            }
        }
        if !seen_names.insert(port.name.as_str()) {
            check.error(&at.key("name"), format!("port name `{}` is already defined", port.name));
        }
        if !seen_numbers.insert(port.number) {
            check.error(&at.key("number"), format!("port number {} cannot be duplicated", port.number));
        }
    }
    seen_names
}

fn endpoint_of(
    spec: &ServiceEntrySpec,
    endpoint: &WorkloadEntrySpec,
    port_names: &HashSet<&str>,
    at: &FieldPath,
    check: &mut Check<'_>,
) {
    for (name, number) in &endpoint.ports {
        let at = at.key("ports").key(name);
        if !port_names.contains(name.as_str()) {
            check.error(&at, format!("endpoint port `{name}` is not defined by the service entry"));
        }
        ports::number(*number, &at, check);
    }
    labels::labels(&endpoint.labels, &at.key("labels"), check);
    let address_at = at.key("address");
    let address = endpoint.address.as_str();
    if address.is_empty() {
        workload_entry::without_address(endpoint, at, check);
        return;
    }
    if let Some(path) = address.strip_prefix("unix://") {
        if spec.resolution != Resolution::Static {
            check.error(&address_at, format!("`{address}` is not a host name or IP address"));
            return;
        }
        if !path.starts_with('/') && !path.starts_with('@') {
            check.error(&address_at, format!("`{path}` is no absolute path to a file"));
        }
        if !endpoint.ports.is_empty() {
            check.error(&at.key("ports"), format!("Unix endpoint `{address}` must not have ports"));
        }
        if spec.ports.len() != 1 {
            check.error(&address_at, "a Unix endpoint needs a service entry with exactly one port");
        }
        return;
    }
    let good = match spec.resolution {
        Resolution::Static => names::is_ip(address),
        _ => names::is_ip(address) || names::fqdn(address).is_none(),
    };
    if !good {
        let what = if spec.resolution == Resolution::Static { "an IP address" } else { "a host name or IP address" };
        check.error(&address_at, format!("endpoint address `{address}` is not {what}"));
    }
}

fn dns(spec: &ServiceEntrySpec, at: &FieldPath, check: &mut Check<'_>) {
    if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        check.error(&at.key("endpoints"), "DNS_ROUND_ROBIN must have at most one endpoint");
    }
    if spec.endpoints.is_empty() && spec.workload_selector.is_none() {
        for (index, host) in spec.hosts.iter().enumerate() {
            if let Some(problem) = names::fqdn(host) {
                let message =
                    format!("without endpoints, {} needs host names without wildcards: {problem}", spec.resolution);
                check.error(&at.key("hosts").index(index), message);
            }
        }
    }
    let tcp = spec.ports.iter().any(|port| !ports::is_http(&port.protocol));
    if spec.hosts.len() > 1 && !spec.addresses.is_empty() && tcp {
        let message = "several hosts with addresses and a port that is not HTTP cannot be told apart";
        check.warning(&at.key("hosts"), message);
    }
}

fn dynamic_dns(spec: &ServiceEntrySpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    if !spec.hosts.iter().any(|host| host.starts_with("*.")) || spec.hosts.iter().any(|host| !host.starts_with('*')) {
        check.error(&at.key("hosts"), "DYNAMIC_DNS needs wildcard hosts");
    }
    if !spec.endpoints.is_empty() {
        check.error(&at.key("endpoints"), "DYNAMIC_DNS must not have endpoints: the host of each request is resolved");
    }
    if !spec.addresses.is_empty() {
        check.error(&at.key("addresses"), "DYNAMIC_DNS must not have addresses: the host of each request is resolved");
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let named = ["http", "http2", "grpc", "tls", "https"].contains(&port.protocol.to_ascii_lowercase().as_str());
        if !named {
            let message = "DYNAMIC_DNS needs ports with protocol HTTP, HTTP2, GRPC or TLS";
            check.error(&at.key("ports").index(index).key("protocol"), message);
        }
    }
    if spec.location == ServiceLocation::MeshInternal && meta.labels.contains_key(USE_WAYPOINT) {
        check.error(&at.key("location"), "MESH_INTERNAL with DYNAMIC_DNS is not supported behind waypoints");
    }
}

/// A TCP port without an address listens on every address of that port.
fn ambiguous_tcp(spec: &ServiceEntrySpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    let allocated = meta.label(AUTO_ALLOCATE).is_none_or(|value| value != "false");
    let wildcard = spec.hosts.iter().all(|host| host.starts_with('*'));
    let gets_address = allocated && !wildcard && spec.resolution != Resolution::None;
    if !spec.addresses.is_empty() || gets_address {
        return;
    }
    for (index, port) in spec.ports.iter().enumerate() {
        if ports::is_tcp_or_unset(&port.protocol) {
            let message =
                "addresses are needed for ports with protocol TCP or none, else the port is taken on every address";
            check.warning(&at.key("ports").index(index), message);
        }
    }
}
