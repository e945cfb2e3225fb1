//! What is picked is what is shared: for every policy, over many picks; and what retries avoid.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::balance::{Avoid, Balancer, Condition, EndpointState, NoEndpoint, PickContext, Ramp, Tried};
use fairlead_engine::decide::{Allowed, authorize};
use fairlead_engine::upstream::EnvoyCluster;
use fairlead_engine::{Change, ConnectionInfo, RequestInfo, Resource, Snapshot};
use fairlead_proto::envoy::protobuf::{Struct, UInt32Value, Value, value::Kind};
use fairlead_proto::envoy::{cluster, core, endpoint};
use fairlead_proto::{ResourceType, any};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// `(priority, locality, weight, mesh cluster, gateway hop)`
type Spec = (u32, &'static str, u32, &'static str, Option<&'static str>);

fn allowed() -> Allowed {
    let address = "192.0.2.1:80".parse().unwrap();
    let connection = ConnectionInfo {
        tls: false,
        peer: None,
        direct_remote: "192.0.2.2".parse().unwrap(),
        remote: "192.0.2.2".parse().unwrap(),
        local: address,
        server_name: None,
    };
    authorize([], &RequestInfo { connection, head: None }).unwrap()
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

fn snapshot(lb: cluster::cluster::LbPolicy, locality_weighted: bool, specs: &[Spec]) -> Arc<Snapshot> {
    use cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
    let envoy_cluster = cluster::Cluster {
        name: "c".into(),
        lb_policy: lb as i32,
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds as i32,
        )),
        common_lb_config: Some(cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(fairlead_proto::envoy::types::Percent { value: 0.0 }),
            locality_config_specifier: locality_weighted
                .then_some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})),
            ..Default::default()
        }),
        ..Default::default()
    };
    let hosts = specs.iter().enumerate().map(|(index, (priority, locality, weight, member, hop))| {
        let address = match hop {
            None => core::address::Address::SocketAddress(core::SocketAddress {
                address: format!("192.0.2.{}", index + 1),
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
                ..Default::default()
            }),
            Some(hop) => core::address::Address::EnvoyInternalAddress(core::EnvoyInternalAddress {
                endpoint_id: format!("ep-{index}"),
                address_name_specifier: Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(
                    (*hop).into(),
                )),
            }),
        };
        let fairlead = Struct { fields: [("cluster".to_owned(), text(member))].into() };
        endpoint::LocalityLbEndpoints {
            locality: Some(core::Locality { region: (*locality).into(), ..Default::default() }),
            priority: *priority,
            load_balancing_weight: Some(UInt32Value { value: 10 * (index as u32 + 1) }),
            lb_endpoints: vec![endpoint::LbEndpoint {
                load_balancing_weight: Some(UInt32Value { value: *weight }),
                metadata: Some(core::Metadata {
                    filter_metadata: [("fairlead".to_owned(), fairlead)].into(),
                    ..Default::default()
                }),
                host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
                    address: Some(core::Address { address: Some(address) }),
                    ..Default::default()
                })),
                ..Default::default()
            }],
            ..Default::default()
        }
    });
    let assignment =
        endpoint::ClusterLoadAssignment { cluster_name: "c".into(), endpoints: hosts.collect(), ..Default::default() };
    let resources = [
        Resource::new(ResourceType::Cluster, "c", "1", any::pack_bytes(&envoy_cluster)),
        Resource::new(ResourceType::ClusterLoadAssignment, "c", "1", any::pack_bytes(&assignment)),
    ];
    let (snapshot, rejected) = Snapshot::build(None, resources.map(Change::Set));
    assert_eq!(rejected, []);
    snapshot
}

fn balancer(snapshot: &Snapshot, conditions: &[Condition]) -> Balancer {
    let cluster: &Arc<EnvoyCluster> = snapshot.cluster("c").unwrap();
    let endpoints = snapshot.endpoints_of(cluster).unwrap();
    Balancer::build(cluster, endpoints, |index, _| conditions.get(index).copied().unwrap_or_default(), 3)
}

