//! Listeners of a gateway that Gateway objects select.
//!
//! Source: Istio's documentation and code A server's port is a Service port and is translated to the port the selected workload
//! listens on. On one port plaintext HTTP servers share a connection manager; servers that need the SNI have a chain per
//! host. Invariant: conflicts were settled before (`ResolvedMesh.gateways`), so the first to claim a host keeps it.

use super::east_west;
use super::inbound::policies;
use super::input::{Bind, Chain, ChainMatch, HttpClass, HttpRoutes, HttpServing, ListenerInput};
use super::l4::{self, Context};
use crate::generate::Plan;
use crate::input::Input;
use crate::names::ResourceName;
use crate::routes::{self, GatewayServer};
use crate::scope::Scope;
use fairlead_model::gateway::{GatewayConfig, ServerTls};
use fairlead_model::matching::host_covers;
use fairlead_model::route::{GatewayRef, RouteSet};
use fairlead_model::service::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub fn plan(scope: &Scope<'_>, plan: &mut Plan) {
    plan_servers(scope, plan, &BTreeSet::new());
}

/// Listeners of all servers that select this proxy, but for ports that are `taken`.
pub fn plan_servers(scope: &Scope<'_>, plan: &mut Plan, taken: &BTreeSet<u16>) {
    let mut listeners: BTreeMap<(IpAddr, u16), ListenerInput> = BTreeMap::new();
    let mut plain: BTreeMap<u16, Vec<GatewayServer<'_>>> = BTreeMap::new();
    for server in servers(scope) {
        let port = workload_port(scope, server.server.port);
        if taken.contains(&port) {
            continue;
        }
        let address =
            server.server.bind.as_ref().and_then(|b| b.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listener = listeners.entry((address, port)).or_insert_with(|| {
            let bind = Bind::Socket { address, port };
            let name = ResourceName::Address { address, port };
            let mut listener = ListenerInput::new(name, scope.proxy.client, bind, &scope.mesh.settings);
            (listener.policies, listener.origins) = policies(scope.workload.map(|w| w.as_ref()));
            listener
        });
        listener.origins.push(server.server.origin.clone());
        serve(scope, &server, port, listener, &mut plain, plan);
    }
    for (port, servers) in plain {
        routes::plan_gateway(scope, ResourceName::GatewayRoutes { port }, port, &servers, plan);
    }
    for mut listener in listeners.into_values() {
        listener.inspect_tls |= listener.chains.iter().any(|c| c.when.transport.is_some());
        if !listener.chains.is_empty() {
            plan.inputs.push(Input::Listener(listener));
        }
    }
}

/// Whether a Gateway object makes this proxy an east-west gateway, so that its hosts say what is served.
pub fn is_written_east_west(scope: &Scope<'_>) -> bool {
    servers(scope).iter().any(|s| s.server.tls == Some(ServerTls::AutoPassthrough))
}

fn servers<'a>(scope: &Scope<'a>) -> Vec<GatewayServer<'a>> {
    let root = &scope.mesh.settings.root_namespace;
    let serves = |gateway: &&'a Arc<GatewayConfig>| gateway.serves(scope.namespace(), &scope.proxy.labels, root);
    let of =
        |gateway: &'a Arc<GatewayConfig>| gateway.servers.iter().map(move |server| GatewayServer { gateway, server });
    scope.mesh.gateways.iter().filter(serves).flat_map(of).collect()
}

/// The port on which the workload listens for a Service port.
fn workload_port(scope: &Scope<'_>, service_port: u16) -> u16 {
    let of = |workload: &fairlead_model::mesh::Workload| {
        let targets = workload.ports.iter().find(|(_, services)| services.iter().any(|(_, p)| *p == service_port));
        targets.map(|(port, _)| *port)
    };
    scope.workload.and_then(|w| of(w)).unwrap_or(service_port)
}

