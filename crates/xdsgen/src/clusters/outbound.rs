//! The generator of Envoy clusters: a function of [`ClusterInput`] alone.

use super::input::{ClusterInput, Destination, Named, Upstream, UpstreamTls};
use super::protocol;
use crate::endpoints::load_assignment;
use crate::metadata::{self, fields, text, yes};
use crate::tls;
use crate::wire::{ads, bool_value, duration, socket_address, transport_socket, u32_value};
use fairlead_model::ClientKind;
use fairlead_model::policy::{Balancing, ConnectionPool, OutlierDetection};
use fairlead_proto::any::pack;
use fairlead_proto::envoy::{aggregate_cluster, cluster as ec, core, endpoint, raw_buffer, types};
use std::net::IpAddr;
use std::time::Duration;

/// Of Envoy clusters that no rule speaks about (MeshConfig.connectTimeout's default).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub fn cluster(input: &ClusterInput) -> ec::Cluster {
    let mut cluster =
        ec::Cluster { name: input.name.to_string(), connect_timeout: duration(CONNECT_TIMEOUT), ..Default::default() };
    match &input.upstream {
        Upstream::Service(of) => service(input, of, &mut cluster),
        Upstream::FirstOf { clusters, of } => {
            cluster.connect_timeout = duration(of.connect_timeout);
            cluster.lb_policy = ec::cluster::LbPolicy::ClusterProvided as i32;
            cluster.typed_extension_protocol_options = protocol::options(of, input.client);
            let config =
                aggregate_cluster::ClusterConfig { clusters: clusters.iter().map(ToString::to_string).collect() };
            cluster.cluster_discovery_type =
                Some(ec::cluster::ClusterDiscoveryType::ClusterType(ec::cluster::CustomClusterType {
                    name: "envoy.clusters.aggregate".to_owned(),
                    typed_config: Some(pack(&config)),
                }));
        }
        Upstream::OriginalDestination => {
            original_destination(&mut cluster);
            cluster.typed_extension_protocol_options = protocol::downstream_options();
        }
        Upstream::Program { protocol } => {
            original_destination(&mut cluster);
            cluster.typed_extension_protocol_options = protocol::program_options(*protocol);
            if input.client == ClientKind::Envoy {
                // What comes from this address is the proxy's own and is not captured again (Istio's capture rules).
                cluster.upstream_bind_config = Some(core::BindConfig {
                    source_address: Some(core::SocketAddress {
                        address: "127.0.0.6".to_owned(),
                        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(0)),
                        ..Default::default()
                    }),
                    ..Default::default()
                });
            }
        }
        Upstream::Nobody => cluster.cluster_discovery_type = discovery(ec::cluster::DiscoveryType::Static),
        Upstream::Gateways { addresses, connect_timeout } => {
            cluster.connect_timeout = duration(*connect_timeout);
            fixed(&mut cluster, addresses);
            cluster.common_lb_config = Some(without_panic());
        }
        Upstream::Behind { address, port, connect_timeout } => {
            cluster.connect_timeout = duration(*connect_timeout);
            fixed(&mut cluster, &[(*address, *port)]);
        }
        Upstream::BehindMany { connect_timeout } => {
            cluster.connect_timeout = duration(*connect_timeout);
            by_eds(&mut cluster);
            cluster.common_lb_config = Some(without_panic());
        }
    }
    cluster
}

/// What is known to be dead is not tried, however little is left.
fn without_panic() -> ec::cluster::CommonLbConfig {
    ec::cluster::CommonLbConfig { healthy_panic_threshold: Some(types::Percent { value: 0.0 }), ..Default::default() }
}

/// Istio's `dnsRefreshRate`.
const DNS_REFRESH: Duration = Duration::from_secs(60);

// Its successor, the `envoy.clusters.dns` extension, is newer than what other clients know.
#[allow(deprecated)]
fn by_name(cluster: &mut ec::Cluster, named: &Named) {
    let kind =
        if named.one_address { ec::cluster::DiscoveryType::LogicalDns } else { ec::cluster::DiscoveryType::StrictDns };
    cluster.cluster_discovery_type = discovery(kind);
    cluster.dns_lookup_family = ec::cluster::DnsLookupFamily::V4Preferred as i32;
    cluster.dns_refresh_rate = duration(DNS_REFRESH);
    cluster.load_assignment = Some(load_assignment(&named.endpoints));
}

fn service(input: &ClusterInput, of: &Destination, cluster: &mut ec::Cluster) {
    cluster.connect_timeout = duration(of.pool.connect_timeout.unwrap_or(of.connect_timeout));
    if of.passthrough {
        original_destination(cluster);
    } else {
        match &of.named {
            Some(named) => by_name(cluster, named),
            None => by_eds(cluster),
        }
        cluster.lb_policy = match of.balancing {
            Balancing::LeastRequest => ec::cluster::LbPolicy::LeastRequest,
            Balancing::RoundRobin => ec::cluster::LbPolicy::RoundRobin,
            Balancing::Random => ec::cluster::LbPolicy::Random,
        } as i32;
        let panic = of.outlier.as_ref().map_or(0, |o| o.min_health_percent);
        cluster.common_lb_config = Some(ec::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(types::Percent { value: panic.into() }),
            locality_config_specifier: of.weighted_localities.then(|| {
                ec::cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(Default::default())
            }),
            ..Default::default()
        });
        cluster.outlier_detection = of.outlier.as_ref().map(outlier);
    }
    cluster.circuit_breakers = Some(circuit_breakers(&of.pool));
    cluster.upstream_connection_options = keepalive(&of.pool);
    cluster.typed_extension_protocol_options = protocol::options(of, input.client);
    encrypt(input, of, cluster);
    let service = metadata::nested(fields([
        ("host", text(&of.host)),
        ("name", text(&of.service)),
        ("namespace", text(&of.namespace)),
    ]));
    let mut ours = fields([]);
    if input.client == ClientKind::Fairlead {
        if of.failover_when_none {
            ours.fields.insert("failover_when_none".to_owned(), yes());
        }
        if of.external {
            ours.fields.insert("external".to_owned(), yes());
        }
        if of.unjudged {
            ours.fields.insert("unjudged".to_owned(), yes());
        }
        if let Some(rule) = &of.rule {
            ours.fields.insert("origin".to_owned(), metadata::origin(rule));
        }
    }
    cluster.metadata = metadata::metadata([
        (metadata::ISTIO, fields([("services", metadata::list(vec![service]))])),
        (metadata::FAIRLEAD, ours),
    ]);
}

