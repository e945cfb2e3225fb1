//! Gateways: do they select anything, do they conflict, do Services have their ports?
//!
//! Never reports an ordinary second Gateway on other hosts or ports.

use super::codes;
use crate::registry::{ClusterState, Item, Objects};
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::matching::{Labels, selects};
use fairlead_resources::istio::{Gateway, Server};
use std::collections::{BTreeMap, BTreeSet};

/// IST0101 for selectors, IST0162 for ports.
pub(super) fn selectors(state: &ClusterState, objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for item in objects.gateways.iter().filter(|item| !item.object.spec.selector.is_empty()) {
        let selector = &item.object.spec.selector;
        let selected: Vec<_> =
            state.workloads.values().filter(|workload| selects(selector, &workload.labels)).collect();
        if selected.is_empty() {
            let message = format!("no workload carries {}", shown(selector));
            diagnostics.push(
                Diagnostic::error(codes::NOT_FOUND, item.origin("spec.selector"), message)
                    .hint("correct the labels, or start the gateway workload"),
            );
            continue;
        }
        // A Gateway's port is the Service's; Istio also takes the workload's.
        let ports: BTreeSet<u16> = selected
            .iter()
            .flat_map(|workload| &workload.ports)
            .flat_map(|(port, served)| served.iter().map(|(_, number)| *number).chain([*port]))
            .collect();
        for (at, server) in item.object.spec.servers.iter().enumerate() {
            let Some(number) = number(server).filter(|number| !ports.is_empty() && !ports.contains(number)) else {
                continue;
            };
            let message = format!("port {number} is on no Service of the workloads that carry {}", shown(selector));
            diagnostics.push(
                Diagnostic::warning(codes::GATEWAY_PORT, item.origin(&format!("spec.servers[{at}].port")), message)
                    .hint("add the port to the Service"),
            );
        }
    }
}

/// IST0145 on each of several.
pub(super) fn conflicts(objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for item in &objects.gateways {
        let mut found: BTreeMap<(u16, String), BTreeSet<String>> = BTreeMap::new();
        for other in objects.gateways.iter().filter(|other| !is_same(item, other) && share_workloads(item, other)) {
            for (port, host) in claims(item).intersection(&claims(other)) {
                found
                    .entry((*port, host.clone()))
                    .or_default()
                    .insert(format!("{}/{}", other.meta.namespace, other.meta.name));
            }
        }
        if let Some(((port, host), others)) = found.first_key_value() {
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            let message =
                format!("port {port} and host {host} are also in Gateway {}, on the same workloads", others.join(", "));
            diagnostics.push(
                Diagnostic::error(codes::GATEWAY_CONFLICT, item.origin("spec.servers"), message)
                    .hint("use one Gateway, or other hosts or ports"),
            );
        }
    }
}

/// IST0138 on each whose certificate another Gateway of its workloads uses, too.
pub(super) fn certificates(objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut users: BTreeMap<String, Vec<&Item<'_, Gateway>>> = BTreeMap::new();
    for item in &objects.gateways {
        let certificates: BTreeSet<String> = item.object.spec.servers.iter().filter_map(certificate).collect();
        for certificate in certificates {
            users.entry(certificate).or_default().push(item);
        }
    }
    for (certificate, items) in &users {
        for item in items {
            let others: Vec<String> = items
                .iter()
                .filter(|other| {
                    !is_same(item, other) && selects(&item.object.spec.selector, &other.object.spec.selector)
                })
                .map(|other| format!("{}/{}", other.meta.namespace, other.meta.name))
                .collect();
            if !others.is_empty() {
                let message = format!("certificate {certificate} is also used by Gateway {}", others.join(", "));
                diagnostics.push(
                    Diagnostic::warning(codes::SAME_CERTIFICATE, item.origin("spec.servers"), message)
                        .hint("use one Gateway, or a certificate each"),
                );
            }
        }
    }
}

fn certificate(server: &Server) -> Option<String> {
    let tls = server.tls.as_ref()?;
    [&tls.credential_name, &tls.server_certificate].into_iter().find(|name| !name.is_empty()).cloned()
}

fn claims(item: &Item<'_, Gateway>) -> BTreeSet<(u16, String)> {
    let servers = item.object.spec.servers.iter().filter_map(|server| Some((number(server)?, &server.hosts)));
    servers.flat_map(|(port, hosts)| hosts.iter().map(move |host| (port, host.clone()))).collect()
}

fn number(server: &Server) -> Option<u16> {
    u16::try_from(server.port.as_ref()?.number).ok().filter(|number| *number > 0)
}

fn is_same(one: &Item<'_, Gateway>, other: &Item<'_, Gateway>) -> bool {
    (&one.meta.namespace, &one.meta.name) == (&other.meta.namespace, &other.meta.name)
}

/// One selector is within the other.
fn share_workloads(one: &Item<'_, Gateway>, other: &Item<'_, Gateway>) -> bool {
    let (one, other) = (&one.object.spec.selector, &other.object.spec.selector);
    selects(one, other) || selects(other, one)
}

fn shown(selector: &Labels) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
