//! Route configurations of a gateway's HTTP servers.
//!
//! Source: Istio's documentation and code: rules of several VirtualServices for one host are concatenated, oldest first,
//! those that take everything moved to the end; a host nobody routes is answered 404.

use super::domains::Domains;
use super::input::{Fallback, HostInput, RouteEntry, RoutesInput};
use super::rules::{self, Context};
use super::sidecar::want;
use crate::generate::Plan;
use crate::input::Input;
use crate::names::ResourceName;
use crate::scope::Scope;
use fairlead_model::gateway::{GatewayConfig, GatewayServer as Server, ServerTls};
use fairlead_model::matching::host_covers;
use fairlead_model::route::GatewayRef;
use std::collections::BTreeMap;

/// One server with the Gateway it is written in.
#[derive(Clone)]
pub struct GatewayServer<'a> {
    pub gateway: &'a GatewayConfig,
    pub server: &'a Server,
}

impl GatewayServer<'_> {
    /// How route sets name the gateway.
    pub fn reference(&self) -> GatewayRef {
        GatewayRef::Gateway { namespace: self.gateway.namespace.clone(), name: self.gateway.name.clone() }
    }
}

/// One route configuration for servers that share a connection manager on `port` of the workload.
pub fn plan_gateway(scope: &Scope<'_>, name: ResourceName, port: u16, servers: &[GatewayServer<'_>], plan: &mut Plan) {
    let mut hosts: BTreeMap<String, (Vec<RouteEntry>, Vec<u16>)> = BTreeMap::new();
    let mut redirected: Vec<(String, u16)> = Vec::new();
    for server in servers {
        let context = Context { scope, port: server.server.port, gateway: Some(server.reference()) };
        if server.server.tls == Some(ServerTls::HttpsRedirect) {
            redirected.extend(server.server.hosts.iter().map(|(_, host)| (host.clone(), server.server.port)));
        }
        for set in &scope.mesh.routes {
            let bound = set.gateways.contains(&server.reference()) && set.visibility.allows(&server.gateway.namespace);
            if !bound {
                continue;
            }
            for host in set.hosts.iter().filter_map(|host| common_host(server.server, &set.namespace, host)) {
                let (rules, ports) = hosts.entry(host).or_default();
                rules.extend(rules::entries(&context, set));
                ports.push(server.server.port);
            }
        }
    }
    let mut domains = Domains::default();
    let mut inputs: Vec<HostInput> = Vec::new();
    let claim = |host: String, rules: Vec<RouteEntry>, mut ports: Vec<u16>, tls: bool, domains: &mut Domains| {
        ports.push(port);
        ports.sort_unstable();
        ports.dedup();
        let mut input = HostInput { name: format!("{host}:{port}"), domains: vec![], to_https: tls, rules };
        domains.claim(&mut input, &host, &ports);
        (!input.domains.is_empty()).then_some(input)
    };
    for (host, (mut rules, ports)) in hosts {
        // Stable: the oldest of those that take everything wins, the others are never reached.
        rules.sort_by_key(|r| rules::takes_everything(&r.when));
        rules.truncate(rules.iter().position(|r| rules::takes_everything(&r.when)).map_or(rules.len(), |i| i + 1));
        let tls = redirected.iter().any(|(pattern, _)| host_covers(pattern, &host) || *pattern == host);
        inputs.extend(claim(host, rules, ports, tls, &mut domains));
    }
    for (host, server_port) in redirected {
        inputs.extend(claim(host, Vec::new(), vec![server_port], true, &mut domains));
    }
    let fallback = if domains.everything() { Fallback::None } else { Fallback::NotFound };
    want(&inputs, plan);
    plan.inputs.push(Input::Routes(RoutesInput { name, client: scope.proxy.client, hosts: inputs, fallback }));
}

/// What a server's hosts and a route set's host have in common: the narrower of the two.
fn common_host(server: &Server, namespace: &str, host: &str) -> Option<String> {
    let allowed = server.hosts.iter().filter(|(from, _)| from.as_ref().is_none_or(|n| n == namespace));
    let common = allowed.filter_map(|(_, pattern)| {
        if pattern == host || host_covers(pattern, host) {
            Some(host.to_owned())
        } else if host_covers(host, pattern) {
            Some(pattern.clone())
        } else {
            None
        }
    });
    common.into_iter().next()
}