fn pick(balancer: &Balancer, tried: &Tried, avoid: Avoid, seed: &mut u64) -> Result<usize, NoEndpoint> {
    let mut random = || support::random(seed);
    let mut context = PickContext { random: &mut random, in_flight: &|_| 0, tried, avoid };
    balancer.pick(&allowed(), &mut context).map(|pick| pick.index)
}

fn condition() -> impl Strategy<Value = Condition> {
    use EndpointState::*;
    let states = prop_oneof![5 => Just(Healthy), 1 => Just(Degraded), 1 => Just(Draining), 2 => Just(Unhealthy), 1 => Just(Ejected)];
    (states, 1u64..15).prop_map(|(state, seconds)| Condition::new(state, Ramp::since(Duration::from_secs(seconds))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn picks_follow_shares(
        hosts in proptest::collection::vec((0u32..3, 0usize..3, 1u32..20, condition()), 1..8),
        lb in prop_oneof![
            Just(cluster::cluster::LbPolicy::LeastRequest),
            Just(cluster::cluster::LbPolicy::RoundRobin),
            Just(cluster::cluster::LbPolicy::Random)
        ],
        locality_weighted in any::<bool>(),
        mut seed in any::<u64>(),
    ) {
        const LOCALITIES: [&str; 3] = ["x", "y", "z"];
        let specs: Vec<Spec> = hosts.iter().map(|(p, l, w, _)| (*p, LOCALITIES[*l], *w, "east", None)).collect();
        let conditions: Vec<Condition> = hosts.iter().map(|host| host.3).collect();
        let snapshot = snapshot(lb, locality_weighted, &specs);
        let balancer = balancer(&snapshot, &conditions);
        let shares = balancer.shares();
        let sum: f64 = shares.iter().sum();
        let usable = conditions.iter().any(|c| c.state.is_usable());
        prop_assert!((sum - if usable { 1.0 } else { 0.0 }).abs() < 1e-9, "sum {sum}");
        prop_assert_eq!(usable, balancer.is_usable());
        const PICKS: usize = 20_000;
        let mut counts = vec![0usize; shares.len()];
        for _ in 0..PICKS {
            match pick(&balancer, &Tried::default(), Avoid::Nothing, &mut seed) {
                Ok(index) => counts[index] += 1,
                Err(error) => {
                    prop_assert!(!usable);
                    prop_assert_eq!(error, NoEndpoint::NoneUsable);
                    return Ok(());
                }
            }
        }
        for (count, share) in counts.iter().zip(&shares) {
            let deviation = (share * (1.0 - share) / PICKS as f64).sqrt();
            let got = *count as f64 / PICKS as f64;
            // Five standard deviations, and the granularity of a round.
            prop_assert!((got - share).abs() <= 5.5 * deviation + 0.004, "{got} instead of {share}");
            prop_assert!(*share > 0.0 || *count == 0);
        }
    }
}

#[test]
fn a_retry_never_repeats_while_another_endpoint_is_usable() {
    let snapshot = snapshot(
        cluster::cluster::LbPolicy::LeastRequest,
        false,
        &[(0, "x", 1, "east", None), (0, "x", 1, "east", None), (1, "y", 1, "west", Some("gateway|w|west"))],
    );
    let balancer = balancer(&snapshot, &[]);
    let mut seed = 1;
    for _ in 0..200 {
        let mut tried = Tried::default();
        let first = pick(&balancer, &tried, Avoid::Elsewhere, &mut seed).unwrap();
        assert!(first < 2, "priority 0 is healthy");
        tried.note(&balancer.endpoints()[first], false);
        let second = pick(&balancer, &tried, Avoid::Elsewhere, &mut seed).unwrap();
        assert_eq!(second, 1 - first, "the other one of the same tier");
        tried.note(&balancer.endpoints()[second], false);
        assert_eq!(pick(&balancer, &tried, Avoid::Elsewhere, &mut seed), Ok(2), "then another cluster");
        tried.note(&balancer.endpoints()[2], false);
        assert!(pick(&balancer, &tried, Avoid::Elsewhere, &mut seed).is_ok(), "rather again than never");
    }
}

#[test]
fn a_path_in_doubt_sends_the_first_retry_elsewhere() {
    let hop = Some("gateway|w|west");
    let snapshot = snapshot(
        cluster::cluster::LbPolicy::LeastRequest,
        false,
        &[(0, "x", 1, "west", hop), (0, "x", 1, "west", hop), (1, "y", 1, "north", Some("gateway|n|north"))],
    );
    let balancer = balancer(&snapshot, &[]);
    let mut tried = Tried::default();
    let mut seed = 9;
    let first = pick(&balancer, &tried, Avoid::Elsewhere, &mut seed).unwrap();
    tried.note(&balancer.endpoints()[first], true);
    assert_eq!(pick(&balancer, &tried, Avoid::Elsewhere, &mut seed), Ok(2));
}

#[test]
fn previous_hosts_are_avoided_as_often_as_told() {
    let lb = cluster::cluster::LbPolicy::Random;
    let snapshot = snapshot(lb, false, &[(0, "x", 1, "east", None), (0, "x", 1, "east", None)]);
    let balancer = balancer(&snapshot, &[]);
    let mut tried = Tried::default();
    tried.note(&balancer.endpoints()[0], false);
    let mut seed = 5;
    let repeated = (0..10_000)
        .filter(|_| pick(&balancer, &tried, Avoid::Previous { hosts: 5, priorities: 0 }, &mut seed) == Ok(0))
        .count();
    // 1/2 to the power of six choices.
    assert!((100..=220).contains(&repeated), "{repeated}");
}

#[test]
fn priorities_that_were_tried_are_left_out_after_every_second_try() {
    let lb = cluster::cluster::LbPolicy::Random;
    let specs = [(0, "x", 1, "east", None), (1, "y", 1, "west", None), (2, "z", 1, "north", None)];
    let balancer = balancer(&snapshot(lb, false, &specs), &[]);
    let avoid = Avoid::Previous { hosts: 5, priorities: 2 };
    let mut tried = Tried::default();
    let mut seed = 7;
    let mut order = Vec::new();
    for _ in 0..8 {
        let index = pick(&balancer, &tried, avoid, &mut seed).unwrap();
        let shares = balancer.shares_again(&tried, avoid);
        assert_eq!(shares[index], 1.0, "{tried:?} {shares:?}");
        tried.note(&balancer.endpoints()[index], false);
        order.push(index);
    }
    // Once all three were tried it begins anew.
    assert_eq!(order, [0, 0, 1, 1, 2, 2, 0, 0]);
}

#[test]
fn a_priority_that_cannot_serve_is_no_way_out() {
    let lb = cluster::cluster::LbPolicy::Random;
    let down = Condition::new(EndpointState::PathDown, Ramp::FULL);
    let specs = [(0, "x", 1, "east", None), (0, "x", 1, "east", None), (1, "y", 1, "west", None)];
    let balancer = balancer(&snapshot(lb, false, &specs), &[Condition::default(), Condition::default(), down]);
    let mut tried = Tried::default();
    tried.note(&balancer.endpoints()[0], false);
    tried.note(&balancer.endpoints()[0], false);
    let again = |hosts| balancer.shares_again(&tried, Avoid::Previous { hosts, priorities: 2 });
    assert_eq!(again(5), [0.0, 1.0, 0.0]);
    assert_eq!(again(0), [0.5, 0.5, 0.0]);
}

#[test]
fn nobody_there_and_nobody_usable_differ() {
    let lb = cluster::cluster::LbPolicy::LeastRequest;
    let empty = balancer(&snapshot(lb, false, &[]), &[]);
    assert_eq!(pick(&empty, &Tried::default(), Avoid::Nothing, &mut 1), Err(NoEndpoint::Empty));
    let down = Condition::new(EndpointState::PathDown, Ramp::FULL);
    let down = balancer(&snapshot(lb, false, &[(0, "x", 1, "east", None)]), &[down]);
    assert_eq!(pick(&down, &Tried::default(), Avoid::Elsewhere, &mut 1), Err(NoEndpoint::NoneUsable));
}
