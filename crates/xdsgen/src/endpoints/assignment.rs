//! The generator of endpoint resources: a function of [`EndpointsInput`] alone.

use super::input::{Encryption, EndpointsInput};
use super::locality::LocalityRule;
use super::priority::rank;
use super::reach::{Reach, reach};
use super::weights::distribute;
use crate::metadata::{self, fields, text};
use crate::names::ResourceName;
use crate::wire::{named_address, socket_address, u32_value};
use fairlead_model::ids::Locality;
use fairlead_model::{ClientKind, Endpoint, Health};
use fairlead_proto::envoy::{core, endpoint as ee};
use std::collections::{BTreeMap, BTreeSet};

/// Makes a priority whole while one of its endpoints is healthy (`distribute` with `failover`, stock Envoy only: our own
/// proxy reads `failover_when_none`). Percent.
const ONE_IS_ENOUGH: u32 = 100_000;

pub fn load_assignment(input: &EndpointsInput) -> ee::ClusterLoadAssignment {
    let placed = place(input);
    let ranks: BTreeSet<u32> = placed.iter().map(|p| p.rank).collect();
    let priorities: BTreeMap<u32, u32> = ranks.into_iter().zip(0..).collect();
    let weights = first_weights(input, &placed);
    let divisor = divisor(placed.iter().map(|p| p.endpoint.weight));
    // "Takes no new requests unless nothing else can serve": where all drain, none does.
    let all_drain = !placed.iter().any(|p| p.health == Health::Healthy);
    let mut groups: BTreeMap<(u32, &Locality), Vec<ee::LbEndpoint>> = BTreeMap::new();
    for p in &placed {
        let priority = priorities.get(&p.rank).copied().unwrap_or_default();
        let host = lb_endpoint(input, p, all_drain, divisor);
        groups.entry((priority, &p.endpoint.locality)).or_default().push(host);
    }
    let endpoints = groups.into_iter().map(|((priority, locality), lb_endpoints)| {
        let weight = weights.as_ref().and_then(|w| {
            // Later priorities are weighted by their endpoints: Envoy gives nothing to a locality without a weight.
            if priority == 0 { w.get(locality).copied() } else { Some(total_weight(&lb_endpoints)) }
        });
        // gRPC leaves out localities without a weight.
        let weight = match input.caller.client {
            ClientKind::Grpc => weight.or_else(|| Some(total_weight(&lb_endpoints))),
            ClientKind::Fairlead | ClientKind::Envoy => weight,
        };
        ee::LocalityLbEndpoints {
            locality: (*locality != Locality::default()).then(|| core::Locality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                sub_zone: locality.subzone.clone(),
            }),
            load_balancing_weight: weight.and_then(u32_value),
            lb_endpoints,
            priority,
            ..Default::default()
        }
    });
    let lenient = input.caller.client != ClientKind::Fairlead && input.rule.fails_over_when_none();
    ee::ClusterLoadAssignment {
        cluster_name: input.name.to_string(),
        endpoints: endpoints.collect(),
        policy: lenient.then(|| ee::cluster_load_assignment::Policy {
            overprovisioning_factor: u32_value(ONE_IS_ENOUGH),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// An endpoint that stays in the resource.
struct Placed<'a> {
    endpoint: &'a Endpoint,
    reach: Reach,
    /// The port the workload listens on.
    port: u16,
    /// Mutual TLS is spoken to it.
    mutual: bool,
    health: Health,
    rank: u32,
}

fn place(input: &EndpointsInput) -> Vec<Placed<'_>> {
    let mut placed: Vec<Placed<'_>> = Vec::with_capacity(input.endpoints.len());
    for endpoint in &input.endpoints {
        let Some(&port) = endpoint.ports.get(&input.target.port) else { continue };
        let accepts = endpoint.mutual_tls.contains(&input.target.port);
        let mutual = match &input.encryption {
            Encryption::Automatic => accepts,
            Encryption::Always { .. } => true,
            Encryption::Never => false,
            Encryption::Relay if accepts => false,
            Encryption::Relay => continue,
        };
        let reach = reach(&input.caller.network, endpoint, &input.hops);
        match &reach {
            Reach::No => continue,
            // A gateway routes by the SNI of mutual TLS; plaintext has none.
            Reach::Gateway { .. } if !(mutual && accepts) => continue,
            Reach::Gateway { .. } | Reach::Direct(_) | Reach::Named(_) => {}
        }
        let health = health(input, endpoint);
        if health == Health::Unhealthy && input.drop_unhealthy {
            continue;
        }
        let rank = rank(&input.rule, &input.caller, endpoint);
        placed.push(Placed { endpoint, reach, port, mutual, health, rank });
    }
    if let LocalityRule::Distribute { to, failover, .. } = &input.rule {
        let listed = |locality: &Locality| {
            to.iter().any(|(pattern, weight)| *weight > 0 && super::locality::pattern_covers(pattern, locality))
        };
        match failover {
            None => placed.retain(|p| listed(&p.endpoint.locality)),
            Some(rule) => {
                for p in placed.iter_mut().filter(|p| !listed(&p.endpoint.locality)) {
                    p.rank = 1 + rank(rule, &input.caller, p.endpoint);
                }
            }
        }
    }
    placed
}

fn health(input: &EndpointsInput, endpoint: &Endpoint) -> Health {
    let cluster = &endpoint.workload.cluster;
    if endpoint.health == Health::Unhealthy || input.unreachable.contains(cluster) {
        Health::Unhealthy
    } else if endpoint.health == Health::Draining || input.draining.contains(cluster) {
        Health::Draining
    } else {
        Health::Healthy
    }
}

/// Locality weights of the first priority, if the rule has any.
fn first_weights(input: &EndpointsInput, placed: &[Placed<'_>]) -> Option<BTreeMap<Locality, u32>> {
    let LocalityRule::Distribute { to, exact, .. } = &input.rule else { return None };
    let mut present: BTreeMap<Locality, u64> = BTreeMap::new();
    for p in placed.iter().filter(|p| p.rank == 0) {
        *present.entry((*p.endpoint.locality).clone()).or_default() += u64::from(p.endpoint.weight.max(1));
    }
    Some(distribute(to, &present, *exact))
}

fn total_weight(hosts: &[ee::LbEndpoint]) -> u32 {
    hosts.iter().map(|h| h.load_balancing_weight.as_ref().map_or(1, |w| w.value)).fold(0, u32::saturating_add)
}

/// What all weights are divided by, so that they sum to less than 2^32: Envoy refuses the resource otherwise.
fn divisor(weights: impl Iterator<Item = u32>) -> u32 {
    let sum: u64 = weights.map(|weight| u64::from(weight.max(1))).sum();
    u32::try_from(sum.div_ceil(u64::from(u32::MAX / 2))).unwrap_or(u32::MAX).max(1)
}

fn lb_endpoint(input: &EndpointsInput, p: &Placed<'_>, all_drain: bool, divisor: u32) -> ee::LbEndpoint {
    let (endpoint, target) = (p.endpoint, &input.target);
    let (address, hostname) = match &p.reach {
        Reach::Gateway { network, cluster } => {
            let listener = ResourceName::GatewayHop { network: network.clone(), cluster: cluster.clone() };
            let internal = core::EnvoyInternalAddress {
                endpoint_id: format!("{}-{}", endpoint.id, target.port),
                address_name_specifier: Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(
                    listener.to_string(),
                )),
            };
            let address = core::Address { address: Some(core::address::Address::EnvoyInternalAddress(internal)) };
            (Some(address), ResourceName::endpoint(target.port, &endpoint.id, &target.host).to_string())
        }
        Reach::Direct(_) | Reach::Named(_) => {
            let sni = match &input.encryption {
                _ if !p.mutual => String::new(),
                Encryption::Always { sni: Some(sni) } => sni.clone(),
                _ => ResourceName::sni(target.port, target.subset.as_deref(), &target.host).to_string(),
            };
            let address = match &p.reach {
                Reach::Named(name) => named_address(name, p.port),
                Reach::Direct(address) => socket_address(*address, p.port),
                Reach::Gateway { .. } | Reach::No => None,
            };
            (address, sni)
        }
        Reach::No => (None, String::new()),
    };
    ee::LbEndpoint {
        health_status: match p.health {
            Health::Healthy => core::HealthStatus::Healthy,
            Health::Draining if all_drain => core::HealthStatus::Healthy,
            Health::Draining => core::HealthStatus::Draining,
            Health::Unhealthy => core::HealthStatus::Unhealthy,
        } as i32,
        metadata: (input.encryption != Encryption::Relay).then(|| labels(input, p)).flatten(),
        load_balancing_weight: Some(endpoint.weight / divisor).filter(|weight| *weight > 1).and_then(u32_value),
        host_identifier: Some(ee::lb_endpoint::HostIdentifier::Endpoint(ee::Endpoint {
            address,
            hostname,
            ..Default::default()
        })),
    }
}

fn labels(input: &EndpointsInput, p: &Placed<'_>) -> Option<core::Metadata> {
    let endpoint = p.endpoint;
    let tls_mode = if p.mutual && input.encryption == Encryption::Automatic {
        fields([("tlsMode", text("istio"))])
    } else {
        fields([])
    };
    if input.caller.client != ClientKind::Fairlead {
        return metadata::metadata([(metadata::TRANSPORT_SOCKET_MATCH, tls_mode)]);
    }
    let workload = &endpoint.workload;
    let mut ours = fields([
        ("id", text(&*endpoint.id.0)),
        ("cluster", text(workload.cluster.as_str())),
        ("namespace", text(&*workload.namespace)),
        ("workload", text(&*workload.name)),
    ]);
    if !endpoint.network.as_str().is_empty() {
        ours.fields.insert("network".to_owned(), text(endpoint.network.as_str()));
    }
    if let Some(identity) = endpoint.identity.as_ref().filter(|_| p.mutual) {
        ours.fields.insert("identity".to_owned(), text(&**identity));
    }
    if let (Reach::Gateway { .. }, Some(address)) = (&p.reach, endpoint.address) {
        ours.fields.insert("address".to_owned(), text(address.to_string()));
    }
    let istio = format!(
        "{};{};{};{};{}",
        workload.name,
        workload.namespace,
        canonical(endpoint, &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"], &workload.name),
        canonical(endpoint, &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"], "latest"),
        workload.cluster
    );
    metadata::metadata([
        (metadata::TRANSPORT_SOCKET_MATCH, tls_mode),
        (metadata::ISTIO, fields([("workload", text(istio))])),
        (metadata::FAIRLEAD, ours),
    ])
}

/// The first label that is set (Istio's canonical service and revision).
fn canonical<'a>(endpoint: &'a Endpoint, names: &[&str], or: &'a str) -> &'a str {
    names.iter().find_map(|name| endpoint.labels.get(*name)).map_or(or, String::as_str)
}

#[cfg(test)]
mod tests {
    #[test]
    fn weights_are_made_to_fit() {
        assert_eq!(super::divisor([0, 1, 1000].into_iter()), 1);
        for weights in [[u32::MAX; 2], [1, u32::MAX], [u32::MAX / 2, u32::MAX / 3]] {
            let by = super::divisor(weights.into_iter());
            let sum: u64 = weights.into_iter().map(|weight| u64::from((weight / by).max(1))).sum();
            assert!(u32::try_from(sum).is_ok(), "{weights:?} by {by}");
        }
    }
}
