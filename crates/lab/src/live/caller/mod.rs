//! One call from a workload's place, made as an unmodified program makes it.
//!
//! Knows nothing of proxies: it resolves, connects, speaks and reads. What it could not see itself (who was tried, which gateway,
//! which identity) is added from the proxies' records by others. Invariant: every call ends within its deadline and has one of the
//! words of the call-table interface as its status.

mod http;
mod long;
mod place;
mod tcp;
mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_calls::RequestKind;
use fairlead_calls::request::Request;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use http::Connections;
pub use long::LongStream;
pub use place::Place;
pub use tls::{Identity, client_config, server_name};

use super::lookup::{Resolver, Unresolved};

/// A client gives up after this.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// A call, ready to be made any number of times.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is asked.
    pub request: Request,
    /// Request headers; `host` changes the authority only.
    pub headers: BTreeMap<String, String>,
    /// Request body, gRPC message or line.
    pub body: Option<String>,
    /// HTTP version.
    pub version: Version,
    /// Dial this instead of what the host resolves to.
    pub at: Option<SocketAddr>,
    /// TLS made by the caller.
    pub tls: Option<Tls>,
    /// Where it leaves.
    pub place: Place,
    /// How names resolve there; here as the system does.
    pub resolver: Option<Resolver>,
}

/// HTTP version of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: a connection for each request.
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2 without upgrade.
    Http2,
}

/// TLS made by the caller.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificate and ALPN.
    pub config: Arc<ClientConfig>,
    /// Server name asked for.
    pub sni: String,
}

/// What the caller saw of one call.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// HTTP status, or `ok`, `refused`, `reset`, `timeout`, `unresolved`.
    pub status: String,
    /// Of a gRPC answer.
    pub grpc_status: Option<u32>,
    /// Response headers; trailers are added.
    pub headers: BTreeMap<String, String>,
    /// Response body, message or line.
    pub body: Vec<u8>,
    /// What a DNS question was answered with.
    pub resolves: Option<Vec<IpAddr>>,
    /// `x-request-id` that was sent; empty where there is none.
    pub request_id: String,
    /// The caller's own address of the connection.
    pub local: Option<SocketAddr>,
    /// What was dialled.
    pub dialled: Option<SocketAddr>,
    /// When it began.
    pub began: Option<SystemTime>,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, in words.
    pub reason: Option<String>,
}

/// Why there is no answer: the word of the interface, and the reason.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    status: &'static str,
    reason: String,
}

impl Failure {
    fn new(status: &'static str, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// Of a connection that was there.
    fn cut(error: impl std::fmt::Display) -> Self {
        Self::new("reset", error.to_string())
    }
}

impl Plan {
    /// Makes the call once; `connections` are kept open between calls of one client where the protocol allows it.
    pub async fn call(&self, connections: &mut Connections) -> Seen {
        let began = SystemTime::now();
        let clock = tokio::time::Instant::now();
        let mut seen = Seen { request_id: request_id(), began: Some(began), ..Seen::default() };
        let done = match timeout(DEADLINE, self.make(connections, &mut seen)).await {
            Ok(done) => done,
            Err(_) => Err(Failure::new("timeout", format!("no answer within {DEADLINE:?}"))),
        };
        if let Err(failure) = done {
            connections.close();
            seen.status = failure.status.to_owned();
            seen.reason = Some(failure.reason);
        }
        seen.took = clock.elapsed();
        seen
    }

    async fn make(&self, connections: &mut Connections, seen: &mut Seen) -> Result<(), Failure> {
        match self.request.kind {
            RequestKind::Dns => self.resolve(seen).await,
            RequestKind::Tcp | RequestKind::Tls => {
                let stream = self.connect(seen).await?;
                tcp::exchange(self, stream, seen).await
            }
            RequestKind::Http | RequestKind::Https | RequestKind::Grpc => http::exchange(self, connections, seen).await,
            RequestKind::Ws | RequestKind::Udp => Err(Failure::new("refused", "the lab's caller does not speak this")),
        }
    }

    async fn resolve(&self, seen: &mut Seen) -> Result<(), Failure> {
        let addresses = self.addresses().await?;
        seen.resolves = Some(addresses);
        seen.status = "ok".into();
        Ok(())
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let host = &self.request.host;
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if self.place.is_here() {
            return system(host).await;
        }
        let Some(resolver) = &self.resolver else {
            return Err(Failure::new("unresolved", format!("{host}: this caller has no name server")));
        };
        resolver.addresses(&self.place, host).await.map_err(|e| match e {
            Unresolved::NoSuchName => Failure::new("unresolved", format!("{host}: no such name")),
            Unresolved::Silent(reason) => {
                Failure::new("timeout", format!("{host}: the name server does not answer: {reason}"))
            }
        })
    }

    /// A connection to what the URL means: addresses are tried in order, as programs do.
    async fn connect(&self, seen: &mut Seen) -> Result<Stream, Failure> {
        let targets: Vec<SocketAddr> = match self.at {
            Some(at) => vec![at],
            None => self.addresses().await?.into_iter().map(|ip| SocketAddr::new(ip, self.request.port)).collect(),
        };
        let mut last = Failure::new("unresolved", "no address");
        for target in targets {
            seen.dialled = Some(target);
            match self.place.tcp(target, &mut seen.local).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return match &self.tls {
                        None => Ok(Box::new(stream)),
                        Some(tls) => tls::handshake(tls, stream).await.map_err(Failure::cut),
                    };
                }
                Err(e) => last = refused(&e),
            }
        }
        Err(last)
    }
}

/// A connection, with or without TLS.
pub(super) type Stream = Box<dyn Duplex>;

/// Both ways.
pub(super) trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {
    /// The protocol that ALPN settled on.
    fn alpn(&self) -> Option<Vec<u8>>;
}

impl Duplex for TcpStream {
    fn alpn(&self) -> Option<Vec<u8>> {
        None
    }
}

/// As `getaddrinfo` does here. It tells a name that is not there from a server that is silent by words alone.
async fn system(host: &str) -> Result<Vec<IpAddr>, Failure> {
    match tokio::net::lookup_host((host, 0)).await {
        Ok(found) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for ip in found.map(|address| address.ip()) {
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
            Ok(addresses)
        }
        Err(e) => Err(Failure::new("unresolved", format!("{host}: {e}"))),
    }
}

fn refused(error: &io::Error) -> Failure {
    let status = match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::ConnectionReset => "reset",
        // No route, or an ICMP answer: nobody is there.
        _ => "refused",
    };
    Failure::new(status, error.to_string())
}

/// A random UUID (version 4), as Envoy makes them: proxies keep a caller's own only in this form.
fn request_id() -> String {
    let n = (fastrand::u128(..) & !(0xf000 << 64) & !(0xc000 << 48)) | (0x4000 << 64) | (0x8000 << 48);
    let hex = format!("{n:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    #[test]
    fn request_ids_are_random_uuids() {
        let id = super::request_id();
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4', "{id}");
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        assert_ne!(id, super::request_id());
    }
}
