//! A connection to one endpoint: the way there (direct, or through one of a gateway's addresses), TLS, ALPN.
//!
//! Invariant: a mesh-TLS connection is handed out only after the peer has shown exactly the identity its endpoint demands.

use super::member::Member;
use super::trouble::Trouble;
use super::world::{Upstream, World};
use crate::identity::MeshIdentity;
use crate::worker::Worker;
use fairlead_engine::listener::{Mode, SanKind, TlsContext};
use fairlead_engine::path::PathEvent;
use fairlead_engine::upstream::{EndpointAddress, UpstreamTransport};
use fairlead_identity::{Expected, SpiffeId, VerifiedPeer, verdict};
use fairlead_transport::{DialError, DialOptions, Stream, TlsFacts, dial, tls};
use rustls::ClientConfig;
use rustls::pki_types::UnixTime;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// What the connection is for; decides the ALPN that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// HTTP in whatever version is negotiated.
    Http,
    /// HTTP/1.1 only (upgrades).
    Http1,
    Tcp,
}

/// What a connection is made with.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub worker: &'a Rc<Worker>,
    pub upstream: &'a Upstream,
    pub member: &'a Member,
    /// See [`way`].
    pub way: Way,
    pub purpose: Purpose,
    /// From an inbound listener to the program behind this proxy.
    pub to_program: bool,
}

/// Where an endpoint is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub address: SocketAddr,
    /// The same address, when it is a gateway's.
    pub gateway: Option<SocketAddr>,
}

/// A connected endpoint.
pub struct Connected {
    pub stream: Stream,
    /// Of the TLS handshake; `None` for plaintext.
    pub tls: Option<TlsFacts>,
    /// The mesh workload that has shown its identity.
    pub peer: Option<VerifiedPeer>,
    /// What was dialled.
    pub address: SocketAddr,
    /// The gateway address, when the endpoint is behind one.
    pub gateway: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
}

/// Why there is no connection. Nothing of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    #[error("{0}")]
    Dial(DialError),
    #[error("{0}")]
    Tls(String),
    /// No address of the gateway that leads there may be used.
    #[error("no usable address of gateway {0}")]
    NoGateway(Arc<str>),
    #[error("this proxy has no identity to call {0} with")]
    NoIdentity(Arc<str>),
}

/// Names offered for HTTP: both sides of the mesh, then what Envoy and others know.
const HTTP_ALPN: [&[u8]; 5] = [b"istio-h2", b"istio-http/1.1", b"istio", b"h2", b"http/1.1"];
const HTTP1_ALPN: [&[u8]; 3] = [b"istio-http/1.1", b"istio", b"http/1.1"];
const TCP_ALPN: [&[u8]; 2] = [b"istio-peer-exchange", b"istio"];

/// Connects to `member` of `upstream`.
///
/// # Errors
/// See [`ConnectFailure`]; what it says about the path has been reported already.
pub async fn connect(call: Call<'_>) -> Result<Connected, ConnectFailure> {
    let Call { worker, upstream, member, way: Way { address, gateway }, .. } = call;
    let far = gateway.is_some() || is_foreign(worker, member);
    let result = reach(call, address, upstream.cluster.connect_limit(far)).await;
    member.state.cx_total.fetch_add(1, Ordering::Relaxed);
    upstream.stats.cx_total.fetch_add(1, Ordering::Relaxed);
    match result {
        Ok((stream, facts, peer)) => {
            if far {
                let address = gateway.unwrap_or(address);
                worker.shared.paths.answered(address);
                let _ = worker.shared.trouble.send(Trouble::Path { address, event: PathEvent::ConnectOk });
            }
            let local = stream.local();
            Ok(Connected { stream, tls: facts, peer, address, gateway, local })
        }
        Err(failure) => {
            member.state.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
            upstream.stats.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
            if far && failure.is_about_the_path(gateway.is_some()) {
                let address = gateway.unwrap_or(address);
                let _ = worker.shared.trouble.send(Trouble::Path { address, event: PathEvent::ConnectFailed });
            }
            Err(failure)
        }
    }
}

/// The ALPN name means HTTP/2.
pub fn is_http2(alpn: Option<&str>) -> bool {
    matches!(alpn, Some("istio-h2" | "h2"))
}

/// The ALPN name leaves no doubt about HTTP/1.
pub fn is_http1(alpn: Option<&str>) -> bool {
    matches!(alpn, Some("istio-http/1.1" | "istio-http/1.0" | "http/1.1" | "http/1.0"))
}

impl ConnectFailure {
    /// Behind a gateway only the way to the gateway itself counts: a handshake that is refused is the endpoint's word.
    fn is_about_the_path(&self, gateway: bool) -> bool {
        match self {
            Self::Dial(error) => gateway || !error.is_refused(),
            Self::Tls(_) | Self::NoGateway(_) | Self::NoIdentity(_) => false,
        }
    }

    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Dial(DialError::Timeout(_)))
    }
}

