//! Listeners and filter chains against tables.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::decide;
use fairlead_engine::listener::{Sniffed, Transport};
use fairlead_engine::{Change, Rejected, Resource, Snapshot};
use fairlead_proto::envoy::protobuf::{BoolValue, UInt32Value};
use fairlead_proto::envoy::{core, listener, network};
use fairlead_proto::{ResourceType, any};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    chains: BTreeMap<String, Chain>,
    connections: Vec<Connection>,
    default: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Chain {
    port: Option<u32>,
    transport: String,
    alpn: Vec<String>,
    names: Vec<String>,
    ranges: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    why: String,
    port: Option<u16>,
    address: Option<String>,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    alpn: Vec<String>,
    name: Option<String>,
    gets: String,
}

fn tcp_proxy() -> listener::Filter {
    let tcp = network::tcp_proxy::TcpProxy {
        cluster_specifier: Some(network::tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster("c".into())),
        ..Default::default()
    };
    listener::Filter {
        name: "tcp".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any::pack(&tcp))),
    }
}

fn chain(name: &str, case: &Chain) -> listener::FilterChain {
    let ranges = case.ranges.iter().map(|range| {
        let (address, length) = range.split_once('/').unwrap();
        core::CidrRange {
            address_prefix: address.into(),
            prefix_len: Some(UInt32Value { value: length.parse().unwrap() }),
        }
    });
    listener::FilterChain {
        name: name.into(),
        filter_chain_match: Some(listener::FilterChainMatch {
            destination_port: case.port.map(|value| UInt32Value { value }),
            transport_protocol: case.transport.clone(),
            application_protocols: case.alpn.clone(),
            server_names: case.names.clone(),
            prefix_ranges: ranges.collect(),
            ..Default::default()
        }),
        filters: vec![tcp_proxy()],
        ..Default::default()
    }
}

fn listener(name: &str, address: &str, bound: bool) -> listener::Listener {
    let address: SocketAddr = address.parse().unwrap();
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(address.port().into())),
        ..Default::default()
    };
    listener::Listener {
        name: name.into(),
        address: Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) }),
        bind_to_port: Some(BoolValue { value: bound }),
        ..Default::default()
    }
}

fn build(listeners: &[listener::Listener]) -> (Arc<Snapshot>, Vec<Rejected>) {
    let resources = listeners.iter().map(|listener| {
        Change::Set(Resource::new(ResourceType::Listener, listener.name.as_str(), "1", any::pack_bytes(listener)))
    });
    Snapshot::build(None, resources)
}

#[test]
fn tables() {
    for file in ["inbound", "east-west"] {
        let path = format!("{}/tests/cases/chains/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        let table: Table = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut resource = listener("l", "0.0.0.0:15006", true);
        resource.filter_chains = table.chains.iter().map(|(name, case)| chain(name, case)).collect();
        resource.default_filter_chain = table.default.then(|| chain("default", &Chain::default()));
        let (snapshot, rejected) = build(&[resource]);
        assert_eq!(rejected, []);
        let listener = snapshot.listener("l").unwrap();
        for case in &table.connections {
            let alpn: Vec<&[u8]> = case.alpn.iter().map(|name| name.as_bytes()).collect();
            let address = case.address.as_deref().unwrap_or("192.0.2.1").parse().unwrap();
            let sniffed = Sniffed {
                destination: SocketAddr::new(address, case.port.unwrap_or(15443)),
                source: "192.0.2.9:50000".parse().unwrap(),
                transport: if case.tls { Transport::Tls } else { Transport::RawBuffer },
                server_name: case.name.as_deref(),
                application_protocols: &alpn,
            };
            let got = decide::filter_chain(listener, &sniffed).map_or("closed", |chain| &chain.name);
            assert_eq!(got, case.gets, "{file}: {}", case.why);
        }
    }
}

#[test]
fn two_chains_for_the_same_connections_are_refused() {
    let mut resource = listener("l", "0.0.0.0:15006", true);
    let case = Chain { port: Some(80), ..Chain::default() };
    resource.filter_chains = vec![chain("a", &case), chain("b", &case)];
    let (snapshot, rejected) = build(&[resource]);
    assert!(snapshot.listener("l").is_none());
    assert_eq!(rejected[0].error.field, "filter_chains[1].filter_chain_match");
}

#[test]
fn listeners_by_original_destination() {
    let with = |mut listener: listener::Listener, direction: core::TrafficDirection, original: bool| {
        listener.traffic_direction = direction as i32;
        listener.use_original_dst = Some(BoolValue { value: original });
        listener.default_filter_chain = Some(chain("default", &Chain::default()));
        listener
    };
    use core::TrafficDirection::{Inbound, Outbound};
    let (snapshot, rejected) = build(&[
        with(listener("virtualOutbound", "0.0.0.0:15001", true), Outbound, true),
        with(listener("virtualInbound", "0.0.0.0:15006", true), Inbound, true),
        with(listener("0.0.0.0_9080", "0.0.0.0:9080", false), Outbound, false),
        with(listener("240.240.0.1_3306", "240.240.0.1:3306", false), Outbound, false),
        with(listener("fd00::1_3306", "[fd00::1]:3306", false), Outbound, false),
        with(listener("::_9090", "[::]:9090", false), Outbound, false),
        with(listener("0.0.0.0_9090", "0.0.0.0:9090", false), Outbound, false),
    ]);
    assert_eq!(rejected, []);
    let outbound = snapshot.listener("virtualOutbound").unwrap();
    let inbound = snapshot.listener("virtualInbound").unwrap();
    let table = [
        (outbound, "240.240.0.1:3306", "240.240.0.1_3306"),
        (outbound, "240.240.0.2:3306", "virtualOutbound"),
        (outbound, "240.240.0.2:9080", "0.0.0.0_9080"),
        (outbound, "[fd00::1]:3306", "fd00::1_3306"),
        (outbound, "[fd00::2]:3306", "virtualOutbound"),
        (outbound, "[fd00::2]:9080", "0.0.0.0_9080"),
        (outbound, "[fd00::2]:9090", "::_9090"),
        (outbound, "240.240.0.2:9090", "0.0.0.0_9090"),
        (outbound, "[::ffff:240.240.0.2]:9090", "0.0.0.0_9090"),
        // A listener that is bound takes nothing that was going to its port elsewhere.
        (outbound, "203.0.113.1:15006", "virtualOutbound"),
        // Traffic to the workload's own port 9080 must not be taken for traffic to a service of that port.
        (inbound, "10.0.0.7:9080", "virtualInbound"),
        (inbound, "[fd00::7]:9080", "virtualInbound"),
    ];
    for (accepted, dst, name) in table {
        assert_eq!(&*decide::listener(&snapshot, accepted, dst.parse().unwrap()).name, name, "{dst}");
    }
}
