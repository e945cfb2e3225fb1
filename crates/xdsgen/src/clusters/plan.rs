//! Inputs of Envoy clusters and endpoints for every destination that listeners and routes lead to.

use super::input::{Certified, ClusterInput, Destination, Named, Upstream, UpstreamTls};
use crate::endpoints::reach::{Reach, reach};
use crate::endpoints::{Caller, Encryption, EndpointsInput, LocalityRule, Target, locality_rule};
use crate::generate::Plan;
use crate::input::Input;
use crate::names::{ResourceName, SniTarget};
use crate::scope::Scope;
use fairlead_model::matching::{Labels, selects};
use fairlead_model::policy::{Balancing, ClientTls, PolicyBlocks};
use fairlead_model::service::Resolution;
use fairlead_model::settings::Profile;
use fairlead_model::{ClientKind, ClusterId, Endpoint, NetworkId, Origin, ProxyRole, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Profile `fairlead`: a path to another network that does not answer is dead after this long.
const GATEWAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub fn plan(scope: &Scope<'_>, plan: &mut Plan) {
    let mut hops = BTreeSet::new();
    let mut wanted = std::mem::take(&mut plan.wanted);
    let aggregates: Vec<ResourceName> =
        wanted.iter().filter(|name| matches!(name, ResourceName::Siblings { .. })).cloned().collect();
    wanted.extend(aggregates.iter().flat_map(siblings));
    let mut made: BTreeMap<ResourceName, Box<Destination>> = BTreeMap::new();
    for name in wanted {
        if let Some(of) = destination(scope, name.clone(), &mut hops, plan) {
            made.insert(name, of);
        }
    }
    for name in aggregates {
        // What does not exist is left out; the first that does says how to speak.
        let clusters: Vec<ResourceName> = siblings(&name).into_iter().filter(|c| made.contains_key(c)).collect();
        let Some(of) = clusters.first().and_then(|first| made.get(first)).cloned() else { continue };
        let upstream = Upstream::FirstOf { clusters, of };
        plan.inputs.push(Input::Cluster(ClusterInput::new(name, scope.proxy.client, upstream, Vec::new())));
    }
    hops.extend(probed(scope));
    for hop in hops {
        gateway_hop(scope, &hop, plan);
    }
    for (name, upstream) in
        [(ResourceName::Passthrough, Upstream::OriginalDestination), (ResourceName::BlackHole, Upstream::Nobody)]
    {
        let proxied = scope.proxy.client != ClientKind::Grpc;
        if proxied && (scope.proxy.role == ProxyRole::Sidecar || name == ResourceName::BlackHole) {
            plan.inputs.push(Input::Cluster(ClusterInput::new(name, scope.proxy.client, upstream, Vec::new())));
        }
    }
}

/// Clusters and endpoints of these destinations alone.
pub fn destinations<'n>(scope: &Scope<'_>, names: impl Iterator<Item = &'n ResourceName>) -> Vec<Input> {
    let (mut hops, mut plan) = (BTreeSet::new(), Plan::default());
    for name in names {
        destination(scope, name.clone(), &mut hops, &mut plan);
    }
    plan.inputs
}

/// East-west gateways probe those of the other clusters and tell the control plane which answer (staleness contract).
fn probed(scope: &Scope<'_>) -> BTreeSet<(NetworkId, ClusterId)> {
    if scope.proxy.role != ProxyRole::EastWest || scope.proxy.client != ClientKind::Fairlead {
        return BTreeSet::new();
    }
    let others = scope.mesh.members.values().filter(|member| member.cluster != scope.mesh.cluster);
    others.flat_map(|m| m.gateways.iter().map(|g| (g.network.clone(), m.cluster.clone()))).collect()
}

fn siblings(name: &ResourceName) -> Vec<ResourceName> {
    let ResourceName::Siblings { port, subsets, host } = name else { return Vec::new() };
    let subset = |s: &String| (!s.is_empty()).then(|| s.clone());
    subsets.iter().map(|s| ResourceName::Outbound { port: *port, subset: subset(s), host: host.clone() }).collect()
}

/// The caller, reduced to what `rule` looks at.
pub fn caller(scope: &Scope<'_>, rule: &LocalityRule) -> Caller {
    let proxy = scope.proxy;
    let labels = rule.needs_labels().iter().filter_map(|label| {
        let key = label.split('=').next().unwrap_or(label);
        scope.labels.get(key).map(|value| (key.to_owned(), value.clone()))
    });
    Caller {
        client: proxy.client,
        network: proxy.network.clone(),
        cluster: proxy.workload.cluster.clone(),
        locality: if rule.needs_locality() { proxy.locality.clone() } else { Default::default() },
        labels: labels.collect(),
    }
}

