//! TLS of the program's own: a client that begins with a handshake gets one, and inside it what it would get without.
//!
//! The certificate has the name that the client asks for, and those it was told. It is issued by the CA that the program was given,
//! else by one that nobody knows. Invariants: no client certificate is asked for; what strangers ask for is kept up to a bound.

use anyhow::Context as _;
use fairlead_identity::provider::provider;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Certificates that are kept.
const KEPT: usize = 1000;

/// Ends TLS.
pub struct Tls(TlsAcceptor);

impl Tls {
    /// With the CA of a folder (`ca-cert.pem`, `ca-key.pem`) or one of its own, and certificates that have these names too.
    pub fn new(issuer: Option<&Path>, names: Vec<String>) -> anyhow::Result<Self> {
        let issuer = match issuer {
            Some(folder) => given(folder).with_context(|| format!("the CA in {}", folder.display()))?,
            None => unknown()?,
        };
        let minting = Minting { issuer, names, kept: Mutex::default() };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(minting));
        config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).into();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

fn given(folder: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
    Ok(Issuer::from_ca_cert_pem(&text("ca-cert.pem")?, KeyPair::from_pem(&text("ca-key.pem")?)?)?)
}

fn unknown() -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "fairlead echo");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(Issuer::new(params, KeyPair::generate()?))
}

struct Minting {
    issuer: Issuer<'static, KeyPair>,
    names: Vec<String>,
    /// By the name asked for.
    kept: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl Minting {
    fn mint(&self, asked: &str) -> anyhow::Result<CertifiedKey> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "fairlead echo");
        for name in self.names.iter().map(String::as_str).chain([asked]).filter(|name| !name.is_empty()) {
            let name =
                if name.contains("://") { SanType::URI(name.try_into()?) } else { SanType::DnsName(name.try_into()?) };
            params.subject_alt_names.push(name);
        }
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::from_der(vec![leaf.der().clone()], key, &provider())?)
    }
}

impl ResolvesServerCert for Minting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().unwrap_or_default();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(asked) {
            return Some(known.clone());
        }
        let made = self.mint(asked).map_err(|e| tracing::warn!("no certificate for `{asked}`: {e:#}")).ok()?;
        let made = Arc::new(made);
        if kept.len() < KEPT {
            kept.insert(asked.to_owned(), made.clone());
        }
        Some(made)
    }
}

impl std::fmt::Debug for Minting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minting").field("names", &self.names).finish_non_exhaustive()
    }
}
