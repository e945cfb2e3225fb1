//! Fairlead in static mode: the same configuration as Envoy's, as the resources a control plane would send.
//!
//! Invariant: whatever is in here is in `envoy.rs`, field by field.

use super::cells::{Cell, POLICIES, policy_prefix};
use super::{certificates, process};
use base64::Engine as _;
use fairlead_proto::ResourceType;
use fairlead_proto::any::{pack, pack_bytes};
use fairlead_proto::envoy::network::http_connection_manager as hcm;
use fairlead_proto::envoy::protobuf::{BoolValue, Duration, UInt32Value};
use fairlead_proto::envoy::{
    access_logger, accesslog, cluster, core, endpoint, http, listener, matcher, rbac, route, tls,
};
use prost::{Message, Name};
use serde_json::json;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts the proxy on `cpu`.
pub fn start(
    binary: &Path,
    cpu: usize,
    cell: Cell,
    folder: &Path,
    listen: SocketAddr,
    upstream: SocketAddr,
) -> anyhow::Result<process::Running> {
    let file = folder.join(format!("fairlead-{}.json", cell.name));
    let entry = |kind: ResourceType, name: &str, body: &[u8]| json!({"type_url": kind.url(), "name": name, "body": base64::engine::general_purpose::STANDARD.encode(body)});
    let resources = json!([
        entry(ResourceType::Cluster, "upstream", &pack_bytes(&envoy_cluster(upstream))),
        entry(ResourceType::Listener, "bench", &pack_bytes(&listener_of(cell, folder, listen))),
    ]);
    std::fs::write(&file, resources.to_string())?;
    let mut command = Command::new(binary);
    command.arg("proxy-static").arg(&file).args(["--concurrency", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
    if cell.tls {
        command
            .arg("--certificate")
            .arg(folder.join(certificates::PROXY))
            .arg("--key")
            .arg(folder.join(certificates::PROXY_KEY))
            .arg("--roots")
            .arg(folder.join(certificates::ROOT))
            .args(["--trust-domain", certificates::TRUST_DOMAIN]);
    }
    process::start_on(cpu, &mut command)
}

fn listener_of(cell: Cell, folder: &Path, listen: SocketAddr) -> listener::Listener {
    let chain = listener::FilterChain {
        name: "bench".to_owned(),
        filters: vec![listener::Filter {
            name: "http".to_owned(),
            config_type: Some(listener::filter::ConfigType::TypedConfig(pack(&manager(cell, folder)))),
        }],
        transport_socket: cell.tls.then(|| core::TransportSocket {
            name: "tls".to_owned(),
            config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack(&downstream_tls()))),
        }),
        ..Default::default()
    };
    listener::Listener {
        name: "bench".to_owned(),
        address: address(listen),
        filter_chains: vec![chain],
        traffic_direction: core::TrafficDirection::Inbound as i32,
        ..Default::default()
    }
}

fn manager(cell: Cell, folder: &Path) -> hcm::HttpConnectionManager {
    let mut http_filters = Vec::new();
    if cell.mesh {
        http_filters.push(filter("rbac", &http::rbac::Rbac { rules: Some(policies()), ..Default::default() }));
    }
    let router = http::router::Router { dynamic_stats: bool_value(cell.mesh), ..Default::default() };
    http_filters.push(filter("router", &router));
    let log = access_logger::file::FileAccessLog {
        path: folder.join("fairlead-access.log").to_string_lossy().into_owned(),
        ..Default::default()
    };
    let log = accesslog::AccessLog {
        name: "log".to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(pack(&log))),
        ..Default::default()
    };
    hcm::HttpConnectionManager {
        stat_prefix: "bench".to_owned(),
        generate_request_id: bool_value(cell.mesh),
        http_filters,
        access_log: if cell.mesh { vec![log] } else { Vec::new() },
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(routes(cell))),
        ..Default::default()
    }
}

fn routes(cell: Cell) -> route::RouteConfiguration {
    let retries = route::RetryPolicy {
        retry_on: "connect-failure,refused-stream".to_owned(),
        num_retries: Some(UInt32Value { value: 2 }),
        ..Default::default()
    };
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster("upstream".to_owned())),
        timeout: Some(Duration::default()),
        retry_policy: cell.mesh.then_some(retries),
        ..Default::default()
    };
    let everything = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    route::RouteConfiguration {
        virtual_hosts: vec![route::VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![everything],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn policies() -> rbac::Rbac {
    use rbac::permission::{Rule, Set};
    let permission = |rule| rbac::Permission { rule: Some(rule) };
    let text = |pattern| matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() };
    let policy = |number| {
        let method = route::HeaderMatcher {
            name: ":method".to_owned(),
            header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(text(
                matcher::string_matcher::MatchPattern::Exact("GET".to_owned()),
            ))),
            ..Default::default()
        };
        let path = matcher::PathMatcher {
            rule: Some(matcher::path_matcher::Rule::Path(text(matcher::string_matcher::MatchPattern::Prefix(
                policy_prefix(number),
            )))),
        };
        let both = Set { rules: vec![permission(Rule::Header(method)), permission(Rule::UrlPath(path))] };
        rbac::Policy {
            permissions: vec![permission(Rule::AndRules(both))],
            principals: vec![rbac::Principal { identifier: Some(rbac::principal::Identifier::Any(true)) }],
            ..Default::default()
        }
    };
    rbac::Rbac {
        action: rbac::rbac::Action::Allow as i32,
        policies: (0..POLICIES).map(|number| (format!("p{number:02}"), policy(number))).collect::<HashMap<_, _>>(),
        ..Default::default()
    }
}

/// The proxy's own identity answers for both names.
fn downstream_tls() -> tls::DownstreamTlsContext {
    let secret = |name: &str| tls::SdsSecretConfig { name: name.to_owned(), ..Default::default() };
    tls::DownstreamTlsContext {
        require_client_certificate: bool_value(true),
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default")],
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(secret("ROOTCA")),
            ),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn envoy_cluster(upstream: SocketAddr) -> cluster::Cluster {
    let many = || Some(UInt32Value { value: 100_000 });
    let place = endpoint::Endpoint { address: address(upstream), ..Default::default() };
    let member = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(place)),
        ..Default::default()
    };
    cluster::Cluster {
        name: "upstream".to_owned(),
        connect_timeout: Some(Duration { seconds: 5, nanos: 0 }),
        circuit_breakers: Some(cluster::CircuitBreakers {
            thresholds: vec![cluster::circuit_breakers::Thresholds {
                max_connections: many(),
                max_pending_requests: many(),
                max_requests: many(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: "upstream".to_owned(),
            endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints: vec![member], ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn filter<M: Message + Name>(name: &str, config: &M) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(config))),
        ..Default::default()
    }
}

fn bool_value(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

fn address(of: SocketAddr) -> Option<core::Address> {
    let socket = core::SocketAddress {
        address: of.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(of.port().into())),
        ..Default::default()
    };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}