fn destination(
    scope: &Scope<'_>,
    name: ResourceName,
    hops: &mut BTreeSet<(NetworkId, ClusterId)>,
    plan: &mut Plan,
) -> Option<Box<Destination>> {
    let (host, port, subset, only) = match &name {
        ResourceName::Outbound { port, subset, host } => (host, *port, subset.as_deref(), None),
        ResourceName::Sni { port, target: SniTarget::Endpoint(id), host } => (host, *port, None, Some(id)),
        _ => return None,
    };
    let service = scope.services.get(host.as_str()).copied()?;
    let service_port = service.port(port)?;
    let policy = scope.policy(service);
    let blocks = policy.and_then(|p| p.blocks(subset, port));
    // A proxyless client has no certificates: better no Envoy cluster than plaintext where a rule says TLS.
    let encrypted = blocks.is_some_and(|b| !matches!(b.tls, None | Some(ClientTls::Disable)));
    if encrypted && scope.proxy.client == ClientKind::Grpc {
        return None;
    }
    let selected: Option<(Labels, Option<Origin>)> = match subset {
        None => None,
        Some(subset) => match policy.and_then(|p| p.subsets.get(subset)) {
            Some(subset) => Some((subset.labels.clone(), subset.origin.clone())),
            // A subset that no rule defines has no Envoy cluster: its requests get 503, as in Istio.
            None => return None,
        },
    };
    let endpoints: Vec<Arc<Endpoint>> = service
        .endpoints
        .iter()
        .filter(|e| !scope.revoked.contains(&e.workload.cluster))
        .filter(|e| e.ports.contains_key(&port))
        .filter(|e| only.is_none_or(|id| e.id == *id))
        .filter(|e| selected.as_ref().is_none_or(|(labels, _)| selects(labels, &e.labels)))
        .cloned()
        .collect();
    let settings = &scope.mesh.settings;
    let rule = locality_rule(settings, blocks, service.traffic_distribution.as_deref(), &scope.proxy.locality);
    let passthrough = service.resolution == Resolution::Passthrough;
    let (tls, encryption) = encryption(scope, service, blocks, passthrough, &endpoints);
    let own_rule = selected.as_ref().and_then(|(_, origin)| origin.clone());
    let own_rule = own_rule.or_else(|| policy.and_then(|p| p.origins.first().cloned()));
    let mut blocks = blocks.cloned().unwrap_or_default();
    if scope.proxy.client == ClientKind::Grpc {
        blocks.balancing = Balancing::RoundRobin;
    }
    let mut origins: Vec<Origin> = own_rule.iter().cloned().collect();
    origins.extend(service.origins.iter().cloned());
    // Stock Envoy takes names only in the Envoy cluster itself, and never beside a gateway's internal address.
    let named = endpoints.iter().any(|e| e.address.is_none() && e.hostname.is_some());
    let mut own_hops = BTreeSet::new();
    for endpoint in endpoints.iter().filter(|_| !named) {
        if let Reach::Gateway { network, cluster } = reach(&scope.proxy.network, endpoint, &scope.hops) {
            own_hops.insert((network, cluster));
        }
    }
    if !passthrough {
        hops.extend(own_hops.iter().cloned());
    }
    let of_these = |clusters: &BTreeSet<ClusterId>| {
        clusters.iter().filter(|c| endpoints.iter().any(|e| e.workload.cluster == **c)).cloned().collect()
    };
    let weighted_localities = rule.is_weighted();
    let failover_when_none = rule.fails_over_when_none();
    let one_address = service.resolution == Resolution::DnsRoundRobin && endpoints.len() == 1;
    let assignment = EndpointsInput {
        target: Target { host: service.key.host.clone(), port, subset: subset.map(str::to_owned) },
        caller: caller(scope, &rule),
        rule,
        encryption,
        hops: own_hops,
        unreachable: of_these(&scope.unreachable),
        draining: of_these(&scope.draining),
        drop_unhealthy: settings.profile == Profile::Istio,
        origins: service.origins.clone(),
        endpoints,
        name: name.clone(),
    };
    let (by_eds, named) = match named {
        true => (None, Some(Named { endpoints: Box::new(assignment), one_address })),
        false => (Some(assignment).filter(|_| !passthrough), None),
    };
    // gRPC knows LOGICAL_DNS only.
    if scope.proxy.client == ClientKind::Grpc && named.as_ref().is_some_and(|named| !named.one_address) {
        return None;
    }
    let made = Box::new(Destination {
        host: service.key.host.clone(),
        service: service.name.clone(),
        namespace: service.key.namespace.clone(),
        external: service.external,
        unjudged: settings.profile == Profile::Istio && !service.external,
        passthrough,
        named,
        protocol: service_port.protocol,
        connect_timeout: settings.connect_timeout,
        balancing: blocks.balancing,
        pool: blocks.pool,
        outlier: blocks.outlier,
        tls,
        weighted_localities,
        failover_when_none,
        rule: own_rule,
        subset: selected.map(|(labels, _)| labels).unwrap_or_default(),
    });
    let upstream = Upstream::Service(made.clone());
    plan.inputs.push(Input::Cluster(ClusterInput::new(name, scope.proxy.client, upstream, origins)));
    plan.inputs.extend(by_eds.map(Input::Endpoints));
    Some(made)
}

