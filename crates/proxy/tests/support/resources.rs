//! Envoy resources in the forms the control plane sends, as small as a test needs them.

use super::any_port;
use fairlead_proto::any::{self, Any};
use fairlead_proto::envoy::http::{rbac as http_rbac, router};
use fairlead_proto::envoy::network::{http_connection_manager as hcm, rbac as tcp_rbac, tcp_proxy};
use fairlead_proto::envoy::protobuf::{BoolValue, Duration, Struct, UInt32Value, Value, value::Kind};
use fairlead_proto::envoy::{self, cluster as c, core, endpoint as e, listener as l, route as r, tls};
use fairlead_proto::{ResourceType, any::pack};
use fairlead_proxy::StaticResource;
use std::collections::HashMap;
use std::net::SocketAddr;

/// One endpoint.
#[derive(Clone, Default)]
pub struct Ep {
    pub address: Option<SocketAddr>,
    /// (hop cluster, endpoint id)
    pub gateway: Option<(String, String)>,
    pub identity: String,
    pub hostname: String,
    pub cluster: String,
    pub workload: String,
    pub priority: u32,
    pub mesh: bool,
}

impl Ep {
    pub fn plain(address: SocketAddr) -> Self {
        Self { address: Some(address), ..Self::default() }
    }

    pub fn mesh(address: SocketAddr, identity: &str, cluster: &str, workload: &str) -> Self {
        Self {
            address: Some(address),
            identity: identity.into(),
            hostname: "outbound_.9080_._.reviews.shop.svc.cluster.local".into(),
            cluster: cluster.into(),
            workload: workload.into(),
            mesh: true,
            ..Self::default()
        }
    }

    pub fn behind(self, hop: &str, id: &str) -> Self {
        let hostname = format!("outbound_.9080_.ep-{id}_.reviews.shop.svc.cluster.local");
        Self { address: None, gateway: Some((hop.into(), id.into())), hostname, ..self }
    }
}

pub fn resource<M: prost::Message + prost::Name>(kind: ResourceType, name: &str, message: &M) -> StaticResource {
    StaticResource::new(kind, name, &any::pack_bytes(message))
}

pub fn address(a: SocketAddr) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: a.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(a.port()))),
            ..Default::default()
        })),
    }
}

pub fn duration(ms: u64) -> Duration {
    Duration { seconds: (ms / 1000) as i64, nanos: ((ms % 1000) * 1_000_000) as i32 }
}

fn text(s: &str) -> Value {
    Value { kind: Some(Kind::StringValue(s.into())) }
}

pub fn flag(b: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(b)) }
}

pub fn metadata(namespace: &str, fields: &[(&str, Value)]) -> core::Metadata {
    let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    core::Metadata { filter_metadata: HashMap::from([(namespace.to_owned(), Struct { fields })]), ..Default::default() }
}

