//! A sidecar's outbound listeners.
//!
//! A captured connection is served by the listener of its original destination `<ip>_<port>`, else by `0.0.0.0_<port>`, else
//! by `virtualOutbound`. HTTP services share one listener per port number; bytes are told apart by virtual IP. Invariant: a
//! destination that no listener knows is passed through or refused, by `outboundTrafficPolicy`, never guessed.

use super::input::{Bind, Chain, ChainMatch, ListenerInput};
use super::l4::{self, Context};
use crate::generate::Plan;
use crate::input::Input;
use crate::name_table::pod_addresses;
use crate::names::ResourceName;
use crate::scope::Scope;
use fairlead_model::service::{Protocol, Resolution, ServicePort};
use fairlead_model::settings::OutboundPolicy;
use fairlead_model::{Origin, Service};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Where captured outbound connections arrive.
const OUTBOUND_PORT: u16 = 15001;
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

pub fn plan(scope: &Scope<'_>, plan: &mut Plan) {
    let settings = &scope.mesh.settings;
    let mut ports: BTreeMap<u16, SharedPort> = BTreeMap::new();
    let mut addresses: BTreeMap<(IpAddr, u16), ListenerInput> = BTreeMap::new();
    let mut sniffed: Vec<(&Service, u16)> = Vec::new();
    for service in scope.services.values() {
        for port in &service.ports {
            if port.protocol == Protocol::Udp {
                continue;
            }
            plan.wanted.insert(ResourceName::outbound(port.number, None, &service.key.host));
            if service.headless && service.resolution == Resolution::Endpoints && !port.protocol.is_http() {
                headless(scope, service, port, &mut addresses, plan);
            }
            let shared = ports.entry(port.number).or_default();
            if port.protocol.is_http() {
                shared.http = true;
                shared.origins.extend(service.origins.iter().cloned());
                continue;
            }
            let auto = port.protocol == Protocol::Auto;
            if auto {
                shared.sniff = true;
            }
            for vip in &service.vips {
                addresses
                    .entry((*vip, port.number))
                    .or_insert_with(|| address_listener(scope, service, port, *vip, plan));
            }
            if auto && !service.vips.is_empty() {
                sniffed.push((service.as_ref(), port.number));
            }
            if service.vips.is_empty() && !service.headless {
                shared_chains(scope, service, port, shared, plan);
            }
        }
    }
    ports.retain(|_, shared| shared.is_used());
    for (port, shared) in ports {
        if shared.http || shared.sniff {
            crate::routes::plan_port(scope, port, plan);
        }
        plan.inputs.push(Input::Listener(shared.listener(scope, port)));
    }
    for (service, port) in sniffed {
        crate::routes::plan_host(scope, service, port, plan);
    }
    plan.inputs.extend(addresses.into_values().map(Input::Listener));

    let mut listener = ListenerInput::new(
        ResourceName::VirtualOutbound,
        scope.proxy.client,
        Bind::Captured { port: OUTBOUND_PORT },
        settings,
    );
    listener.chains = vec![Chain::tcp("virtualOutbound-catchall-tcp", ChainMatch::default(), unknown(scope))];
    plan.inputs.push(Input::Listener(listener));
}

/// Where a destination goes that nothing knows.
pub fn unknown(scope: &Scope<'_>) -> ResourceName {
    match scope.mesh.settings.outbound {
        OutboundPolicy::AllowAny => ResourceName::Passthrough,
        OutboundPolicy::RegistryOnly => ResourceName::BlackHole,
    }
}

/// What shares `0.0.0.0_<port>`.
#[derive(Default)]
struct SharedPort {
    http: bool,
    sniff: bool,
    chains: Vec<Chain>,
    /// The one service of bytes without addresses that may have the port.
    bytes: Option<Chain>,
    origins: Vec<Origin>,
}

impl SharedPort {
    fn is_used(&self) -> bool {
        self.http || self.sniff || self.bytes.is_some() || !self.chains.is_empty()
    }

    fn listener(self, scope: &Scope<'_>, port: u16) -> ListenerInput {
        let name = ResourceName::Address { address: ANY, port };
        let bind = Bind::Virtual { address: ANY, port };
        let mut listener = ListenerInput::new(name, scope.proxy.client, bind, &scope.mesh.settings);
        listener.chains = self.chains;
        listener.origins = self.origins;
        let routes = ResourceName::PortRoutes { port };
        let rest = || Chain::tcp("passthrough", ChainMatch::default(), unknown(scope));
        if self.sniff || (self.http && self.bytes.is_some()) {
            listener.inspect_tls = true;
            listener.inspect_http = true;
            listener.chains.push(Chain::outbound_http("http", ChainMatch::http(), routes));
            listener.default = Some(self.bytes.unwrap_or_else(rest));
        } else if self.http {
            listener.chains.push(Chain::outbound_http("http", ChainMatch::default(), routes));
        } else {
            listener.default = Some(self.bytes.unwrap_or_else(rest));
        }
        listener.inspect_tls |= listener.chains.iter().any(|c| c.when.transport.is_some());
        listener
    }
}

