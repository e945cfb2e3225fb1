//! Servers of several Gateways on one workload and port.
//!
//! Never drops an older server for a younger one. Rule (Istio): plaintext HTTP servers on a port merge; TLS servers merge
//! unless a host is already served; anything else on a port that is taken is skipped.

use crate::analyze::codes;
use fairlead_model::WorkloadLabels;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::gateway::{GatewayConfig, GatewayServer, ServerTls};
use std::collections::{BTreeMap, BTreeSet};

/// What shares a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Http,
    Tls,
    Tcp,
}

/// What a port of one workload is used for so far.
#[derive(Debug)]
struct Taken {
    class: Class,
    hosts: BTreeSet<String>,
    by: String,
}

/// Removes younger servers that cannot stand beside older ones on some workload that both are on.
pub(super) fn drop_conflicting(
    configs: &mut [GatewayConfig],
    workloads: &BTreeSet<(&str, &WorkloadLabels)>,
    root_namespace: &str,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut dropped: BTreeMap<(usize, usize), Diagnostic> = BTreeMap::new();
    for (namespace, labels) in workloads {
        let mut ports: BTreeMap<(Option<String>, u16), Taken> = BTreeMap::new();
        for (at, config) in configs.iter().enumerate() {
            if config.selector.is_empty() || !config.serves(namespace, *labels, root_namespace) {
                continue;
            }
            for (number, server) in config.servers.iter().enumerate() {
                if let Some(diagnostic) = take(&mut ports, server) {
                    dropped.entry((at, number)).or_insert(diagnostic);
                }
            }
        }
    }
    for (at, config) in configs.iter_mut().enumerate() {
        let mut number = 0;
        config.servers.retain(|_| {
            let kept = !dropped.contains_key(&(at, number));
            number += 1;
            kept
        });
    }
    diagnostics.extend(dropped.into_values());
}

fn take(ports: &mut BTreeMap<(Option<String>, u16), Taken>, server: &GatewayServer) -> Option<Diagnostic> {
    let class = class(server);
    let hosts: BTreeSet<String> = server.hosts.iter().map(|(_, host)| host.clone()).collect();
    let Some(taken) = ports.get_mut(&(server.bind.clone(), server.port)) else {
        ports.insert((server.bind.clone(), server.port), Taken { class, hosts, by: server.origin.to_string() });
        return None;
    };
    let problem = match (taken.class, class) {
        (Class::Http, Class::Http) => None,
        (Class::Tls, Class::Tls) => {
            taken.hosts.intersection(&hosts).next().map(|host| format!("host {host} on port {} is taken", server.port))
        }
        _ => Some(format!("port {} is taken for another protocol", server.port)),
    };
    match problem {
        None => {
            taken.hosts.extend(hosts);
            None
        }
        Some(problem) => Some(
            Diagnostic::error(
                codes::GATEWAY_CONFLICT,
                server.origin.clone(),
                format!("{problem} by {}; this server is skipped", taken.by),
            )
            .hint("use another port, other hosts, or one Gateway for both"),
        ),
    }
}

fn class(server: &GatewayServer) -> Class {
    match &server.tls {
        None | Some(ServerTls::HttpsRedirect) if server.protocol.is_http() => Class::Http,
        None | Some(ServerTls::HttpsRedirect) => Class::Tcp,
        Some(_) => Class::Tls,
    }
}
