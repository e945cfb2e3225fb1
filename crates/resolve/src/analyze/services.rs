//! Services: what exists for the viewer, ports that do not say what they speak, audiences that cannot be kept.
//!
//! Never reports a port of a system namespace: their owners know.

use super::codes;
use crate::registry::{ClusterState, Item, Objects};
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::ids::ClusterId;
use fairlead_model::matching::host_covers;
use fairlead_model::mesh::ResolvedMesh;
use fairlead_model::service::{Protocol, Service};
use fairlead_model::settings::{Profile, Trust};
use fairlead_resources::core as kubernetes;
use fairlead_resources::protocol;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SYSTEM_NAMESPACES: [&str; 5] =
    ["kube-system", "kube-public", "kube-node-lease", "istio-system", "fairlead-system"];

/// Services by host.
pub(super) struct Hosts<'a> {
    exact: HashMap<&'a str, Vec<&'a Arc<Service>>>,
    patterns: Vec<&'a Arc<Service>>,
}

impl<'a> Hosts<'a> {
    pub fn new(mesh: &'a ResolvedMesh) -> Self {
        let mut hosts = Self { exact: HashMap::new(), patterns: Vec::new() };
        for service in mesh.services.values() {
            if service.key.host.starts_with('*') {
                hosts.patterns.push(service);
            } else {
                hosts.exact.entry(&service.key.host).or_default().push(service);
            }
        }
        hosts
    }

    /// Services with this host that `namespace` sees, its own first.
    pub fn visible(&self, host: &str, namespace: &str) -> Vec<&'a Arc<Service>> {
        let exact = self.exact.get(host).into_iter().flatten().copied();
        let patterns =
            self.patterns.iter().copied().filter(|one| one.key.host == host || host_covers(&one.key.host, host));
        let mut found: Vec<_> = exact.chain(patterns).filter(|one| one.visibility.allows(namespace)).collect();
        found.sort_by_key(|one| one.key.namespace != namespace);
        found
    }

    /// All services that a host or pattern names.
    pub fn named<'b>(&'b self, pattern: &'b str) -> Vec<&'a Arc<Service>> {
        if !pattern.starts_with('*') {
            let exact = self.exact.get(pattern).into_iter().flatten().copied();
            return exact
                .chain(self.patterns.iter().copied().filter(|one| host_covers(&one.key.host, pattern)))
                .collect();
        }
        let exact =
            self.exact.iter().filter(|(host, _)| host_covers(pattern, host)).flat_map(|(_, list)| list.iter().copied());
        exact.chain(self.patterns.iter().copied().filter(|one| one.key.host == pattern)).collect()
    }
}

/// IST0118, and IST0150 for aliases.
pub(super) fn undeclared_ports(objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for item in &objects.services {
        // Services of waypoints and gateways that a controller made are not the user's to name.
        let managed = item.meta.label("gateway.istio.io/managed").is_some();
        if managed || SYSTEM_NAMESPACES.contains(&item.meta.namespace.as_str()) {
            continue;
        }
        let alias = item.object.spec.service_type == "ExternalName";
        for (at, port) in item.object.spec.ports.iter().enumerate() {
            let spoken = protocol::select(port.app_protocol.as_deref(), &port.name, 0);
            let origin = item.origin(&format!("spec.ports[{at}]"));
            if alias && !spoken.is_http() && !matches!(spoken, Protocol::Https | Protocol::Tls) {
                let message =
                    format!("port {} of an ExternalName Service is not named after HTTP, HTTPS or TLS", port.port);
                diagnostics.push(
                    Diagnostic::warning(codes::EXTERNAL_NAME_PORT, origin, message)
                        .hint("name the port after its protocol"),
                );
            } else if !alias && spoken == Protocol::Auto && !port.protocol.eq_ignore_ascii_case("UDP") {
                let message = format!("port {} ({:?}) does not declare its protocol", port.port, port.name);
                diagnostics.push(
                    Diagnostic::info(codes::UNDECLARED_PORT, origin, message).hint(
                        "begin the port's name with its protocol (`http-`, `grpc-`, `tcp-`), or write appProtocol",
                    ),
                );
            }
        }
    }
}

/// FL0408: fields that Kubernetes' own proxies act on.
pub(super) fn without_effect(objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for item in &objects.services {
        let spec = &item.object.spec;
        let affinity = !spec.session_affinity.is_empty() && spec.session_affinity != "None";
        let local = !spec.internal_traffic_policy.is_empty() && spec.internal_traffic_policy != "Cluster";
        for (field, written) in [("sessionAffinity", affinity), ("internalTrafficPolicy", local)] {
            if written {
                let at = item.origin(&format!("spec.{field}"));
                diagnostics.push(
                    Diagnostic::warning(
                        codes::WITHOUT_EFFECT,
                        at,
                        format!("{field} has no effect on traffic between proxies"),
                    )
                    .hint("use trafficDistribution or a DestinationRule"),
                );
            }
        }
    }
}

/// FL0409 on each of several.
pub(super) fn same_addresses(objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut users: BTreeMap<&str, Vec<&Item<'_, kubernetes::Service>>> = BTreeMap::new();
    for item in &objects.services {
        for address in item.object.virtual_ips() {
            users.entry(address).or_default().push(item);
        }
    }
    for (address, items) in users.iter().filter(|(_, items)| items.len() > 1) {
        let names: Vec<String> =
            items.iter().map(|item| format!("{}/{}", item.meta.namespace, item.meta.name)).collect();
        for item in items {
            let message = format!("{address} is the cluster IP of {}", names.join(" and "));
            diagnostics.push(
                Diagnostic::warning(codes::SAME_ADDRESS, item.origin("spec.clusterIP"), message)
                    .hint("give each its own, or leave clusterIP out"),
            );
        }
    }
}

/// Audiences that name nobody, or that certificates cannot tell.
pub(super) fn export_audiences(state: &ClusterState, diagnostics: &mut Vec<Diagnostic>) {
    let settings = &state.settings;
    for rule in state.services.values().filter_map(|own| own.export.as_ref()) {
        let Some(audience) = &rule.to else { continue };
        let mut at = rule.origin.clone();
        at.path = "metadata.annotations".to_owned();
        if settings.trust == Trust::Shared && settings.profile == Profile::Fairlead {
            let message =
                "with trust: shared a certificate does not tell its cluster, so callees cannot refuse other members";
            diagnostics.push(
                Diagnostic::warning(codes::AUDIENCE_NOT_TOLD, at.clone(), message)
                    .hint("use trust: perCluster where it matters"),
            );
        }
        let known = |cluster: &&ClusterId| !settings.clusters.contains_key(*cluster);
        for cluster in audience.iter().filter(known).filter(|_| settings.clusters.len() > 1) {
            let message = format!("{cluster} is no member of the mesh");
            diagnostics.push(
                Diagnostic::warning(codes::UNKNOWN_MEMBER, at.clone(), message)
                    .hint("name clusters of the mesh in fairlead.dev/export-to"),
            );
        }
    }
}
