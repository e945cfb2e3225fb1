//! TLS over any stream, by rustls configurations that others made.
//!
//! It decides nothing about trust. Invariant: after a handshake the peer's whole chain is kept, so that it can be judged
//! again when trust changes.

use crate::stream::{Raw, Stream};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Envoy's default `transport_socket_connect_timeout` is off; 15 s bounds what a silent peer can hold.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a finished handshake tells.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// Chain of the peer, leaf first; empty when it presented none.
    pub chain: Vec<CertificateDer<'static>>,
    pub alpn: Option<String>,
    pub sni: Option<String>,
}

/// A handshake that did not finish.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS handshake: {0}")]
    Handshake(#[from] std::io::Error),
    #[error("TLS handshake timed out")]
    Timeout,
    #[error("{0:?} is no server name")]
    Name(String),
}

/// Server side.
///
/// # Errors
/// The peer was refused, sent nonsense or was too slow.
pub async fn accept(io: Raw, config: Arc<ServerConfig>) -> Result<(Stream, TlsFacts), TlsError> {
    let handshake = TlsAcceptor::from(config).accept(io);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| TlsError::Timeout)??;
    let session = stream.get_ref().1;
    let facts = TlsFacts {
        chain: owned(session.peer_certificates()),
        alpn: text(session.alpn_protocol()),
        sni: session.server_name().map(str::to_owned),
    };
    Ok((Stream::ServerTls(Box::new(stream)), facts))
}

/// Client side.
///
/// # Errors
/// The peer was refused, refused us, or `limit` passed.
pub async fn connect(
    io: Raw,
    config: Arc<ClientConfig>,
    server_name: &str,
    limit: Duration,
) -> Result<(Stream, TlsFacts), TlsError> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(|_| TlsError::Name(server_name.to_owned()))?;
    let handshake = TlsConnector::from(config).connect(name, io);
    let stream = tokio::time::timeout(limit, handshake).await.map_err(|_| TlsError::Timeout)??;
    let session = stream.get_ref().1;
    let facts = TlsFacts {
        chain: owned(session.peer_certificates()),
        alpn: text(session.alpn_protocol()),
        sni: Some(server_name.to_owned()),
    };
    Ok((Stream::ClientTls(Box::new(stream)), facts))
}

fn owned(chain: Option<&[CertificateDer<'static>]>) -> Vec<CertificateDer<'static>> {
    chain.map(<[_]>::to_vec).unwrap_or_default()
}

fn text(alpn: Option<&[u8]>) -> Option<String> {
    alpn.map(|a| String::from_utf8_lossy(a).into_owned())
}