fn encryption(
    scope: &Scope<'_>,
    service: &Service,
    blocks: Option<&PolicyBlocks>,
    passthrough: bool,
    endpoints: &[Arc<Endpoint>],
) -> (UpstreamTls, Encryption) {
    // Our own proxy compares with the identity of the very endpoint; stock Envoy has one list for an Envoy cluster.
    let identities = || -> Vec<String> {
        if scope.proxy.client == ClientKind::Fairlead {
            return Vec::new();
        }
        let set: BTreeSet<&str> = endpoints.iter().filter_map(|e| e.identity.as_deref()).collect();
        set.into_iter().map(str::to_owned).collect()
    };
    match blocks.and_then(|b| b.tls.as_ref()) {
        Some(ClientTls::Disable) => (UpstreamTls::Plaintext, Encryption::Never),
        Some(ClientTls::Simple { sni, subject_alt_names, insecure_skip_verify }) => {
            let domain = service.key.host.strip_prefix('*');
            let sni = sni.clone().or_else(|| domain.is_none().then(|| service.key.host.clone())).unwrap_or_default();
            let names = if subject_alt_names.is_empty() { &service.subject_alt_names } else { subject_alt_names };
            let certified = match domain {
                _ if *insecure_skip_verify => Certified::Unverified,
                _ if !names.is_empty() => Certified::As(names.clone()),
                // Envoy does not compare the server name by itself.
                _ if !sni.is_empty() => Certified::As(vec![sni.clone()]),
                Some(domain) if !domain.is_empty() => Certified::Below(domain.to_owned()),
                _ => Certified::Chain,
            };
            (UpstreamTls::Simple { sni, certified }, Encryption::Never)
        }
        Some(ClientTls::IstioMutual { sni, subject_alt_names }) => {
            let identities = if subject_alt_names.is_empty() { identities() } else { subject_alt_names.clone() };
            (UpstreamTls::Mutual { identities }, Encryption::Always { sni: sni.clone() })
        }
        None if !scope.mesh.settings.auto_mtls
            || service.external
            || passthrough
            || scope.proxy.client == ClientKind::Grpc =>
        {
            (UpstreamTls::Plaintext, Encryption::Never)
        }
        None => (UpstreamTls::Automatic { identities: identities() }, Encryption::Automatic),
    }
}

/// The Envoy cluster of a network's gateways and, for stock Envoy, the internal listener that leads to it.
fn gateway_hop(scope: &Scope<'_>, hop: &(NetworkId, ClusterId), plan: &mut Plan) {
    let (network, cluster) = hop;
    let mut addresses: Vec<_> =
        scope.mesh.gateways_into(network, cluster).iter().map(|g| (g.address.ip(), g.address.port())).collect();
    addresses.sort();
    addresses.dedup();
    let settings = &scope.mesh.settings;
    let connect_timeout = match settings.profile {
        Profile::Fairlead => GATEWAY_CONNECT_TIMEOUT.min(settings.connect_timeout),
        Profile::Istio => settings.connect_timeout,
    };
    let name = ResourceName::GatewayHop { network: network.clone(), cluster: cluster.clone() };
    let upstream = Upstream::Gateways { addresses, connect_timeout };
    plan.inputs.push(Input::Cluster(ClusterInput::new(name.clone(), scope.proxy.client, upstream, Vec::new())));
    if scope.proxy.client == ClientKind::Envoy {
        plan.inputs.push(Input::Listener(crate::listeners::gateway_hop(name)));
    }
}
