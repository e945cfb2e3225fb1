//! Metadata of every kind, and what a mesh demands of Kubernetes' core kinds.
//!
//! Never repeats the API server's own validation beyond what would mislead a mesh.

use std::collections::HashSet;

use super::check::Check;
use super::names;
use crate::core::{EndpointSlice, Service};
use crate::field::FieldPath;
use crate::object::Object;

/// Name and namespace.
pub(super) fn meta(object: &Object, check: &mut Check<'_>) {
    let meta = object.meta();
    let at = FieldPath::root().key("metadata");
    if !is_name(&meta.name) {
        check.error(&at.key("name"), format!("`{}` is not a valid name", meta.name));
    }
    if object.kind().is_namespaced() && !names::is_dns_label(&meta.namespace) {
        check.error(&at.key("namespace"), format!("`{}` is not a valid namespace", meta.namespace));
    }
}

/// A DNS subdomain, whose labels Kubernetes does not limit to 63 characters; a Mesh may have no name.
fn is_name(name: &str) -> bool {
    name.len() <= 253
        && (name.is_empty()
            || name.split('.').all(|part| {
                part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            }))
}

/// A Service: ports unique, numbered and, if several, named.
pub(super) fn service(service: &Service, at: &FieldPath, check: &mut Check<'_>) {
    let mut seen_names = HashSet::new();
    let mut seen_numbers = HashSet::new();
    for (index, port) in service.spec.ports.iter().enumerate() {
        let at = at.key("ports").index(index);
        if port.port == 0 {
            check.error(&at.key("port"), "port must be in the range 1..65535");
        }
        if port.name.is_empty() && service.spec.ports.len() > 1 {
            check.error(&at.key("name"), "ports must be named if there are several");
        } else if !seen_names.insert(port.name.as_str()) {
            check.error(&at.key("name"), format!("port name `{}` is a duplicate", port.name));
        }
        if !seen_numbers.insert((port.port, port.protocol.as_str())) {
            check.error(&at.key("port"), format!("port {} is a duplicate", port.port));
        }
        if !matches!(port.protocol.as_str(), "" | "TCP" | "UDP" | "SCTP") {
            check.error(&at.key("protocol"), format!("`{}` is not TCP, UDP or SCTP", port.protocol));
        }
    }
    for ip in service.virtual_ips() {
        if !names::is_ip(ip) {
            check.error(&at.key("clusterIP"), format!("`{ip}` is not an IP address"));
        }
    }
    if service.spec.service_type == "ExternalName" {
        check.problem(&at.key("externalName"), names::fqdn(&service.spec.external_name));
    }
}

/// An EndpointSlice: addresses that are addresses.
pub(super) fn endpoint_slice(slice: &EndpointSlice, check: &mut Check<'_>) {
    if slice.address_type == "FQDN" {
        return;
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        for (at, address) in endpoint.addresses.iter().enumerate() {
            if !names::is_ip(address) {
                let path = FieldPath::root().key("endpoints").index(index).key("addresses").index(at);
                check.error(&path, format!("`{address}` is not an IP address"));
            }
        }
    }
}
