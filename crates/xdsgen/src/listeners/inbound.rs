//! A sidecar's inbound listener: what its workload serves, to whom, and how callers prove who they are.
//!
//! Sources: PeerAuthentication (Istio's documentation and code), protocol selection. STRICT has mutual-TLS chains only;
//! PERMISSIVE tells mesh callers by ALPN, so that a program's own TLS passes; DISABLE has plaintext only. Invariant: every
//! chain but the loop guard is guarded by the workload's policies; an unknown workload is STRICT.

use super::input::{Bind, Chain, ChainMatch, HttpClass, HttpRoutes, HttpServing, ListenerInput, Serve};
use crate::clusters::{ClusterInput, Upstream};
use crate::generate::Plan;
use crate::input::Input;
use crate::names::ResourceName;
use crate::scope::Scope;
use crate::tls::{MESH_ALPN, MESH_HTTP_ALPN, MESH_TCP_ALPN};
use fairlead_model::mesh::Workload;
use fairlead_model::security::{AuthorizationPolicy, MtlsMode};
use fairlead_model::service::Protocol;
use fairlead_model::{ClientKind, Origin};

/// Where captured inbound connections arrive.
const INBOUND_PORT: u16 = 15006;

pub fn plan(scope: &Scope<'_>, plan: &mut Plan) {
    let mut listener = ListenerInput::new(
        ResourceName::VirtualInbound,
        scope.proxy.client,
        Bind::Captured { port: INBOUND_PORT },
        &scope.mesh.settings,
    );
    listener.inbound = true;
    listener.inspect_tls = true;
    listener.inspect_http = true;
    // A connection to the capture port itself would come back to it for ever.
    let loop_guard = ChainMatch { destination_port: Some(INBOUND_PORT), ..Default::default() };
    listener.chains.push(Chain::tcp("virtualInbound-blackhole", loop_guard, ResourceName::BlackHole));
    let workload = scope.workload.map(|w| w.as_ref());
    let (policies, origins) = policies(workload);
    (listener.policies, listener.origins) = (policies, origins);
    for (port, protocol) in ports(scope, workload) {
        let mode = workload.map_or(MtlsMode::Strict, |w| w.security.mtls_on(port));
        let to = ResourceName::Inbound { port };
        let when = ChainMatch { destination_port: Some(port), ..Default::default() };
        listener.chains.extend(chains(&port.to_string(), &when, mode, protocol, &to));
        // Our own proxy looks for HTTP only where some chain of the port asks for it.
        if protocol != Protocol::Auto && scope.proxy.client == ClientKind::Envoy {
            listener.no_http_inspection.push(port);
        }
        let upstream = Upstream::Program { protocol };
        plan.inputs.push(Input::Cluster(ClusterInput::new(to, scope.proxy.client, upstream, Vec::new())));
    }
    let mode = workload.map_or(MtlsMode::Strict, |w| w.security.mtls);
    let rest = ResourceName::InboundPassthrough;
    listener.chains.extend(chains("virtualInbound-catchall", &ChainMatch::default(), mode, Protocol::Auto, &rest));
    let upstream = Upstream::Program { protocol: Protocol::Auto };
    plan.inputs.push(Input::Cluster(ClusterInput::new(rest, scope.proxy.client, upstream, Vec::new())));
    plan.inputs.push(Input::Listener(listener));
}

/// Policies without what only people read (a moved line must not push a listener), and where all of it came from.
pub fn policies(workload: Option<&Workload>) -> (Vec<AuthorizationPolicy>, Vec<Origin>) {
    let Some(workload) = workload else { return Default::default() };
    let mut origins: Vec<Origin> = workload.security.policies.iter().map(|p| p.origin.clone()).collect();
    origins.extend(workload.security.mtls_origins.iter().cloned());
    origins.extend(workload.origin.iter().cloned());
    let policies = workload.security.policies.iter().map(|policy| {
        let mut policy = policy.clone();
        policy.origin.path = String::new();
        policy.origin.file = "".into();
        policy.origin.line = 0;
        for rule in &mut policy.rules {
            rule.origin = None;
        }
        policy
    });
    (policies.collect(), origins)
}

