//! TLS contexts of the mesh: what callers show, what callees demand, where keys and roots come from.
//!
//! Must never hold a key or a certificate: they are named (`default`, `ROOTCA`) and come by SDS from `sds-grpc`, which our
//! proxy answers from its own identity. Invariant: a downstream context always demands a client certificate.

use crate::clusters::Certified;
use crate::wire::{bool_value, transport_socket};
use fairlead_proto::envoy::{core, matcher, tls};

/// The name of a workload's own certificate.
pub const OWN_CERTIFICATE: &str = "default";
/// The name of the mesh's trust bundles.
pub const TRUST_BUNDLES: &str = "ROOTCA";
/// The certificate authorities of the operating system (Istio's name for them).
pub const SYSTEM_ROOTS: &str = "file-root:system";
/// The static Envoy cluster that answers SDS.
pub const SDS_CLUSTER: &str = "sds-grpc";
pub const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// Protocols by which a mesh caller is told from a program's own TLS (Istio).
pub const MESH_ALPN: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Those that announce HTTP inside.
pub const MESH_HTTP_ALPN: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Those that announce bytes inside.
pub const MESH_TCP_ALPN: [&str; 2] = ["istio", "istio-peer-exchange"];

/// The callee's side, answering with `alpn`.
pub fn downstream<S: AsRef<str>>(alpn: &[S]) -> core::TransportSocket {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: tls_1_2(),
            alpn_protocols: alpn.iter().map(|a| a.as_ref().to_owned()).collect(),
            tls_certificate_sds_secret_configs: vec![secret(OWN_CERTIFICATE)],
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(secret(TRUST_BUNDLES)),
            ),
            ..Default::default()
        }),
        require_client_certificate: bool_value(true),
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// The caller's side; the server name is the endpoint's `hostname`. Without `identities` any member of the mesh is accepted
/// here (our own proxy compares with the endpoint's identity instead).
pub fn upstream(alpn: &[String], identities: &[String]) -> core::TransportSocket {
    use tls::common_tls_context::ValidationContextType;
    let validation = if identities.is_empty() {
        ValidationContextType::ValidationContextSdsSecretConfig(secret(TRUST_BUNDLES))
    } else {
        ValidationContextType::CombinedValidationContext(
            tls::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context: Some(named(identities)),
                validation_context_sds_secret_config: Some(secret(TRUST_BUNDLES)),
                ..Default::default()
            },
        )
    };
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: tls_1_2(),
            alpn_protocols: alpn.to_vec(),
            tls_certificate_sds_secret_configs: vec![secret(OWN_CERTIFICATE)],
            validation_context_type: Some(validation),
            ..Default::default()
        }),
        auto_host_sni: true,
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// TLS to a server outside the mesh, as any client makes it.
pub fn upstream_simple(alpn: &[String], sni: &str, certified: &Certified) -> core::TransportSocket {
    use tls::common_tls_context::ValidationContextType;
    let combined = |context| {
        ValidationContextType::CombinedValidationContext(
            tls::common_tls_context::CombinedCertificateValidationContext {
                default_validation_context: Some(context),
                validation_context_sds_secret_config: Some(secret(SYSTEM_ROOTS)),
                ..Default::default()
            },
        )
    };
    let validation = match certified {
        Certified::Unverified => None,
        Certified::As(names) => Some(combined(named(names))),
        Certified::Below(domain) => Some(combined(below(domain))),
        Certified::Chain => Some(ValidationContextType::ValidationContextSdsSecretConfig(secret(SYSTEM_ROOTS))),
    };
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: alpn.to_vec(),
            validation_context_type: validation,
            ..Default::default()
        }),
        sni: sni.to_owned(),
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

fn tls_1_2() -> Option<tls::TlsParameters> {
    Some(tls::TlsParameters {
        tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12 as i32,
        tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
        ..Default::default()
    })
}

/// The certificate of any name that ends so.
fn below(domain: &str) -> tls::CertificateValidationContext {
    let matcher = tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Dns as i32,
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::Suffix(domain.to_owned())),
            ignore_case: true,
        }),
        ..Default::default()
    };
    tls::CertificateValidationContext { match_typed_subject_alt_names: vec![matcher], ..Default::default() }
}

fn named(names: &[String]) -> tls::CertificateValidationContext {
    let matchers = names.iter().map(|name| tls::SubjectAltNameMatcher {
        san_type: if name.contains("://") {
            tls::subject_alt_name_matcher::SanType::Uri as i32
        } else {
            tls::subject_alt_name_matcher::SanType::Dns as i32
        },
        matcher: Some(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(name.clone())),
            ignore_case: false,
        }),
        ..Default::default()
    });
    tls::CertificateValidationContext { match_typed_subject_alt_names: matchers.collect(), ..Default::default() }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(core::grpc_service::EnvoyGrpc {
            cluster_name: SDS_CLUSTER.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![service],
        ..Default::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3 as i32,
            config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
            ..Default::default()
        }),
    }
}
