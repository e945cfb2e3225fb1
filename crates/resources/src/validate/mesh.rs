//! `Mesh`, `Peer` and MeshConfig.

use std::net::SocketAddr;

use fairlead_model::ClusterId;

use super::check::Check;
use super::{durations, names, traffic_policy};
use crate::fairlead::{MeshSpec, Peer, Topology};
use crate::field::FieldPath;
use crate::istio::MeshConfig;

/// Checks a Mesh.
pub(super) fn check(spec: &MeshSpec, at: &FieldPath, check: &mut Check<'_>) {
    if let Some(domain) = &spec.trust_domain {
        trust_domain(domain, &at.key("trustDomain"), check);
    }
    for (name, cluster) in &spec.clusters {
        let at = at.key("clusters").key(name);
        check.problem(&at, ClusterId::problem(name).map(str::to_owned));
        if let Some(text) = &cluster.locality {
            check.problem(&at.key("locality"), locality(text));
        }
        if let Topology::Remote { primary } = &cluster.topology
            && (primary == name || !spec.clusters.contains_key(primary) && ClusterId::problem(primary).is_some())
        {
            check.error(&at.key("topology"), format!("`{primary}` cannot be the primary of `{name}`"));
        }
        let Some(gateway) = &cluster.east_west_gateway else { continue };
        let at = at.key("eastWestGateway");
        for (index, address) in gateway.addresses.iter().enumerate() {
            if !names::is_ip(address) {
                check.error(&at.key("addresses").index(index), format!("`{address}` is not an IP address"));
            }
        }
        if gateway.port == Some(0) {
            check.error(&at.key("port"), "port number 0 must be in the range 1..65535");
        }
    }
    if let Some(config) = &spec.mesh_config {
        check_config(&config.0, &at.key("meshConfig"), check);
    }
}

/// Checks a MeshConfig.
pub(super) fn check_config(config: &MeshConfig, at: &FieldPath, check: &mut Check<'_>) {
    if let Some(domain) = &config.trust_domain {
        trust_domain(domain, &at.key("trustDomain"), check);
    }
    for (index, domain) in config.trust_domain_aliases.iter().enumerate() {
        trust_domain(domain, &at.key("trustDomainAliases").index(index), check);
    }
    if let Some(namespace) = &config.root_namespace
        && !names::is_dns_label(namespace)
    {
        check.error(&at.key("rootNamespace"), format!("`{namespace}` is not a namespace"));
    }
    if let Some(setting) = &config.locality_lb_setting {
        traffic_policy::locality(setting, &at.key("localityLbSetting"), check);
    }
    durations::positive(config.connect_timeout, &at.key("connectTimeout"), check);
    durations::positive_or_off(config.protocol_detection_timeout, &at.key("protocolDetectionTimeout"), check);
    for (index, selector) in config.discovery_selectors.iter().enumerate() {
        for (number, expression) in selector.match_expressions.iter().enumerate() {
            let at = at.key("discoverySelectors").index(index).key("matchExpressions").index(number);
            let needs_values = match expression.operator.as_str() {
                "In" | "NotIn" => true,
                "Exists" | "DoesNotExist" => false,
                other => {
                    check.error(&at.key("operator"), format!("`{other}` is not In, NotIn, Exists or DoesNotExist"));
                    continue;
                }
            };
            if expression.key.is_empty() || needs_values == expression.values.is_empty() {
                check.error(&at, "In and NotIn need values, Exists and DoesNotExist none; all need a key");
            }
        }
    }
}

/// Checks a Peer.
pub(super) fn check_peer(peer: &Peer, at: &FieldPath, check: &mut Check<'_>) {
    let name_at = FieldPath::root().key("metadata").key("name");
    check.problem(&name_at, ClusterId::problem(&peer.metadata.name).map(str::to_owned));
    for (index, address) in peer.spec.addresses.iter().enumerate() {
        let named = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| names::fqdn(host).is_none() && port.parse::<u16>().is_ok_and(|port| port > 0));
        if address.parse::<SocketAddr>().is_err() && !named {
            check.error(&at.key("addresses").index(index), format!("`{address}` is not host:port"));
        }
    }
    if let Some(domain) = &peer.spec.trust_domain {
        trust_domain(domain, &at.key("trustDomain"), check);
    }
    for (index, fingerprint) in peer.spec.root_fingerprints.iter().enumerate() {
        let hex = fingerprint.chars().filter(|c| *c != ':').collect::<String>();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            check.error(&at.key("rootFingerprints").index(index), "a fingerprint is a SHA-256 in hex (64 digits)");
        }
    }
    for (index, namespace) in peer.spec.namespaces.iter().flatten().enumerate() {
        if namespace != "*" && !names::is_dns_label(namespace) {
            check.error(&at.key("namespaces").index(index), format!("`{namespace}` is not a namespace"));
        }
    }
}

/// `region[/zone[/subzone]]`.
pub(super) fn locality(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let good = parts.len() <= 3 && parts.iter().all(|part| !part.is_empty() && !part.contains('*'));
    (!good).then(|| format!("`{text}` is not region/zone/subzone"))
}

/// SPIFFE: lower-case letters, digits, `.`, `-`, `_`.
fn trust_domain(domain: &str, at: &FieldPath, check: &mut Check<'_>) {
    let good = !domain.is_empty()
        && domain.len() <= 255
        && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
    if !good {
        check.error(at, format!("`{domain}` is not a trust domain"));
    }
}
