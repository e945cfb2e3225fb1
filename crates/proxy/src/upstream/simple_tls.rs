//! Ordinary TLS towards servers outside the mesh (DestinationRule `mode: SIMPLE`).
//!
//! Invariants: a server is verified by the roots its rule names, and only a rule that names none skips verification, as in Envoy;
//! where a rule pins names, the certificate carries one of them (any), instead of the server name that was asked for.

use fairlead_engine::listener::{SanKind, SanMatch, TlsContext};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::HashMap;
use std::sync::Arc;

/// Where Linux distributions keep their roots.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Configurations by what they depend on.
#[derive(Debug, Default)]
pub struct SimpleTls(Mutex<HashMap<Key, Arc<ClientConfig>>>);

/// Roots, ALPN, and the pinned names as text. A session that is resumed was verified by the same, since a configuration keeps its own.
type Key = (Option<Arc<str>>, bool, Vec<Arc<str>>, String);

impl SimpleTls {
    /// The client configuration of `context`.
    ///
    /// # Errors
    /// Its roots cannot be read.
    pub fn config(&self, context: &TlsContext) -> Result<Arc<ClientConfig>, String> {
        let names = format!("{:?}", context.required_sans);
        let key = (context.ca_file.clone(), context.system_roots, context.alpn.clone(), names);
        if let Some(known) = self.0.lock().get(&key) {
            return Ok(known.clone());
        }
        let config = Arc::new(build(context)?);
        self.0.lock().insert(key, config.clone());
        Ok(config)
    }
}

/// A client that believes any server: for questions to the own program, which prove nothing about anybody else.
///
/// # Errors
/// The provider of algorithms has none of TLS's.
pub fn unverified() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let verifier = Arc::new(Verifier { believes: Believes::Anyone, provider });
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

fn build(context: &TlsContext) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let path = match (&context.ca_file, context.system_roots) {
        (Some(path), _) => Some(path.to_string()),
        // As OpenSSL and others have it, the variable says where this machine's list is.
        (None, true) => std::env::var("SSL_CERT_FILE")
            .ok()
            .or_else(|| SYSTEM_ROOTS.iter().find(|path| std::path::Path::new(path).exists()).map(|p| (*p).to_owned())),
        (None, false) => None,
    };
    let mut config = match path {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let certificates = CertificateDer::pem_file_iter(&path).map_err(|e| format!("{path}: {e}"))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|e| format!("{path}: {e}"))?;
                roots.add(certificate).map_err(|e| format!("{path}: {e}"))?;
            }
            if context.required_sans.is_empty() {
                builder.with_root_certificates(roots).with_no_client_auth()
            } else {
                let believes = Believes::Named { roots, names: context.required_sans.clone() };
                let verifier = Verifier { believes, provider };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
            }
        }
        None if context.system_roots => return Err("this machine has no list of roots".to_owned()),
        None => {
            let verifier = Verifier { believes: Believes::Anyone, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    config.alpn_protocols = context.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

/// Verifies as a rule asks for, where rustls' own verifier does something else.
#[derive(Debug)]
struct Verifier {
    believes: Believes,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Believes {
    /// Istio's SIMPLE without `caCertificates` and with `insecureSkipVerify`: encrypts, believes anyone.
    Anyone,
    /// Chain and validity by the roots, the name by what the rule pins.
    Named { roots: RootCertStore, names: Vec<SanMatch> },
}

fn carries_one(leaf: &CertificateDer<'_>, names: &[SanMatch]) -> Result<bool, webpki::Error> {
    let leaf = webpki::EndEntityCert::try_from(leaf)?;
    let accepted = |kind, name: &str| names.iter().any(|wanted| wanted.accepts(kind, name));
    Ok(leaf.valid_dns_names().any(|name| accepted(SanKind::Dns, name))
        || leaf.valid_uri_names().any(|name| accepted(SanKind::Uri, name)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Believes::Named { roots, names } = &self.believes else {
            return Ok(ServerCertVerified::assertion());
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        match carries_one(leaf, names) {
            Ok(true) => Ok(ServerCertVerified::assertion()),
            Ok(false) => Err(CertificateError::NotValidForName.into()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
