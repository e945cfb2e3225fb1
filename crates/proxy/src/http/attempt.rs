//! One try: admit, take or make a connection, send, wait for the head.
//!
//! Invariant: a failure says truthfully whether anything of the request may have reached the upstream; a request that was
//! handed back unsent goes out again on a fresh connection without counting as a try.

use super::request_body::RequestBody;
use super::response_body::Borrowed;
use crate::upstream::{
    Call, ClusterStats, ConnectFailure, Connected, InUse, Member, Purpose, Resource, Trouble, Upstream, World, connect,
    is_http1, is_http2, way,
};
use crate::worker::{Departed, PoolKey, PoolKind, Worker};
use fairlead_engine::errors::ProxyError;
use fairlead_engine::listener::Mode;
use fairlead_engine::path::PathEvent;
use fairlead_engine::upstream::{UpstreamProtocol, UpstreamTransport};
use fairlead_transport::pool::{Connection as Pooled, Lease, Pool, Sender};
use fairlead_transport::{HttpLimits, Protocol, handshake_http1, handshake_http2};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What is sent.
pub struct Outgoing {
    pub method: Method,
    /// Path and query.
    pub target: http::uri::PathAndQuery,
    pub authority: String,
    pub headers: HeaderMap,
    pub body: RequestBody,
    pub version: Version,
    pub upgrade: bool,
    /// From an inbound listener to the program behind this proxy.
    pub to_program: bool,
}

/// A head that came back.
pub struct Answer {
    pub response: Response<Incoming>,
    pub borrowed: Borrowed,
    pub in_use: InUse,
    /// The peer is an authenticated mesh workload.
    pub mesh: bool,
}

/// A try without a head.
pub struct Failed {
    pub error: ProxyError,
    /// Something of the request may have been written.
    pub sent: bool,
    pub reason: Option<String>,
}

/// What is learned of the connection, for the record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    pub address: Option<SocketAddr>,
    pub gateway: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub tls: bool,
}

/// Times that a request may come back unsent from a dead pooled connection before that counts as a failure.
const STALE_LIMIT: u32 = 8;
/// Pings of upstream connections: after 1 s of silence, given up 2 s later.
const PING_LIMIT: Duration = Duration::from_millis(2900);

/// Makes one try, not through the gateway address that failed before if there is another.
#[expect(clippy::too_many_arguments, reason = "each is a thing of its own, and there is one caller")]
pub async fn attempt(
    worker: &Rc<Worker>,
    world: &Arc<World>,
    upstream: &Arc<Upstream>,
    member: &Arc<Member>,
    outgoing: Outgoing,
    per_try: Option<Duration>,
    failed_gateway: Option<SocketAddr>,
    facts: &mut Facts,
) -> Result<Answer, Failed> {
    let Some(in_use) = upstream.stats.request(&upstream.cluster.limits, &member.state) else {
        return Err(Failed::unsent(ProxyError::Overflow, None));
    };
    let trying = exchange(worker, world, upstream, member, outgoing, failed_gateway, facts);
    let (response, borrowed, mesh) = match per_try {
        None => trying.await?,
        Some(limit) => match tokio::time::timeout(limit, trying).await {
            Ok(result) => result?,
            Err(_) => return Err(Failed { error: ProxyError::PerTryTimeout, sent: true, reason: None }),
        },
    };
    Ok(Answer { response, borrowed, in_use, mesh })
}

