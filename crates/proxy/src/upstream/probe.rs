//! The probing handshake: does the gateway of a cluster, or an endpoint of it, still answer?
//!
//! A whole TLS handshake with the SNI `probe_.<cluster>`, answered by the gateway itself. Who is refused has no way there either:
//! TLS 1.3 tells a client so only after its own side is finished. Invariant: it ends within the probe time-out and proves the way,
//! not any service.

use crate::identity::MeshIdentity;
use fairlead_engine::path::PROBE_TIMEOUT;
use fairlead_identity::Expected;
use fairlead_transport::{DialOptions, dial, tls};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// ALPN of mesh TCP: what a sidecar's or gateway's mesh listener always takes.
const ALPN: [&[u8]; 2] = [b"istio-peer-exchange", b"istio"];

/// Probes `address`; `true` when the handshake was finished and not refused.
pub async fn probe(identity: Option<MeshIdentity>, address: SocketAddr, cluster: &str, mark: Option<u32>) -> bool {
    let probing = async {
        let options = DialOptions { connect_timeout: PROBE_TIMEOUT, mark, source: None };
        let raw = dial(address, options).await.ok()?;
        let Some(identity) = identity else { return Some(None) };
        let config = identity.tls().client_config(&Expected::Any, &ALPN).ok()?;
        let name = format!("probe_.{cluster}");
        let (mut stream, _) = tls::connect(raw, config, &name, PROBE_TIMEOUT).await.ok()?;
        let _ = stream.shutdown().await;
        Some(Some(stream))
    };
    let mut stream = match tokio::time::timeout(PROBE_TIMEOUT, probing).await {
        Ok(Some(Some(stream))) => stream,
        Ok(Some(None)) => return true,
        _ => return false,
    };
    // Whatever else comes, or nothing at all, comes from somebody who took the certificate.
    let answered = tokio::time::timeout(PROBE_TIMEOUT, stream.read_u8()).await;
    !matches!(answered, Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData)
}
