//! Route configurations of a sidecar: one per HTTP port number, one per sniffed service port.

use super::domains::{Domains, aliases};
use super::input::{Fallback, HostInput, RouteEntry, RouteTarget, RoutesInput};
use super::rules::{self, Context};
use crate::generate::Plan;
use crate::input::Input;
use crate::name_table::pod_names;
use crate::names::ResourceName;
use crate::scope::Scope;
use fairlead_model::service::Protocol;
use fairlead_model::settings::OutboundPolicy;
use fairlead_model::{ClientKind, Service};

/// Hosts that are routed but are no service have a place on this port only (Istio).
const UNREGISTERED_PORT: u16 = 80;

/// `<port>`: every HTTP (or undeclared) service with that port number.
pub fn plan_port(scope: &Scope<'_>, port: u16, plan: &mut Plan) {
    let services: Vec<&Service> = scope
        .services
        .values()
        .map(|s| s.as_ref())
        .filter(|s| s.port(port).is_some_and(|p| p.protocol.is_http() || p.protocol == Protocol::Auto))
        .collect();
    let name = ResourceName::PortRoutes { port };
    routes(scope, name, &services, port, plan);
}

/// `<host>:<port>`: one service whose protocol is told from the first bytes.
pub fn plan_host(scope: &Scope<'_>, service: &Service, port: u16, plan: &mut Plan) {
    let name = ResourceName::HostRoutes { host: service.key.host.clone(), port };
    routes(scope, name, &[service], port, plan);
}

fn routes(scope: &Scope<'_>, name: ResourceName, services: &[&Service], port: u16, plan: &mut Plan) {
    let mut domains = Domains::default();
    let mut hosts: Vec<HostInput> = Vec::with_capacity(services.len());
    // Full names first: a short form never takes a name that is somebody's own.
    for service in services {
        let mut host = virtual_host(scope, service, port);
        domains.claim(&mut host, &service.key.host, &[port]);
        hosts.push(host);
    }
    if port == UNREGISTERED_PORT && matches!(name, ResourceName::PortRoutes { .. }) {
        let context = Context { scope, port, gateway: None };
        for (pattern, set) in scope.unregistered_route_hosts() {
            let rules = rules::entries(&context, set);
            let mut host = HostInput { name: format!("{pattern}:{port}"), domains: vec![], to_https: false, rules };
            if !host.rules.is_empty() {
                domains.claim(&mut host, pattern, &[port]);
                hosts.push(host);
            }
        }
    }
    let mut pods = Vec::new();
    for (service, host) in services.iter().zip(hosts.iter_mut()) {
        for alias in aliases(scope, service) {
            domains.claim(host, &alias, &[port]);
        }
        if service.headless {
            pods.extend(pod_hosts(scope, service, port, &mut domains));
        }
    }
    hosts.extend(pods);
    hosts.retain(|host| !host.domains.is_empty());
    let fallback = match scope.mesh.settings.outbound {
        // A proxyless client has nowhere to pass a request through to.
        _ if domains.everything() || scope.proxy.client == ClientKind::Grpc => Fallback::None,
        OutboundPolicy::AllowAny => Fallback::AllowAny,
        OutboundPolicy::RegistryOnly => Fallback::BlockAll,
    };
    want(&hosts, plan);
    plan.inputs.push(Input::Routes(RoutesInput { name, client: scope.proxy.client, hosts, fallback }));
}

/// Notes the Envoy clusters that routes lead to.
pub fn want(hosts: &[HostInput], plan: &mut Plan) {
    for rule in hosts.iter().flat_map(|h| &h.rules) {
        if let RouteTarget::Clusters { to, .. } = &rule.target {
            plan.wanted.extend(to.iter().map(|to| to.cluster.clone()));
        }
    }
}

fn virtual_host(scope: &Scope<'_>, service: &Service, port: u16) -> HostInput {
    let host = &service.key.host;
    let mut rules: Vec<RouteEntry> = match scope.sidecar_routes(host) {
        Some(set) => rules::entries(&Context { scope, port, gateway: None }, set),
        None => Vec::new(),
    };
    // No rule speaks about HTTP here (or to this caller): the service itself.
    if rules.is_empty() {
        rules.push(rules::service_entry(scope, service, ResourceName::outbound(port, None, host)));
    }
    HostInput { name: format!("{host}:{port}"), domains: Vec::new(), to_https: false, rules }
}

/// Pods of a headless service by name: each leads to that pod and nobody else.
fn pod_hosts(scope: &Scope<'_>, service: &Service, port: u16, domains: &mut Domains) -> Vec<HostInput> {
    let mut hosts = Vec::new();
    for (pod, endpoint) in pod_names(scope, service) {
        let to = ResourceName::endpoint(port, &endpoint.id, &service.key.host);
        let rules = vec![rules::service_entry(scope, service, to)];
        let name = format!("{pod}.{}", service.key.host);
        let mut host = HostInput { name: format!("{name}:{port}"), domains: vec![], to_https: false, rules };
        domains.claim(&mut host, &name, &[port]);
        for alias in aliases(scope, service) {
            domains.claim(&mut host, &format!("{pod}.{alias}"), &[port]);
        }
        hosts.push(host);
    }
    hosts
}
