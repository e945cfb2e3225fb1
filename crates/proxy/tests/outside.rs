//! Ordinary TLS towards servers outside the mesh: whose certificates are taken.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use fairlead_proto::any::pack;
use fairlead_proto::envoy::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use fairlead_proto::envoy::tls::subject_alt_name_matcher::SanType;
use fairlead_proto::envoy::{cluster as c, core, matcher, route as r, tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use support::client::{caller, get};
use support::resources::{self, Ep};
use support::{options, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority, and what it signed for a server.
struct Authority {
    root: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = root.self_signed(&key).unwrap().pem();
        Self { root: pem, issuer: rcgen::Issuer::new(root, key) }
    }

    /// Serves HTTP/1.1 with a certificate of these names; every connection is answered once.
    async fn server(&self, dns: &[&str], uri: &str) -> SocketAddr {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(dns.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        leaf.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        let certificate = leaf.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A caller that does not like the certificate ends the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}").await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }
}

/// A destination as a DestinationRule with TLS mode SIMPLE makes it.
struct Rule<'a> {
    roots: &'a Path,
    sni: &'a str,
    names: &'a [&'a str],
}

impl Rule<'_> {
    fn cluster(&self, name: &str, address: SocketAddr) -> c::Cluster {
        let matches = self.names.iter().map(|name| tls::SubjectAltNameMatcher {
            san_type: if name.contains("://") { SanType::Uri } else { SanType::Dns } as i32,
            matcher: Some(matcher::StringMatcher {
                match_pattern: Some(matcher::string_matcher::MatchPattern::Exact((*name).to_owned())),
                ..Default::default()
            }),
            ..Default::default()
        });
        let validation = tls::CertificateValidationContext {
            match_typed_subject_alt_names: matches.collect(),
            ..Default::default()
        };
        let roots = format!("file-root:{}", self.roots.display());
        let combined = CombinedCertificateValidationContext {
            default_validation_context: Some(validation),
            validation_context_sds_secret_config: Some(tls::SdsSecretConfig { name: roots, ..Default::default() }),
            ..Default::default()
        };
        let context = tls::UpstreamTlsContext {
            sni: self.sni.to_owned(),
            common_tls_context: Some(tls::CommonTlsContext {
                validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
                ..Default::default()
            }),
            ..Default::default()
        };
        c::Cluster {
            transport_socket_matches: Vec::new(),
            transport_socket: Some(core::TransportSocket {
                name: "envoy.transport_sockets.tls".to_owned(),
                config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack(&context))),
            }),
            ..resources::cluster(name, &[Ep::plain(address)])
        }
    }
}

#[tokio::test]
async fn pinned_names_decide_and_otherwise_the_server_name() {
    let (ours, strange) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let (roots, strange_roots) = (folder.path().join("roots.pem"), folder.path().join("strange.pem"));
    std::fs::write(&roots, &ours.root).unwrap();
    std::fs::write(&strange_roots, &strange.root).unwrap();
    let names = ["api.example.com", "*.wild.example.com"];
    let address = ours.server(&names, "spiffe://outside.example/api").await;
    let own = |sni, names| Rule { roots: &roots, sni, names };
    let cases = [
        (own("api.example.com", &[]), true),
        (own("elsewhere.example.com", &[]), false),
        (own("api.example.com", &["api.example.com"]), true),
        // A pinned name stands in the place of the server name...
        (own("elsewhere.example.com", &["api.example.com"]), true),
        (own("api.example.com", &["elsewhere.example.com"]), false),
        (own("", &["api.example.com"]), true),
        // ...of several any...
        (own("api.example.com", &["elsewhere.example.com", "spiffe://outside.example/api"]), true),
        (own("api.example.com", &["spiffe://outside.example/other"]), false),
        (own("api.example.com", &["a.wild.example.com"]), true),
        (own("api.example.com", &["b.a.wild.example.com"]), false),
        // ...and what a refused TLS block pins, nobody has.
        (own("api.example.com", &["refused.fairlead.invalid"]), false),
        // A right name does not make up for a chain that ends elsewhere.
        (Rule { roots: &strange_roots, sni: "api.example.com", names: &["api.example.com"] }, false),
    ];
    let mut list = Vec::new();
    let mut routes = Vec::new();
    for (index, (rule, _)) in cases.iter().enumerate() {
        let name = format!("case-{index}");
        let mut route = resources::route_to(&name);
        route.r#match = Some(r::RouteMatch {
            path_specifier: Some(r::route_match::PathSpecifier::Prefix(format!("/{index}/"))),
            ..Default::default()
        });
        routes.push(route);
        list.push(resources::cluster_resource(&rule.cluster(&name, address)));
    }
    let manager = resources::manager(resources::routes("out", routes), Vec::new());
    let chain = resources::chain("http", false, resources::http_filters(&manager));
    list.push(resources::listener_resource(&resources::listener("outbound", false, vec![chain])));
    let proxy = start(options("east", "frontend"), list, None).await;
    let at = proxy.listening("outbound").await;
    // Twice: what one rule made acquainted, another must not take over, and nobody resumes what was not verified.
    for round in 0..2 {
        for (index, (rule, taken)) in cases.iter().enumerate() {
            let status = get(&caller(false), at, &format!("/{index}/")).await.status();
            let wanted = if *taken { 200 } else { 503 };
            assert_eq!(status, wanted, "round {round}: names {:?}, server name {}", rule.names, rule.sni);
        }
    }
}
