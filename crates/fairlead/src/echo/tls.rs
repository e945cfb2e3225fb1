//! TLS of the program's own: a client that begins with a handshake gets one, and inside it what it would get without.
//!
//! The certificate is made on first use by a CA that nobody knows: callers of tables trust any server. Invariant: no client
//! certificate is asked for.

use fairlead_identity::{Ca, CertificateSpec, Mint, SpiffeId, SystemRandom, TrustDomain, provider::provider};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, UnixTime};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

static CONFIG: OnceCell<Arc<ServerConfig>> = OnceCell::const_new();

pub async fn accept(stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
    let config = CONFIG.get_or_try_init(|| async { config() }).await?;
    Ok(TlsAcceptor::from(config.clone()).accept(stream).await?)
}

fn config() -> anyhow::Result<Arc<ServerConfig>> {
    let domain = TrustDomain::new("echo.invalid")?;
    let ca = Ca::create_root("echo", &domain, UnixTime::now(), &mut SystemRandom)?;
    let id = SpiffeId::parse("spiffe://echo.invalid/ns/echo/sa/echo")?;
    let minted = Mint::new(&ca, None).mint(&CertificateSpec::Mesh, &id, UnixTime::now(), &mut SystemRandom)?;
    let key = PrivateKeyDer::from_pem_slice(minted.key_pem().as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(minted.chain().to_vec(), key)?;
    config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).into();
    Ok(Arc::new(config))
}