async fn exchange(
    worker: &Rc<Worker>,
    world: &Arc<World>,
    upstream: &Arc<Upstream>,
    member: &Arc<Member>,
    mut outgoing: Outgoing,
    failed_gateway: Option<SocketAddr>,
    facts: &mut Facts,
) -> Result<(Response<Incoming>, Borrowed, bool), Failed> {
    let kind = pool_kind(upstream, member, &outgoing);
    let to_program = outgoing.to_program;
    let purpose = if kind == PoolKind::Http1 { Purpose::Http1 } else { Purpose::Http };
    let way = way(worker, world, member, failed_gateway).map_err(Failed::from)?;
    facts.gateway = way.gateway;
    let call = Call { worker, upstream, member, way, purpose, to_program };
    let pool = worker.pools.of(PoolKey { slot: member.state.slot, via: way.gateway, kind });
    let mut stale = 0;
    loop {
        let mut lease = acquire(call, &upstream.stats, &pool, kind).await?;
        let info = lease.connection().info();
        *facts = Facts { address: info.address, gateway: info.gateway, local: info.local, tls: info.tls };
        let far = info.gateway.or(info.address.filter(|_| info.far));
        if info.mesh
            && let Some(own) = &worker.shared.own_header
        {
            outgoing.headers.insert(crate::telemetry::PEER_HEADER, own.clone());
        }
        let request = build(outgoing, lease.protocol());
        let waited = far.map(|_| std::time::Instant::now());
        let sent = send(worker, member, &mut lease.sender, request, far).await;
        match sent {
            Ok(response) => {
                if let Some(address) = far {
                    worker.shared.paths.answered(address);
                }
                let borrowed = Borrowed { pool, lease: Some(lease) };
                return Ok((response, borrowed, info.mesh));
            }
            Err(Sent::Departed) => {
                release(&pool, lease);
                return Err(Failed {
                    error: ProxyError::PathDead,
                    sent: true,
                    reason: Some("left rotation".to_owned()),
                });
            }
            Err(Sent::Unsent(request)) if stale < STALE_LIMIT => {
                stale += 1;
                release(&pool, lease);
                outgoing = Outgoing { to_program, ..unbuild(*request) };
            }
            Err(Sent::Unsent(_)) => {
                release(&pool, lease);
                return Err(Failed::unsent(ProxyError::UpstreamClosed, None));
            }
            Err(Sent::Failed(error, reason)) => {
                let error = by_patience(error, lease.protocol(), waited);
                let dead = error == ProxyError::PathDead;
                if dead {
                    lease.connection().close();
                }
                release(&pool, lease);
                if dead && let Some(address) = far {
                    let _ = worker.shared.trouble.send(Trouble::Path { address, event: PathEvent::PingFailed });
                }
                return Err(Failed { error, sent: true, reason: Some(reason) });
            }
        }
    }
}

/// hyper ends an HTTP/2 connection whose pings go unanswered without saying so: its streams see a broken pipe, after just
/// that long. Where a peer closed at that moment, the path is put in doubt for nothing, and a probe clears it.
fn by_patience(error: ProxyError, protocol: Protocol, waited: Option<std::time::Instant>) -> ProxyError {
    let pinged = waited.is_some_and(|since| since.elapsed() >= PING_LIMIT);
    if error == ProxyError::UpstreamClosed && protocol == Protocol::Http2 && pinged {
        ProxyError::PathDead
    } else {
        error
    }
}

/// HTTP/2: the stream is over. HTTP/1: the connection is in no state to be used again, and closes.
fn release(pool: &Pool<RequestBody>, lease: Lease<RequestBody>) {
    if lease.protocol() == Protocol::Http2 {
        pool.give_back(lease);
    }
}

enum Sent {
    /// The request came back whole.
    Unsent(Box<Request<RequestBody>>),
    Departed,
    Failed(ProxyError, String),
}

async fn send(
    worker: &Rc<Worker>,
    member: &Member,
    sender: &mut Sender<RequestBody>,
    request: Request<RequestBody>,
    via: Option<SocketAddr>,
) -> Result<Response<Incoming>, Sent> {
    let outcome = match sender {
        Sender::Http1(sender) => {
            if !sender.is_ready() && sender.ready().await.is_err() {
                return Err(Sent::Unsent(Box::new(request)));
            }
            let waiting = pin!(sender.try_send_request(request));
            worker.in_flight.attempt(member.state.slot, via, waiting).await
        }
        Sender::Http2(sender) => {
            let waiting = pin!(sender.try_send_request(request));
            worker.in_flight.attempt(member.state.slot, via, waiting).await
        }
    };
    match outcome {
        Ok(Ok(response)) => Ok(response),
        Err(Departed) => Err(Sent::Departed),
        Ok(Err(mut error)) => match error.take_message() {
            Some(request) => Err(Sent::Unsent(Box::new(request))),
            None => {
                let error = error.into_error();
                Err(Sent::Failed(classify(&error), reason(&error)))
            }
        },
    }
}