fn serve<'a>(
    scope: &Scope<'a>,
    server: &GatewayServer<'a>,
    port: u16,
    listener: &mut ListenerInput,
    plain: &mut BTreeMap<u16, Vec<GatewayServer<'a>>>,
    plan: &mut Plan,
) {
    let is_http = server.server.protocol.is_http() || server.server.protocol == Protocol::Auto;
    match &server.server.tls {
        Some(ServerTls::AutoPassthrough) => {
            let hosts: Vec<String> = server.server.hosts.iter().map(|(_, host)| host.clone()).collect();
            east_west::add_chains(scope, listener, &hosts, plan);
        }
        Some(ServerTls::Passthrough) => {
            for set in bound(scope, server) {
                let context = Context { scope, port: server.server.port, gateway: Some(server.clone()) };
                let chains = l4::tls(&context, set, &prefix(set, "tls"), plan);
                listener.origins.extend(chains.origins);
                add(listener, chains.chains);
            }
        }
        Some(ServerTls::IstioMutual) if is_http || server.server.protocol == Protocol::Https => {
            let gateway = server.gateway;
            let name = ResourceName::GatewayTlsRoutes {
                port,
                server: server_name(server),
                gateway: gateway.name.clone(),
                namespace: gateway.namespace.clone(),
            };
            routes::plan_gateway(scope, name.clone(), port, std::slice::from_ref(server), plan);
            let mut chain = http(name, by_name(server));
            chain.tls = Some(vec!["h2".to_owned(), "http/1.1".to_owned()]);
            add(listener, vec![chain]);
        }
        Some(ServerTls::IstioMutual) => {
            for mut chain in tcp_chains(scope, server, listener, plan) {
                chain.when = ChainMatch { ranges: std::mem::take(&mut chain.when.ranges), ..by_name(server) };
                chain.tls = Some(vec!["istio".to_owned(), "h2".to_owned(), "http/1.1".to_owned()]);
                add(listener, vec![chain]);
            }
        }
        None | Some(ServerTls::HttpsRedirect) if is_http => {
            let servers = plain.entry(port).or_default();
            servers.push(server.clone());
            if servers.len() == 1 {
                add(listener, vec![http(ResourceName::GatewayRoutes { port }, ChainMatch::default())]);
            }
        }
        None | Some(ServerTls::HttpsRedirect) => {
            let chains = tcp_chains(scope, server, listener, plan);
            add(listener, chains);
        }
    }
}

fn http(routes: ResourceName, when: ChainMatch) -> Chain {
    let serving = HttpServing {
        stat_prefix: format!("gateway_{routes}"),
        class: HttpClass::Gateway,
        routes: HttpRoutes::Named(routes.clone()),
    };
    Chain::http(routes.to_string(), when, serving)
}

fn tcp_chains<'a>(
    scope: &Scope<'a>,
    server: &GatewayServer<'a>,
    listener: &mut ListenerInput,
    plan: &mut Plan,
) -> Vec<Chain> {
    let mut found = Vec::new();
    for set in bound(scope, server) {
        let context = Context { scope, port: server.server.port, gateway: Some(server.clone()) };
        let chains = l4::tcp(&context, set, &prefix(set, "tcp"), plan);
        listener.origins.extend(chains.origins);
        found.extend(chains.chains);
    }
    found
}

/// Chains of ordinary servers: the gateway's own policies hold. Of equal conditions the first chain stays.
fn add(listener: &mut ListenerInput, chains: Vec<Chain>) {
    for chain in chains {
        if !listener.chains.iter().any(|c| c.when == chain.when) {
            listener.chains.push(Chain { guarded: true, ..chain });
        }
    }
}

/// Route sets bound to the server's gateway of which some host meets one of the server's.
fn bound<'a>(scope: &Scope<'a>, server: &GatewayServer<'a>) -> Vec<&'a RouteSet> {
    let reference: GatewayRef = server.reference();
    let bound = |set: &&'a Arc<RouteSet>| {
        set.gateways.contains(&reference)
            && set.visibility.allows(&server.gateway.namespace)
            && set.hosts.iter().any(|host| {
                server.server.hosts.iter().any(|(namespace, pattern)| {
                    namespace.as_ref().is_none_or(|n| *n == set.namespace)
                        && (host_covers(pattern, host) || host_covers(host, pattern) || pattern == host)
                })
            })
    };
    scope.mesh.routes.iter().filter(bound).map(|set| set.as_ref()).collect()
}

/// SNI conditions of a server that terminates TLS. A server for every host has none.
fn by_name(server: &GatewayServer<'_>) -> ChainMatch {
    let hosts = &server.server.hosts;
    let all = hosts.iter().any(|(_, host)| host == "*");
    ChainMatch {
        server_names: if all { Vec::new() } else { hosts.iter().map(|(_, host)| host.clone()).collect() },
        transport: Some("tls"),
        ..Default::default()
    }
}

fn prefix(set: &RouteSet, kind: &str) -> String {
    format!("{}/{}-{kind}", set.origin.object.namespace, set.origin.object.name)
}

/// A dot would end the part of the resource's name.
fn server_name(server: &GatewayServer<'_>) -> String {
    let name = &server.server.name;
    if name.is_empty() { format!("port-{}", server.server.port) } else { name.replace('.', "-") }
}
