//! Which HTTP an upstream is spoken to in, and which protocols its TLS offers.
//!
//! Sources: Istio protocol selection and h2UpgradePolicy; Envoy `HttpProtocolOptions`. Beware: Envoy picks its codec by an
//! ALPN of exactly `h2`, so a server must answer `h2` and callers offer `istio-h2` beside it.

use super::input::{Certified, Destination, UpstreamTls};
use crate::wire::{duration, u32_value};
use fairlead_model::ClientKind;
use fairlead_model::policy::H2Upgrade;
use fairlead_model::service::Protocol;
use fairlead_proto::any::{Any, pack};
use fairlead_proto::envoy::{core, upstream_http};
use std::collections::HashMap;

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// `typed_extension_protocol_options` of a service's Envoy cluster.
pub fn options(of: &Destination, client: ClientKind) -> HashMap<String, Any> {
    use upstream_http::http_protocol_options::UpstreamProtocolOptions;
    let speaks = speaks(of);
    let common = core::HttpProtocolOptions {
        idle_timeout: of.pool.http_idle_timeout.and_then(duration),
        max_requests_per_connection: of.pool.max_requests_per_connection.filter(|n| *n > 0).and_then(u32_value),
        max_connection_duration: of.pool.max_connection_duration.and_then(duration),
        ..Default::default()
    };
    let server_name = if client == ClientKind::Envoy { server_name_by_request(of) } else { None };
    let plain_h1 = speaks == Speaks::Http1 && common == core::HttpProtocolOptions::default() && server_name.is_none();
    if speaks == Speaks::Bytes || (plain_h1 && client == ClientKind::Envoy) {
        return HashMap::new();
    }
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: of.pool.max_concurrent_streams.filter(|n| *n > 0).and_then(u32_value),
        ..Default::default()
    };
    let protocol = match speaks {
        Speaks::Http2 => explicit(
            upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(http2),
        ),
        Speaks::Downstream => UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            upstream_http::http_protocol_options::UseDownstreamHttpConfig {
                http_protocol_options: Some(Default::default()),
                http2_protocol_options: Some(http2),
                ..Default::default()
            },
        ),
        Speaks::Http1 | Speaks::Bytes => {
            explicit(upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig::HttpProtocolOptions(
                Default::default(),
            ))
        }
    };
    let options = upstream_http::HttpProtocolOptions {
        common_http_protocol_options: (common != Default::default()).then_some(common),
        upstream_http_protocol_options: server_name,
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    HashMap::from([(OPTIONS.to_owned(), pack(&options))])
}

/// A wildcard host has no name to ask for: stock Envoy asks for each request's, as Istio has it do, and compares the certificate
/// with it unless a rule says otherwise.
fn server_name_by_request(of: &Destination) -> Option<core::UpstreamHttpProtocolOptions> {
    match &of.tls {
        UpstreamTls::Simple { sni, certified } if sni.is_empty() => Some(core::UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: matches!(certified, Certified::Below(_) | Certified::Chain),
            ..Default::default()
        }),
        _ => None,
    }
}

/// What a caller follows: the protocol of the connection it serves.
pub fn downstream_options() -> HashMap<String, Any> {
    let options = upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(
            upstream_http::http_protocol_options::UpstreamProtocolOptions::UseDownstreamProtocolConfig(
                upstream_http::http_protocol_options::UseDownstreamHttpConfig {
                    http_protocol_options: Some(Default::default()),
                    http2_protocol_options: Some(Default::default()),
                    ..Default::default()
                },
            ),
        ),
        ..Default::default()
    };
    HashMap::from([(OPTIONS.to_owned(), pack(&options))])
}

/// A program's own protocol behind its sidecar.
pub fn program_options(protocol: Protocol) -> HashMap<String, Any> {
    use upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
    let config = match protocol {
        p if p.is_http2() => explicit(ProtocolConfig::Http2ProtocolOptions(Default::default())),
        // Sniffed: the program hears what its caller spoke. Declared HTTP stays HTTP/1 also when two proxies speak HTTP/2
        // between them, which is the default and needs no option.
        Protocol::Auto => return downstream_options(),
        _ => return HashMap::new(),
    };
    let options = upstream_http::HttpProtocolOptions { upstream_protocol_options: Some(config), ..Default::default() };
    HashMap::from([(OPTIONS.to_owned(), pack(&options))])
}

/// Protocols that mutual TLS to the mesh offers. Our own proxy narrows the list to what it is about to speak.
pub fn mesh_alpn(of: &Destination, client: ClientKind) -> Vec<String> {
    let list: &[&str] = match (speaks(of), client) {
        (Speaks::Http2, _) => &["istio-h2", "istio", "h2"],
        (Speaks::Http1, ClientKind::Fairlead) | (Speaks::Downstream, ClientKind::Fairlead) => {
            &["istio-h2", "istio-http/1.1", "istio", "h2", "http/1.1"]
        }
        (Speaks::Http1, _) => &["istio-http/1.1", "istio", "http/1.1"],
        // Stock Envoy has one list for an Envoy cluster: bytes are safe for both.
        (Speaks::Bytes | Speaks::Downstream, _) => &["istio"],
    };
    list.iter().map(|&a| a.to_owned()).collect()
}

/// Protocols that plain TLS to the outside offers.
pub fn outside_alpn(of: &Destination) -> Vec<String> {
    match speaks(of) {
        Speaks::Http2 => vec!["h2".to_owned()],
        Speaks::Http1 => vec!["http/1.1".to_owned()],
        Speaks::Downstream | Speaks::Bytes => Vec::new(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Bytes,
    Http1,
    Http2,
    /// As the caller does.
    Downstream,
}

fn speaks(of: &Destination) -> Speaks {
    match of.protocol {
        p if p.is_http2() => Speaks::Http2,
        Protocol::Http if of.pool.use_client_protocol => Speaks::Downstream,
        Protocol::Http if of.pool.h2_upgrade == H2Upgrade::Upgrade => Speaks::Http2,
        Protocol::Http => Speaks::Http1,
        Protocol::Auto => Speaks::Downstream,
        _ => Speaks::Bytes,
    }
}

fn explicit(
    config: upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig,
) -> upstream_http::http_protocol_options::UpstreamProtocolOptions {
    upstream_http::http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig(
        upstream_http::http_protocol_options::ExplicitHttpConfig { protocol_config: Some(config) },
    )
}