fn encrypt(input: &ClusterInput, of: &Destination, cluster: &mut ec::Cluster) {
    match &of.tls {
        UpstreamTls::Plaintext => {}
        UpstreamTls::Automatic { identities } => {
            let mutual = tls::upstream(&protocol::mesh_alpn(of, input.client), identities);
            cluster.transport_socket_matches = vec![
                ec::cluster::TransportSocketMatch {
                    name: "tlsMode-istio".to_owned(),
                    r#match: Some(fields([("tlsMode", text("istio"))])),
                    transport_socket: Some(mutual),
                },
                ec::cluster::TransportSocketMatch {
                    name: "tlsMode-disabled".to_owned(),
                    r#match: Some(fields([])),
                    transport_socket: Some(transport_socket(
                        "envoy.transport_sockets.raw_buffer",
                        &raw_buffer::RawBuffer::default(),
                    )),
                },
            ];
        }
        UpstreamTls::Mutual { identities } => {
            cluster.transport_socket = Some(tls::upstream(&protocol::mesh_alpn(of, input.client), identities));
        }
        UpstreamTls::Simple { sni, certified } => {
            cluster.transport_socket = Some(tls::upstream_simple(&protocol::outside_alpn(of), sni, certified));
        }
    }
}

fn discovery(kind: ec::cluster::DiscoveryType) -> Option<ec::cluster::ClusterDiscoveryType> {
    Some(ec::cluster::ClusterDiscoveryType::Type(kind as i32))
}

fn original_destination(cluster: &mut ec::Cluster) {
    cluster.cluster_discovery_type = discovery(ec::cluster::DiscoveryType::OriginalDst);
    cluster.lb_policy = ec::cluster::LbPolicy::ClusterProvided as i32;
}

fn by_eds(cluster: &mut ec::Cluster) {
    cluster.cluster_discovery_type = discovery(ec::cluster::DiscoveryType::Eds);
    cluster.eds_cluster_config =
        Some(ec::cluster::EdsClusterConfig { eds_config: ads(), service_name: cluster.name.clone() });
}

fn fixed(cluster: &mut ec::Cluster, addresses: &[(IpAddr, u16)]) {
    cluster.cluster_discovery_type = discovery(ec::cluster::DiscoveryType::Static);
    let hosts = addresses.iter().map(|(address, port)| endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: socket_address(*address, *port),
            ..Default::default()
        })),
        ..Default::default()
    });
    cluster.load_assignment = Some(endpoint::ClusterLoadAssignment {
        cluster_name: cluster.name.clone(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints: hosts.collect(), ..Default::default() }],
        ..Default::default()
    });
}

/// Istio lifts every limit that is not written.
fn circuit_breakers(pool: &ConnectionPool) -> ec::CircuitBreakers {
    let limit = |written: Option<u32>| u32_value(written.filter(|n| *n > 0).unwrap_or(u32::MAX));
    ec::CircuitBreakers {
        thresholds: vec![ec::circuit_breakers::Thresholds {
            max_connections: limit(pool.max_connections),
            max_pending_requests: limit(pool.http1_max_pending_requests),
            max_requests: limit(pool.http2_max_requests),
            max_retries: limit(pool.max_retries),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn keepalive(pool: &ConnectionPool) -> Option<ec::UpstreamConnectionOptions> {
    let (probes, time, interval) = pool.tcp_keepalive?;
    let seconds = |d: Option<Duration>| d.and_then(|d| u32_value(d.as_secs().min(u32::MAX.into()) as u32));
    Some(ec::UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: probes.and_then(u32_value),
            keepalive_time: seconds(time),
            keepalive_interval: seconds(interval),
        }),
        ..Default::default()
    })
}

/// Istio never ejects by success rate.
fn outlier(of: &OutlierDetection) -> ec::OutlierDetection {
    let enforce = |on: bool| u32_value(if on { 100 } else { 0 });
    ec::OutlierDetection {
        consecutive_5xx: u32_value(of.consecutive_5xx),
        enforcing_consecutive_5xx: enforce(of.consecutive_5xx > 0),
        consecutive_gateway_failure: u32_value(of.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforce(of.consecutive_gateway_errors > 0),
        enforcing_success_rate: enforce(false),
        split_external_local_origin_errors: of.split_local_origin_errors,
        consecutive_local_origin_failure: of
            .split_local_origin_errors
            .then(|| u32_value(of.consecutive_local_origin_failures))
            .flatten(),
        enforcing_consecutive_local_origin_failure: of
            .split_local_origin_errors
            .then(|| enforce(of.consecutive_local_origin_failures > 0))
            .flatten(),
        interval: duration(of.interval),
        base_ejection_time: duration(of.base_ejection_time),
        max_ejection_percent: u32_value(of.max_ejection_percent),
        // Envoy ejects one host however small the percentage is; Istio counts on it.
        always_eject_one_host: bool_value(true),
        ..Default::default()
    }
}