async fn reach(
    call: Call<'_>,
    address: SocketAddr,
    limit: Duration,
) -> Result<(Stream, Option<TlsFacts>, Option<VerifiedPeer>), ConnectFailure> {
    let Call { worker, upstream, member, purpose, to_program, .. } = call;
    let started = Instant::now();
    let source = if to_program { passthrough(address) } else { None };
    let options = DialOptions { connect_timeout: limit, mark: worker.shared.mark, source };
    let raw = dial(address, options).await.map_err(ConnectFailure::Dial)?;
    let UpstreamTransport::Tls(context) = upstream.cluster.transport_of(&member.endpoint) else {
        return Ok((Stream::Plain(raw), None, None));
    };
    let mesh = context.mode == Mode::Mesh;
    let config = if mesh { mesh_config(worker, member, context, purpose)? } else { simple_config(worker, context)? };
    let name = server_name(context, member, address);
    // The whole way has to be made in the limit, with at least half of it for the handshake.
    let left = limit.saturating_sub(started.elapsed()).max(limit / 2);
    let (stream, facts) =
        tls::connect(raw, config, &name, left).await.map_err(|e| ConnectFailure::Tls(e.to_string()))?;
    let peer = match (&worker.shared.identity, mesh) {
        // Taken anew even after a full handshake: a resumed session was never shown to the verifier.
        (Some(identity), true) => Some(judge(identity, member, context, &facts)?),
        _ => None,
    };
    Ok((stream, Some(facts), peer))
}

/// Where a connection to the program behind the proxy comes from: the address by which capture rules tell it from a call of the workload
/// to itself (Istio's 127.0.0.6; capture adds ::6). What goes to a loopback address is never captured.
pub fn passthrough(program: SocketAddr) -> Option<SocketAddr> {
    match program.ip() {
        ip if ip.is_loopback() => None,
        IpAddr::V4(_) => Some((Ipv4Addr::new(127, 0, 0, 6), 0).into()),
        IpAddr::V6(_) => Some((Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6), 0).into()),
    }
}

fn judge(
    identity: &MeshIdentity,
    member: &Member,
    context: &TlsContext,
    facts: &TlsFacts,
) -> Result<VerifiedPeer, ConnectFailure> {
    let refused = |e: &dyn std::fmt::Display| ConnectFailure::Tls(e.to_string());
    let peer = verdict(&facts.chain, &identity.current_trust(), UnixTime::now()).map_err(|e| refused(&e))?;
    let id = peer.spiffe_id.as_str();
    if member.endpoint.identity().is_some_and(|wanted| **wanted != *id) || !context.accepts_uri(id) {
        return Err(ConnectFailure::Tls(format!("{id} is not who was called")));
    }
    Ok(peer)
}

/// Chooses the way to an endpoint for one try. Behind a gateway that is one of its addresses, each as often as the others; one
/// that is in doubt, or `failed` the try before, only when there is no other.
///
/// # Errors
/// No address of the gateway may be used.
pub fn way(worker: &Worker, world: &World, member: &Member, failed: Option<SocketAddr>) -> Result<Way, ConnectFailure> {
    match &member.endpoint.address {
        EndpointAddress::Socket(address) => Ok(Way { address: *address, gateway: None }),
        // The conductor has put addresses in the place of names.
        EndpointAddress::Named { host, .. } => Err(ConnectFailure::NoGateway(host.clone())),
        EndpointAddress::Gateway { hop, .. } => {
            let none = || ConnectFailure::NoGateway(hop.clone());
            let gateway = world.upstream(hop).ok_or_else(none)?;
            let worse =
                |address| 2 * u8::from(Some(address) == failed) + u8::from(worker.shared.paths.is_in_doubt(address));
            let address = gateway.any_address(worse).ok_or_else(none)?;
            Ok(Way { address, gateway: Some(address) })
        }
    }
}

fn is_foreign(worker: &Worker, member: &Member) -> bool {
    member.endpoint.cluster().is_some_and(|cluster| **cluster != *worker.shared.own.cluster)
}

fn server_name(context: &TlsContext, member: &Member, address: SocketAddr) -> String {
    let endpoint = &*member.endpoint.hostname;
    if context.auto_host_sni && !endpoint.is_empty() {
        endpoint.to_owned()
    } else if !context.sni.is_empty() {
        context.sni.to_string()
    } else if !endpoint.is_empty() {
        endpoint.to_owned()
    } else {
        address.ip().to_string()
    }
}

fn mesh_config(
    worker: &Worker,
    member: &Member,
    context: &Arc<TlsContext>,
    purpose: Purpose,
) -> Result<Arc<ClientConfig>, ConnectFailure> {
    let identity = worker.shared.identity.as_ref();
    let identity = identity.ok_or_else(|| ConnectFailure::NoIdentity(member.endpoint.key.0.clone()))?;
    let expected = match member.endpoint.identity() {
        Some(id) => {
            let id = SpiffeId::parse(id).map_err(|e| ConnectFailure::Tls(format!("endpoint identity: {e}")))?;
            if !context.accepts_uri(id.as_str()) {
                return Err(ConnectFailure::Tls(format!("{} is not among the names the rule accepts", id.as_str())));
            }
            Expected::one(id)
        }
        None if context.required_sans.iter().any(|san| san.kind == SanKind::Uri) => {
            let context = context.clone();
            Expected::matching("a name the rule accepts", move |id| context.accepts_uri(id.as_str()))
        }
        None => Expected::Any,
    };
    let alpn: &[&[u8]] = match purpose {
        Purpose::Http => &HTTP_ALPN,
        Purpose::Http1 => &HTTP1_ALPN,
        Purpose::Tcp => &TCP_ALPN,
    };
    identity.tls().client_config(&expected, alpn).map_err(|e| ConnectFailure::Tls(e.to_string()))
}

fn simple_config(worker: &Worker, context: &TlsContext) -> Result<Arc<ClientConfig>, ConnectFailure> {
    worker.shared.simple_tls.config(context).map_err(ConnectFailure::Tls)
}