/// A service without a virtual IP: by address range or by SNI where it has those, else the whole port.
fn shared_chains(scope: &Scope<'_>, service: &Service, port: &ServicePort, shared: &mut SharedPort, plan: &mut Plan) {
    let host = &service.key.host;
    let to = ResourceName::outbound(port.number, None, host);
    shared.origins.extend(service.origins.iter().cloned());
    let mut own = rule_chains(scope, service, port, plan);
    let complete = own.last().is_some_and(|c| c.when.is_any());
    if !complete {
        own.push(l4::direct(scope, host.clone(), ChainMatch::default(), to, plan));
    }
    let tls = matches!(port.protocol, Protocol::Tls | Protocol::Https);
    for mut chain in own {
        if chain.when.is_any() && service.cidrs.is_empty() && !tls {
            shared.bytes.get_or_insert(chain);
            continue;
        }
        if chain.when.ranges.is_empty() {
            chain.when.ranges = service.cidrs.clone();
        }
        if tls && chain.when.server_names.is_empty() && service.cidrs.is_empty() {
            chain.when.server_names = vec![host.clone()];
            chain.when.transport = Some("tls");
        }
        if !shared.chains.iter().any(|c| c.when == chain.when) {
            shared.chains.push(chain);
        }
    }
}

fn address_listener(
    scope: &Scope<'_>,
    service: &Service,
    port: &ServicePort,
    vip: IpAddr,
    plan: &mut Plan,
) -> ListenerInput {
    let name = ResourceName::Address { address: vip, port: port.number };
    let bind = Bind::Virtual { address: vip, port: port.number };
    let mut listener = ListenerInput::new(name, scope.proxy.client, bind, &scope.mesh.settings);
    listener.origins = service.origins.clone();
    let host = &service.key.host;
    let mut chains = rule_chains(scope, service, port, plan);
    if let Some(set) = scope.sidecar_routes(host).filter(|_| !chains.is_empty()) {
        listener.origins.insert(0, set.origin.clone());
    }
    if !chains.last().is_some_and(|c| c.when.is_any()) {
        let to = ResourceName::outbound(port.number, None, host);
        chains.push(l4::direct(scope, "direct", ChainMatch::default(), to, plan));
    }
    if port.protocol == Protocol::Auto {
        let routes = ResourceName::HostRoutes { host: host.clone(), port: port.number };
        listener.default = chains.pop();
        chains.push(Chain::outbound_http("http", ChainMatch::http(), routes));
        listener.inspect_http = true;
        listener.inspect_tls = true;
    }
    listener.inspect_tls |= chains.iter().any(|c| c.when.transport.is_some());
    listener.chains = chains;
    listener
}

/// Chains of the VirtualService that has this host, the last without a condition if the rules leave nothing over.
fn rule_chains(scope: &Scope<'_>, service: &Service, port: &ServicePort, plan: &mut Plan) -> Vec<Chain> {
    let Some(set) = scope.sidecar_routes(&service.key.host) else { return Vec::new() };
    let context = Context { scope, port: port.number, gateway: None };
    match port.protocol {
        Protocol::Tls | Protocol::Https => {
            let tls = l4::tls(&context, set, "tls", plan);
            if !tls.chains.is_empty() {
                return tls.chains;
            }
            // Rules of the other kind do not apply to TLS (Istio).
            Vec::new()
        }
        _ => l4::tcp(&context, set, "tcp", plan).chains,
    }
}

/// Bytes of a headless service: one listener per endpoint, leading to it and nobody else.
fn headless(
    scope: &Scope<'_>,
    service: &Service,
    port: &ServicePort,
    addresses: &mut BTreeMap<(IpAddr, u16), ListenerInput>,
    plan: &mut Plan,
) {
    for (endpoint, address) in pod_addresses(scope, service) {
        let Some(&listens) = endpoint.ports.get(&port.number) else { continue };
        // A program dials the service's port or, knowing the pod, the pod's.
        for number in [port.number, listens] {
            let name = ResourceName::Address { address, port: number };
            let bind = Bind::Virtual { address, port: number };
            let to = ResourceName::endpoint(port.number, &endpoint.id, &service.key.host);
            let mut listener = ListenerInput::new(name, scope.proxy.client, bind, &scope.mesh.settings);
            listener.origins = service.origins.clone();
            listener.chains = vec![l4::direct(scope, "direct", ChainMatch::default(), to, plan)];
            addresses.entry((address, number)).or_insert(listener);
        }
    }
}