/// What hyper's error says about the connection.
fn classify(error: &hyper::Error) -> ProxyError {
    if error.is_timeout() {
        // The only time-out set on an upstream connection is the one of its pings.
        return ProxyError::PathDead;
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            if h2.reason() == Some(h2::Reason::REFUSED_STREAM) || (h2.is_go_away() && h2.is_remote()) {
                return ProxyError::RefusedStream;
            }
            if h2.is_reset() && h2.is_remote() {
                return ProxyError::UpstreamReset;
            }
            if h2.is_library() {
                return ProxyError::UpstreamProtocol;
            }
        }
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            if io.kind() == std::io::ErrorKind::TimedOut {
                // TCP_USER_TIMEOUT: data stayed unacknowledged.
                return ProxyError::PathDead;
            }
            return ProxyError::UpstreamClosed;
        }
        source = inner.source();
    }
    if error.is_parse() { ProxyError::UpstreamProtocol } else { ProxyError::UpstreamClosed }
}

fn reason(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// A connection for one request.
async fn acquire(
    call: Call<'_>,
    stats: &Arc<ClusterStats>,
    pool: &Rc<Pool<RequestBody>>,
    kind: PoolKind,
) -> Result<Lease<RequestBody>, Failed> {
    let Call { worker, upstream, member, .. } = call;
    loop {
        if let Some(lease) = pool.take() {
            return Ok(lease);
        }
        // Where HTTP/2 is to be expected, one request connects and the others share.
        let shared = kind == PoolKind::Http2 || (kind == PoolKind::Negotiated && pool.known() != Some(Protocol::Http1));
        let turn = if shared {
            match pool.turn_to_connect().await {
                Some(turn) => Some(turn),
                None => continue,
            }
        } else {
            None
        };
        let Some(admitted) = stats.admit(Resource::Connection, &upstream.cluster.limits) else {
            drop(turn);
            wait_for_room(upstream, stats).await?;
            continue;
        };
        let connected = connect(call).await.map_err(Failed::from)?;
        let alpn = connected.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        let h2 = match kind {
            PoolKind::Http1 => false,
            PoolKind::Http2 => !is_http1(alpn),
            PoolKind::Negotiated => is_http2(alpn) || (!is_http1(alpn) && wants_http2(upstream)),
        };
        let connection = Pooled::new();
        watch(worker, &connection, &connected);
        connection.describe(info_of(worker, member, &connected));
        let lease = make(pool, connection, connected, h2, admitted).await?;
        drop(turn);
        return Ok(lease);
    }
}

async fn make(
    pool: &Rc<Pool<RequestBody>>,
    connection: Rc<Pooled>,
    connected: Connected,
    h2: bool,
    admitted: crate::upstream::Admitted,
) -> Result<Lease<RequestBody>, Failed> {
    let failed = |e: fairlead_transport::HandshakeError| Failed::unsent(ProxyError::ConnectFailed, Some(e.to_string()));
    let sender = if h2 {
        let limits = HttpLimits::default();
        Sender::Http2(handshake_http2(connected.stream, &limits, connection.closer(), admitted).await.map_err(failed)?)
    } else {
        Sender::Http1(handshake_http1(connected.stream, connection.closer(), admitted).await.map_err(failed)?)
    };
    Ok(pool.adopt(sender, connection))
}

/// Envoy's pending queue: so many requests may wait for a connection to become free.
async fn wait_for_room(upstream: &Upstream, stats: &Arc<ClusterStats>) -> Result<(), Failed> {
    let freed = stats.freed();
    let Some(_pending) = stats.admit(Resource::Pending, &upstream.cluster.limits) else {
        return Err(Failed::unsent(ProxyError::Overflow, None));
    };
    // The connection that becomes free may belong to another endpoint or worker: look again before long.
    let _ = tokio::time::timeout(Duration::from_millis(20), freed).await;
    Ok(())
}

fn watch(worker: &Rc<Worker>, connection: &Rc<Pooled>, connected: &Connected) {
    if let Some(peer) = &connected.peer {
        worker.live.watch(peer.clone(), &connection.closer());
    }
}

fn info_of(worker: &Worker, member: &Member, connected: &Connected) -> fairlead_transport::pool::ConnectionInfo {
    fairlead_transport::pool::ConnectionInfo {
        address: Some(connected.address),
        gateway: connected.gateway,
        local: connected.local,
        tls: connected.tls.is_some(),
        mesh: connected.peer.is_some(),
        far: member.endpoint.cluster().is_some_and(|cluster| **cluster != *worker.shared.own.cluster),
    }
}

fn wants_http2(upstream: &Upstream) -> bool {
    upstream.cluster.protocol == UpstreamProtocol::Http2
}

fn pool_kind(upstream: &Upstream, member: &Member, outgoing: &Outgoing) -> PoolKind {
    if outgoing.upgrade {
        return PoolKind::Http1;
    }
    let protocol = upstream.cluster.protocol;
    match upstream.cluster.transport_of(&member.endpoint) {
        // Where nobody has said what the program speaks, it gets what the caller spoke: the callee's proxy knows no more than this.
        UpstreamTransport::Tls(tls)
            if tls.mode == Mode::Mesh
                && protocol == UpstreamProtocol::UseDownstream
                && outgoing.version != Version::HTTP_2 =>
        {
            PoolKind::Http1
        }
        // Between two proxies of the mesh HTTP travels as HTTP/2 whenever both can.
        UpstreamTransport::Tls(tls) if tls.mode == Mode::Mesh => PoolKind::Negotiated,
        UpstreamTransport::Tls(_) if protocol == UpstreamProtocol::Auto => PoolKind::Negotiated,
        _ => match protocol {
            UpstreamProtocol::Http2 => PoolKind::Http2,
            UpstreamProtocol::UseDownstream if outgoing.version == Version::HTTP_2 => PoolKind::Http2,
            _ => PoolKind::Http1,
        },
    }
}

fn build(mut outgoing: Outgoing, protocol: Protocol) -> Request<RequestBody> {
    let mut request = Request::new(outgoing.body);
    *request.method_mut() = outgoing.method;
    match protocol {
        Protocol::Http1 => {
            super::headers::join_cookies(&mut outgoing.headers);
            if let Ok(host) = http::HeaderValue::from_str(&outgoing.authority) {
                outgoing.headers.insert(http::header::HOST, host);
            }
            *request.uri_mut() = Uri::from(outgoing.target);
            *request.version_mut() = Version::HTTP_11;
        }
        Protocol::Http2 => {
            outgoing.headers.remove(http::header::HOST);
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(http::uri::Scheme::HTTP);
            parts.authority = outgoing.authority.parse().ok();
            parts.path_and_query = Some(outgoing.target);
            // Without an authority that parses the scheme must go as well; the upstream then answers for itself.
            if parts.authority.is_none() {
                parts.scheme = None;
            }
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            *request.version_mut() = Version::HTTP_2;
        }
    }
    *request.headers_mut() = outgoing.headers;
    request
}

fn unbuild(request: Request<RequestBody>) -> Outgoing {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(|a| a.as_str()).or(host).unwrap_or_default().to_owned();
    let upgrade = parts.headers.contains_key(http::header::UPGRADE);
    let fallback = || http::uri::PathAndQuery::from_static("/");
    Outgoing {
        method: parts.method,
        target: parts.uri.into_parts().path_and_query.unwrap_or_else(fallback),
        authority,
        headers: parts.headers,
        body,
        version: parts.version,
        upgrade,
        to_program: false,
    }
}

impl Failed {
    fn unsent(error: ProxyError, reason: Option<String>) -> Self {
        Self { error, sent: false, reason }
    }
}

impl From<ConnectFailure> for Failed {
    fn from(failure: ConnectFailure) -> Self {
        let error = match &failure {
            _ if failure.is_timeout() => ProxyError::ConnectTimeout,
            ConnectFailure::Dial(_) => ProxyError::ConnectFailed,
            ConnectFailure::NoGateway(_) => ProxyError::ConnectFailed,
            ConnectFailure::Tls(_) | ConnectFailure::NoIdentity(_) => ProxyError::UpstreamTls,
        };
        Self::unsent(error, Some(failure.to_string()))
    }
}
