//! Connections to a control plane: gRPC over mesh TLS on a marked socket.
//!
//! The only place where the proxy speaks tonic's transport. Invariant: nothing is sent before the control plane has shown
//! the reserved identity that is expected of it.

use fairlead_transport::{DialOptions, dial};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A control plane that fell silent is left after one period and one timeout.
const KEEPALIVE: Duration = Duration::from_secs(4);
/// Any name will do: a control plane is its SPIFFE ID.
const SERVER_NAME: &str = "control.fairlead.internal";

/// Where control planes are and how they are reached.
#[derive(Clone, Debug)]
pub struct ControlPlanes {
    addresses: Arc<[String]>,
    mark: Option<u32>,
    next: Arc<AtomicUsize>,
}

impl ControlPlanes {
    /// `addresses`: `host:port`, tried in turn.
    pub fn new(addresses: &[String], mark: Option<u32>) -> Self {
        Self { addresses: addresses.into(), mark, next: Arc::default() }
    }

    /// A channel that connects when first used, each time to the next address if the last one failed.
    pub fn channel(&self, tls: Arc<ClientConfig>) -> Channel {
        let planes = self.clone();
        let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
            let (planes, tls) = (planes.clone(), tls.clone());
            async move { planes.connect(tls).await.map(TokioIo::new) }
        });
        // The scheme is http because TLS is made by the connector.
        Endpoint::from_static("http://control.fairlead.internal")
            .connect_timeout(CONNECT_TIMEOUT * 2)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_with_connector_lazy(connector)
    }

    async fn connect(&self, tls: Arc<ClientConfig>) -> io::Result<fairlead_transport::Stream> {
        let count = self.addresses.len();
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no control plane address is configured"));
        }
        let at = self.next.load(Ordering::Relaxed) % count;
        let name = &self.addresses[at];
        let result = self.try_one(name, tls).await;
        if result.is_err() {
            self.next.store(at + 1, Ordering::Relaxed);
        }
        result.map_err(|e| io::Error::new(e.kind(), format!("control plane {name}: {e}")))
    }

    /// Addresses as configured.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Connects to one control plane and finishes the TLS handshake.
    ///
    /// # Errors
    /// The address does not resolve, does not answer, or is no control plane of ours.
    pub async fn connect_to(&self, name: &str, tls: Arc<ClientConfig>) -> io::Result<fairlead_transport::Stream> {
        self.try_one(name, tls).await
    }

    async fn try_one(&self, name: &str, tls: Arc<ClientConfig>) -> io::Result<fairlead_transport::Stream> {
        let address = resolve(name).await?;
        let options = DialOptions { connect_timeout: CONNECT_TIMEOUT, mark: self.mark, source: None };
        let raw = dial(address, options).await.map_err(io::Error::other)?;
        let connected = fairlead_transport::tls::connect(raw, tls, SERVER_NAME, CONNECT_TIMEOUT).await;
        connected.map(|(stream, _)| stream).map_err(io::Error::other)
    }
}

async fn resolve(name: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let mut found = tokio::net::lookup_host(name).await?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}