fn lb_endpoint(ep: &Ep) -> e::LbEndpoint {
    let host_address = match (&ep.address, &ep.gateway) {
        (Some(a), _) => Some(address(*a)),
        (None, Some((hop, id))) => Some(core::Address {
            address: Some(core::address::Address::EnvoyInternalAddress(core::EnvoyInternalAddress {
                endpoint_id: id.clone(),
                address_name_specifier: Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(
                    hop.clone(),
                )),
            })),
        }),
        _ => None,
    };
    let mut all = metadata(
        "fairlead",
        &[
            ("identity", text(&ep.identity)),
            ("id", text(&ep.workload)),
            ("cluster", text(&ep.cluster)),
            ("namespace", text("shop")),
            ("workload", text(&ep.workload)),
        ],
    );
    if ep.mesh {
        let own = metadata("envoy.transport_socket_match", &[("tlsMode", text("istio"))]);
        all.filter_metadata.extend(own.filter_metadata);
    }
    e::LbEndpoint {
        metadata: Some(all),
        host_identifier: Some(e::lb_endpoint::HostIdentifier::Endpoint(e::Endpoint {
            address: host_address,
            hostname: ep.hostname.clone(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub fn assignment(name: &str, endpoints: &[Ep]) -> e::ClusterLoadAssignment {
    let group = |ep: &Ep| e::LocalityLbEndpoints {
        lb_endpoints: vec![lb_endpoint(ep)],
        priority: ep.priority,
        ..Default::default()
    };
    e::ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: endpoints.iter().map(group).collect(),
        ..Default::default()
    }
}

fn sds(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.into(), ..Default::default() }
}

fn common_tls(alpn: &[&str]) -> tls::CommonTlsContext {
    tls::CommonTlsContext {
        alpn_protocols: alpn.iter().map(|a| (*a).to_owned()).collect(),
        tls_certificate_sds_secret_configs: vec![sds("default")],
        validation_context_type: Some(
            tls::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(sds("ROOTCA")),
        ),
        ..Default::default()
    }
}

fn socket(name: &str, config: Any) -> core::TransportSocket {
    core::TransportSocket {
        name: name.into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(config)),
    }
}

/// A STATIC Envoy cluster with mesh TLS for the endpoints that want it.
pub fn cluster(name: &str, endpoints: &[Ep]) -> c::Cluster {
    let upstream = tls::UpstreamTlsContext {
        common_tls_context: Some(common_tls(&["istio"])),
        auto_host_sni: true,
        ..Default::default()
    };
    let mesh = c::cluster::TransportSocketMatch {
        name: "tlsMode-istio".into(),
        r#match: Some(Struct { fields: HashMap::from([("tlsMode".to_owned(), text("istio"))]) }),
        transport_socket: Some(socket("envoy.transport_sockets.tls", pack(&upstream))),
    };
    let plain = c::cluster::TransportSocketMatch {
        name: "tlsMode-disabled".into(),
        r#match: Some(Struct::default()),
        transport_socket: Some(socket(
            "envoy.transport_sockets.raw_buffer",
            pack(&envoy::raw_buffer::RawBuffer::default()),
        )),
    };
    c::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(c::cluster::ClusterDiscoveryType::Type(c::cluster::DiscoveryType::Static as i32)),
        connect_timeout: Some(duration(2000)),
        load_assignment: Some(assignment(name, endpoints)),
        transport_socket_matches: vec![mesh, plain],
        common_lb_config: Some(c::cluster::CommonLbConfig {
            healthy_panic_threshold: Some(envoy::types::Percent { value: 0.0 }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn cluster_resource(cluster: &c::Cluster) -> StaticResource {
    resource(ResourceType::Cluster, &cluster.name, cluster)
}

/// A route to one Envoy cluster.
pub fn route_to(cluster: &str) -> r::Route {
    route_action(r::RouteAction {
        cluster_specifier: Some(r::route_action::ClusterSpecifier::Cluster(cluster.into())),
        timeout: Some(duration(0)),
        ..Default::default()
    })
}

pub fn route_action(action: r::RouteAction) -> r::Route {
    r::Route {
        name: "default".into(),
        r#match: Some(r::RouteMatch {
            path_specifier: Some(r::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(r::route::Action::Route(action)),
        ..Default::default()
    }
}

/// Fairlead's default retries.
pub fn with_default_retry(mut route: r::Route) -> r::Route {
    if let Some(r::route::Action::Route(action)) = &mut route.action {
        action.retry_policy = Some(r::RetryPolicy {
            retry_on: "connect-failure,refused-stream,reset".into(),
            num_retries: Some(UInt32Value { value: 3 }),
            ..Default::default()
        });
    }
    route.metadata = Some(metadata("fairlead", &[("default_retry", flag(true))]));
    route
}

pub fn routes(name: &str, list: Vec<r::Route>) -> r::RouteConfiguration {
    r::RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![r::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: list,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// An HTTP connection manager with inline routes.
pub fn manager(route_config: r::RouteConfiguration, rbac: Vec<http_rbac::Rbac>) -> hcm::HttpConnectionManager {
    let mut filters: Vec<hcm::HttpFilter> = rbac.iter().map(|f| filter("envoy.filters.http.rbac", pack(f))).collect();
    filters.push(filter("envoy.filters.http.router", pack(&router::Router::default())));
    hcm::HttpConnectionManager {
        stat_prefix: "test".into(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(route_config)),
        http_filters: filters,
        server_name: "fairlead".into(),
        stream_idle_timeout: Some(duration(0)),
        upgrade_configs: vec![hcm::http_connection_manager::UpgradeConfig {
            upgrade_type: "websocket".into(),
            ..Default::default()
        }],
        forward_client_cert_details: hcm::http_connection_manager::ForwardClientCertDetails::SanitizeSet as i32,
        set_current_client_cert_details: Some(hcm::http_connection_manager::SetCurrentClientCertDetails {
            uri: true,
            subject: Some(BoolValue { value: true }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub fn network_filter(name: &str, config: Any) -> l::Filter {
    l::Filter { name: name.into(), config_type: Some(l::filter::ConfigType::TypedConfig(config)) }
}

pub fn http_filters(manager: &hcm::HttpConnectionManager) -> Vec<l::Filter> {
    vec![network_filter("envoy.filters.network.http_connection_manager", pack(manager))]
}

pub fn tcp_filters(cluster: &str, rbac: Vec<tcp_rbac::Rbac>) -> Vec<l::Filter> {
    let proxy = tcp_proxy::TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        // As control planes write it in profile fairlead.
        max_connect_attempts: Some(UInt32Value { value: 4 }),
        ..Default::default()
    };
    let mut filters: Vec<l::Filter> =
        rbac.iter().map(|f| network_filter("envoy.filters.network.rbac", pack(f))).collect();
    filters.push(network_filter("envoy.filters.network.tcp_proxy", pack(&proxy)));
    filters
}

pub fn chain(name: &str, mesh_tls: bool, filters: Vec<l::Filter>) -> l::FilterChain {
    let downstream = tls::DownstreamTlsContext {
        common_tls_context: Some(common_tls(&["istio-h2", "h2", "istio-http/1.1", "http/1.1"])),
        require_client_certificate: Some(BoolValue { value: true }),
        ..Default::default()
    };
    l::FilterChain {
        name: name.into(),
        transport_socket: mesh_tls.then(|| socket("envoy.transport_sockets.tls", pack(&downstream))),
        filters,
        ..Default::default()
    }
}

pub fn inspectors(names: &[&str]) -> Vec<l::ListenerFilter> {
    let of = |name: &&str| {
        let config = if *name == "tls" {
            pack(&envoy::listener_filter::tls_inspector::TlsInspector::default())
        } else {
            pack(&envoy::listener_filter::http_inspector::HttpInspector::default())
        };
        l::ListenerFilter {
            name: format!("envoy.filters.listener.{name}_inspector"),
            config_type: Some(l::listener_filter::ConfigType::TypedConfig(config)),
            ..Default::default()
        }
    };
    names.iter().map(of).collect()
}

pub fn listener(name: &str, inbound: bool, chains: Vec<l::FilterChain>) -> l::Listener {
    let direction = if inbound { core::TrafficDirection::Inbound } else { core::TrafficDirection::Outbound };
    l::Listener {
        name: name.into(),
        address: Some(address(any_port())),
        filter_chains: chains,
        traffic_direction: direction as i32,
        ..Default::default()
    }
}

pub fn listener_resource(listener: &l::Listener) -> StaticResource {
    resource(ResourceType::Listener, &listener.name, listener)
}

/// The inbound half of a sidecar: mesh TLS only, to a program.
pub fn inbound(program: SocketAddr, rbac: Vec<http_rbac::Rbac>) -> Vec<StaticResource> {
    let manager = manager(routes("inbound|9080||", vec![route_to("inbound|9080||")]), rbac);
    vec![
        listener_resource(&listener("inbound", true, vec![chain("9080-mtls", true, http_filters(&manager))])),
        cluster_resource(&cluster("inbound|9080||", &[Ep::plain(program)])),
    ]
}

/// The outbound half of a sidecar: one service with these endpoints, Fairlead's default retries.
pub fn outbound(endpoints: &[Ep]) -> Vec<StaticResource> {
    let name = "outbound|9080||reviews.shop.svc.cluster.local";
    let manager = manager(routes("9080", vec![with_default_retry(route_to(name))]), Vec::new());
    vec![
        listener_resource(&listener("outbound", false, vec![chain("http", false, http_filters(&manager))])),
        cluster_resource(&cluster(name, endpoints)),
    ]
}

/// `HttpProtocolOptions` with explicit HTTP/2.
pub fn explicit_http2() -> HashMap<String, Any> {
    use fairlead_proto::envoy::upstream_http::http_protocol_options as o;
    let options = fairlead_proto::envoy::upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(o::UpstreamProtocolOptions::ExplicitHttpConfig(o::ExplicitHttpConfig {
            protocol_config: Some(o::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(Default::default())),
        })),
        ..Default::default()
    };
    HashMap::from([("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack(&options))])
}
