//! Envoy's v3 types under short names, one module per Envoy package. Re-exports only.
//!
//! Beware: protobuf maps here are `HashMap`s, so the encoding of a message that holds a map is not stable; a
//! version must be derived from the input a message was made of, never from its bytes.

/// Everything else of Envoy's API that the modules below do not name.
pub use envoy_types::pb as all;

/// `google.protobuf`: `Any`, `Struct`, `Duration`, wrappers.
pub use envoy_types::pb::google::protobuf;
/// `google.rpc`: `Status`.
pub use envoy_types::pb::google::rpc;

/// `envoy.config.accesslog.v3`
pub use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
/// `envoy.config.bootstrap.v3`
pub use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap;
/// `envoy.config.cluster.v3`
pub use envoy_types::pb::envoy::config::cluster::v3 as cluster;
/// `envoy.config.core.v3`
pub use envoy_types::pb::envoy::config::core::v3 as core;
/// `envoy.config.endpoint.v3`
pub use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
/// `envoy.config.listener.v3`
pub use envoy_types::pb::envoy::config::listener::v3 as listener;
/// `envoy.config.rbac.v3`: policies, permissions, principals
pub use envoy_types::pb::envoy::config::rbac::v3 as rbac;
/// `envoy.config.route.v3`
pub use envoy_types::pb::envoy::config::route::v3 as route;

/// `envoy.type.matcher.v3`
pub use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
/// `envoy.type.v3`: percentages, ranges
pub use envoy_types::pb::envoy::r#type::v3 as types;

/// `envoy.extensions.transport_sockets.tls.v3`, secrets too
pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;

/// `envoy.extensions.transport_sockets.internal_upstream.v3`
pub use envoy_types::pb::envoy::extensions::transport_sockets::internal_upstream::v3 as internal_upstream;
/// `envoy.extensions.transport_sockets.raw_buffer.v3`
pub use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer;

/// `envoy.extensions.bootstrap.internal_listener.v3`
pub use envoy_types::pb::envoy::extensions::bootstrap::internal_listener::v3 as internal_listener;

/// `envoy.extensions.clusters.aggregate.v3`
pub use envoy_types::pb::envoy::extensions::clusters::aggregate::v3 as aggregate_cluster;

/// `envoy.extensions.upstreams.http.v3`: `HttpProtocolOptions`
pub use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;

/// Network filters.
pub mod network {
    /// `…filters.network.http_connection_manager.v3`
    pub use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as http_connection_manager;
    /// `…filters.network.rbac.v3`
    pub use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as rbac;
    /// `…filters.network.sni_cluster.v3`
    pub use envoy_types::pb::envoy::extensions::filters::network::sni_cluster::v3 as sni_cluster;
    /// `…filters.network.tcp_proxy.v3`
    pub use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
}

/// HTTP filters.
pub mod http {
    /// `…filters.http.cors.v3`
    pub use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors;
    /// `…filters.http.fault.v3`
    pub use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
    /// `…filters.http.header_mutation.v3`
    pub use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as header_mutation;
    /// `…filters.http.rbac.v3`
    pub use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as rbac;
    /// `…filters.http.router.v3`
    pub use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
}

/// Listener filters.
pub mod listener_filter {
    /// `…filters.listener.http_inspector.v3`
    pub use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
    /// `…filters.listener.original_dst.v3`
    pub use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3 as original_dst;
    /// `…filters.listener.proxy_protocol.v3`
    pub use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3 as proxy_protocol;
    /// `…filters.listener.tls_inspector.v3`
    pub use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
}

/// Load-balancing policies.
pub mod lb {
    /// `…load_balancing_policies.common.v3`
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3 as common;
    /// `…load_balancing_policies.least_request.v3`
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3 as least_request;
    /// `…load_balancing_policies.random.v3`
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3 as random;
    /// `…load_balancing_policies.round_robin.v3`
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3 as round_robin;
    /// `…load_balancing_policies.wrr_locality.v3`
    pub use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3 as wrr_locality;
}

/// Access loggers.
pub mod access_logger {
    /// `…access_loggers.file.v3`
    pub use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;
    /// `…access_loggers.stream.v3`
    pub use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream;
}