/// The workload's ports and what is spoken there: of several services the first that declares it. Where some declare HTTP and
/// others bytes, both must pass, each under its own policies: it is told from the first bytes.
fn ports(scope: &Scope<'_>, workload: Option<&Workload>) -> Vec<(u16, Protocol)> {
    let Some(workload) = workload else { return Vec::new() };
    let protocol = |services: &Vec<(fairlead_model::ServiceKey, u16)>| {
        let declared = services.iter().filter_map(|(key, port)| {
            let protocol = scope.mesh.services.get(key)?.port(*port)?.protocol;
            (protocol != Protocol::Auto && protocol != Protocol::Udp).then_some(protocol)
        });
        let declared: Vec<Protocol> = declared.collect();
        match declared.first() {
            Some(first) if declared.iter().all(|p| p.is_http() == first.is_http()) => *first,
            _ => Protocol::Auto,
        }
    };
    workload.ports.iter().map(|(port, services)| (*port, protocol(services))).collect()
}

/// What HTTP over mutual TLS is answered with. Envoy reads HTTP/2 from exactly `h2`.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];
/// What bytes over mutual TLS are answered with, whatever the caller offers.
const TCP_ALPN: [&str; 4] = ["istio", "istio-peer-exchange", "h2", "http/1.1"];

fn chains(name: &str, when: &ChainMatch, mode: MtlsMode, protocol: Protocol, to: &ResourceName) -> Vec<Chain> {
    let http = |suffix: &str, when: ChainMatch| Chain {
        guarded: true,
        ..Chain::http(
            format!("{name}-{suffix}"),
            when,
            HttpServing {
                stat_prefix: to.to_string(),
                class: HttpClass::Inbound,
                routes: HttpRoutes::Program(to.clone()),
            },
        )
    };
    let tcp = |suffix: &str, when: ChainMatch| Chain {
        guarded: true,
        ..Chain::tcp(format!("{name}-{suffix}"), when, to.clone())
    };
    let tls = |alpn: &[&str]| ChainMatch { transport: Some("tls"), alpn: strings(alpn), ..when.clone() };
    let plain = |alpn: &[&str]| ChainMatch { transport: Some("raw_buffer"), alpn: strings(alpn), ..when.clone() };
    let mutual = |mut chain: Chain| {
        let alpn: &[&str] = match chain.serve {
            Serve::Http(_) => &HTTP_ALPN,
            Serve::Tcp(_) => &TCP_ALPN,
        };
        chain.tls = Some(strings(alpn));
        chain
    };
    let sniffed = ["http/1.0", "http/1.1", "h2c"];
    let is_http = protocol.is_http();
    let auto = protocol == Protocol::Auto;
    let mut chains = Vec::new();
    match mode {
        MtlsMode::Strict if is_http => chains.push(mutual(http("mtls", tls(&[])))),
        MtlsMode::Strict if auto => {
            let announced = [&MESH_HTTP_ALPN[..], &HTTP_ALPN[..]].concat();
            chains.push(mutual(http("mtls", tls(&announced))));
            chains.push(mutual(tcp("mtls-tcp", tls(&[]))));
        }
        MtlsMode::Strict => chains.push(mutual(tcp("mtls", tls(&[])))),
        MtlsMode::Permissive if is_http => {
            chains.push(mutual(http("mtls", tls(&MESH_ALPN))));
            chains.push(http("plain", plain(&[])));
        }
        MtlsMode::Permissive if auto => {
            chains.push(mutual(http("mtls", tls(&MESH_HTTP_ALPN))));
            chains.push(mutual(tcp("mtls-tcp", tls(&MESH_TCP_ALPN))));
            chains.push(http("plain", plain(&sniffed)));
            chains.push(tcp("plain-tcp", plain(&[])));
            chains.push(tcp("tls-passthrough", tls(&[])));
        }
        MtlsMode::Permissive => {
            chains.push(mutual(tcp("mtls", tls(&MESH_ALPN))));
            chains.push(tcp("plain", plain(&[])));
            chains.push(tcp("tls-passthrough", tls(&[])));
        }
        MtlsMode::Disable if is_http => chains.push(http("plain", when.clone())),
        MtlsMode::Disable if auto => {
            chains.push(http("plain", ChainMatch { alpn: strings(&sniffed), ..when.clone() }));
            chains.push(tcp("plain-tcp", when.clone()));
        }
        MtlsMode::Disable => chains.push(tcp("plain", when.clone())),
    }
    chains
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&s| s.to_owned()).collect()
}
