//! The east-west gateway: mutual TLS between workloads is passed on by its SNI, unopened.
//!
//! Sources: docs/life-of-a-request.md, Istio's documentation and code One chain per exported endpoint (Fairlead's SNI) and per exported
//! service port and subset (Istio's), plus `probe_.<cluster>`, which only answers a handshake. Invariants: what is not
//! exported has no chain, so an unknown SNI is closed before any byte; only endpoints of this cluster are led to, and those of
//! others in this very network whose cluster has no gateway into it, so no request takes two hops; no policy is evaluated here, the callee's proxy does that.

use super::input::{Bind, Chain, ChainMatch, ListenerInput};
use crate::clusters::{ClusterInput, Upstream};
use crate::endpoints::{Caller, Encryption, EndpointsInput, LocalityRule, Target};
use crate::generate::Plan;
use crate::input::Input;
use crate::names::ResourceName;
use crate::scope::Scope;
use crate::tls::MESH_ALPN;
use fairlead_model::matching::{host_covers, selects};
use fairlead_model::settings::Profile;
use fairlead_model::{ClientKind, Endpoint, Health, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Istio's port of east-west gateways.
const EAST_WEST_PORT: u16 = 15443;
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The built-in gateway, and whatever Gateway objects select it for; one that is written as an east-west gateway serves
/// what its servers' hosts say and no more.
pub fn plan(scope: &Scope<'_>, plan: &mut Plan) {
    if super::gateway::is_written_east_west(scope) {
        super::gateway::plan_servers(scope, plan, &BTreeSet::new());
        return;
    }
    let settings = &scope.mesh.settings;
    let port = settings.clusters.get(&scope.mesh.cluster).map_or(0, |c| c.gateway_port);
    let port = if port == 0 { EAST_WEST_PORT } else { port };
    let bind = Bind::Socket { address: ANY, port };
    let name = ResourceName::Address { address: ANY, port };
    let mut listener = ListenerInput::new(name, scope.proxy.client, bind, settings);
    add_chains(scope, &mut listener, &["*".to_owned()], plan);
    plan.inputs.push(Input::Listener(listener));
    super::gateway::plan_servers(scope, plan, &BTreeSet::from([port]));
}

/// Chains for every exported service whose host one of `hosts` covers, and the probe.
pub fn add_chains(scope: &Scope<'_>, listener: &mut ListenerInput, hosts: &[String], plan: &mut Plan) {
    listener.inspect_tls = true;
    // Several servers may share a port: what one serves already the next need not.
    let mut taken: BTreeSet<String> = listener.chains.iter().flat_map(|c| c.when.server_names.clone()).collect();
    let mut chain = |names: Vec<ResourceName>, to: ResourceName, alpn: &[&str], listener: &mut ListenerInput| {
        let names: Vec<String> = names.iter().map(ToString::to_string).filter(|n| taken.insert(n.clone())).collect();
        let Some(first) = names.first() else { return false };
        let when = ChainMatch {
            alpn: alpn.iter().map(|&a| a.to_owned()).collect(),
            transport: Some("tls"),
            ..Default::default()
        };
        let mut chain = Chain::tcp(first.clone(), when, to);
        chain.when.server_names = names;
        listener.chains.push(chain);
        true
    };
    let mut lodgers = BTreeSet::from([scope.mesh.cluster.clone()]);
    let inside = scope.mesh.services.values().filter(|s| !s.external);
    for service in inside.filter(|s| hosts.iter().any(|h| host_covers(h, &s.key.host))) {
        let own = own_endpoints(scope, service);
        let adopted = adopted_endpoints(scope, service);
        lodgers.extend(adopted.iter().map(|e| e.workload.cluster.clone()));
        // What others offer at all is exported.
        let ports: BTreeSet<u16> =
            service.exported.iter().chain(adopted.iter().flat_map(|e| e.ports.keys())).copied().collect();
        if ports.is_empty() {
            continue;
        }
        listener.origins.extend(service.origins.iter().cloned());
        for port in ports {
            let host = &service.key.host;
            let exported = service.exported.contains(&port).then_some(&own);
            let own: Vec<Arc<Endpoint>> = exported.into_iter().flatten().chain(&adopted).cloned().collect();
            for endpoint in own.iter().filter(|e| e.mutual_tls.contains(&port)) {
                let (Some(address), Some(&listens)) = (endpoint.address, endpoint.ports.get(&port)) else { continue };
                let name = ResourceName::endpoint(port, &endpoint.id, host);
                if chain(vec![name.clone()], name.clone(), &[], listener) {
                    let connect_timeout = scope.mesh.settings.connect_timeout;
                    let upstream = Upstream::Behind { address, port: listens, connect_timeout };
                    let origins = service.origins.clone();
                    plan.inputs.push(Input::Cluster(ClusterInput::new(name, scope.proxy.client, upstream, origins)));
                }
            }
            for (subset, endpoints) in subsets(scope, service, &own) {
                let name = ResourceName::sni(port, subset.as_deref(), host);
                if chain(vec![name.clone()], name.clone(), &MESH_ALPN, listener) {
                    many(scope, service, port, subset, endpoints, name, plan);
                }
            }
        }
    }
    // A prober names whom it wants to reach: this cluster, or one that lodges here.
    let names: Vec<String> =
        lodgers.iter().map(|cluster| format!("probe_.{cluster}")).filter(|name| taken.insert(name.clone())).collect();
    let Some(first) = names.first().cloned() else { return };
    let when = ChainMatch { server_names: names, transport: Some("tls"), ..Default::default() };
    let mut probe = Chain::tcp(first, when, ResourceName::BlackHole);
    probe.tls = Some(MESH_ALPN.map(str::to_owned).into());
    listener.chains.push(probe);
}

/// The viewer's own endpoints that this gateway reaches.
fn own_endpoints(scope: &Scope<'_>, service: &Service) -> Vec<Arc<Endpoint>> {
    let own = |e: &&Arc<Endpoint>| e.workload.cluster == scope.mesh.cluster && reached(scope, e);
    service.endpoints.iter().filter(own).cloned().collect()
}

/// Endpoints that others offer, in this gateway's network, whose own cluster has no gateway into it: nobody else leads to them.
fn adopted_endpoints(scope: &Scope<'_>, service: &Service) -> Vec<Arc<Endpoint>> {
    let has_own = |e: &Endpoint| {
        let member = scope.mesh.members.get(&e.workload.cluster);
        member.is_none_or(|m| m.gateways.iter().any(|g| g.network == e.network))
    };
    let adopted = |e: &&Arc<Endpoint>| e.workload.cluster != scope.mesh.cluster && reached(scope, e) && !has_own(e);
    service.endpoints.iter().filter(adopted).cloned().collect()
}

fn reached(scope: &Scope<'_>, endpoint: &Endpoint) -> bool {
    endpoint.address.is_some() && scope.proxy.network.reaches(&endpoint.network)
}

/// The service as a whole and each subset that a rule of this cluster names: the caller's SNI carries the caller's subset,
/// Istio's gateways know their own.
fn subsets(
    scope: &Scope<'_>,
    service: &Service,
    own: &[Arc<Endpoint>],
) -> BTreeMap<Option<String>, Vec<Arc<Endpoint>>> {
    let mut found = BTreeMap::from([(None, own.to_vec())]);
    let in_scope = |namespaces: &Option<BTreeSet<String>>| {
        namespaces.as_ref().is_none_or(|set| set.contains(scope.namespace()) || set.contains(&service.key.namespace))
    };
    for policy in service.policies.iter().filter(|p| in_scope(&p.namespaces) && p.labels.is_empty()) {
        for (name, subset) in &policy.policy.subsets {
            found
                .entry(Some(name.clone()))
                .or_insert_with(|| own.iter().filter(|e| selects(&subset.labels, &e.labels)).cloned().collect());
        }
    }
    found
}

fn many(
    scope: &Scope<'_>,
    service: &Service,
    port: u16,
    subset: Option<String>,
    endpoints: Vec<Arc<Endpoint>>,
    name: ResourceName,
    plan: &mut Plan,
) {
    let settings = &scope.mesh.settings;
    let upstream = Upstream::BehindMany { connect_timeout: settings.connect_timeout };
    let origins = service.origins.clone();
    plan.inputs.push(Input::Cluster(ClusterInput::new(name.clone(), scope.proxy.client, upstream, origins.clone())));
    plan.inputs.push(Input::Endpoints(EndpointsInput {
        name,
        target: Target { host: service.key.host.clone(), port, subset },
        caller: Caller {
            client: ClientKind::Envoy,
            network: scope.proxy.network.clone(),
            cluster: scope.mesh.cluster.clone(),
            locality: Default::default(),
            labels: Default::default(),
        },
        rule: LocalityRule::Even,
        encryption: Encryption::Relay,
        // An unhealthy endpoint has no business behind a gateway that knows better ones.
        drop_unhealthy: settings.profile == Profile::Istio || endpoints.iter().any(|e| e.health == Health::Healthy),
        endpoints,
        hops: BTreeSet::new(),
        unreachable: BTreeSet::new(),
        draining: BTreeSet::new(),
        origins,
    }));
}
