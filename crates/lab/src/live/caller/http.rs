//! HTTP/1.0, HTTP/1.1, HTTP/2 and gRPC requests, by hyper's client.
//!
//! Invariant: path and query go out byte for byte as written; a connection is kept between requests only while it is whole, and a
//! request is sent once: whether it is repeated is for the mesh to decide.

use bytes::{BufMut, Bytes, BytesMut};
use fairlead_calls::RequestKind;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Failure, Plan, Seen, Version};

/// An answer longer than this is an error; echo answers are a few kilobytes.
const LONGEST: usize = 4 << 20;

type Body = Full<Bytes>;

/// The connection of one client, if one is open.
#[derive(Debug, Default)]
pub struct Connections {
    open: Option<Sender>,
    local: Option<std::net::SocketAddr>,
    dialled: Option<std::net::SocketAddr>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connections {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next call opens a new one.
    pub fn close(&mut self) {
        self.open = None;
    }
}

pub(super) async fn exchange(plan: &Plan, connections: &mut Connections, seen: &mut Seen) -> Result<(), Failure> {
    let kept = match &mut connections.open {
        Some(Sender::Http1(sender)) => sender.ready().await.is_ok(),
        Some(Sender::Http2(sender)) => sender.ready().await.is_ok(),
        None => false,
    };
    if kept {
        (seen.local, seen.dialled) = (connections.local, connections.dialled);
    } else {
        connections.open = Some(open(plan, seen).await?);
        (connections.local, connections.dialled) = (seen.local, seen.dialled);
    }
    let response = match &mut connections.open {
        Some(Sender::Http1(sender)) => {
            let request = request(plan, false, seen)?;
            sender.send_request(request).await.map_err(Failure::cut)?
        }
        Some(Sender::Http2(sender)) => {
            let request = request(plan, true, seen)?;
            sender.send_request(request).await.map_err(Failure::cut)?
        }
        None => return Err(Failure::new("reset", "the connection is gone")),
    };
    if plan.version == Version::Http10 {
        connections.open = None;
    }
    read(plan, response, seen).await
}

async fn open(plan: &Plan, seen: &mut Seen) -> Result<Sender, Failure> {
    let stream = plan.connect(seen).await?;
    let alpn = stream.alpn();
    let by_alpn = matches!(alpn.as_deref(), Some(b"h2" | b"istio-h2"));
    let io = TokioIo::new(stream);
    if by_alpn || plan.version == Version::Http2 || plan.request.kind == RequestKind::Grpc {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(Failure::cut)?;
        tokio::spawn(connection);
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) = http1::handshake(io).await.map_err(Failure::cut)?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }
}

pub(super) fn request(plan: &Plan, http2: bool, seen: &Seen) -> Result<Request<Body>, Failure> {
    let broken = |what: &str| Failure::new("refused", format!("{what} cannot be sent"));
    let written =
        plan.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.clone());
    let authority = written.unwrap_or_else(|| plan.request.authority());
    let scheme = if plan.request.kind == RequestKind::Https { "https" } else { "http" };
    let uri = if http2 { format!("{scheme}://{authority}{}", plan.request.path) } else { plan.request.path.clone() };
    let grpc = plan.request.kind == RequestKind::Grpc;
    let body = match (&plan.body, grpc) {
        (body, true) => message(body.as_deref().unwrap_or_default().as_bytes()),
        (Some(body), false) => Bytes::from(body.clone()),
        (None, false) => Bytes::new(),
    };
    let mut request = Request::builder()
        .method(plan.request.method.as_str())
        .uri(&uri)
        .body(Full::new(body))
        .map_err(|_| broken(&uri))?;
    *request.version_mut() = match (http2, plan.version) {
        (true, _) => hyper::Version::HTTP_2,
        (false, Version::Http10) => hyper::Version::HTTP_10,
        (false, _) => hyper::Version::HTTP_11,
    };
    let headers = request.headers_mut();
    if !http2 {
        headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| broken("host"))?);
    }
    if let Ok(id) = HeaderValue::from_str(&seen.request_id) {
        headers.insert("x-request-id", id);
    }
    headers.insert("user-agent", HeaderValue::from_static("fairlead-lab"));
    if grpc {
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
    }
    for (name, value) in plan.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| broken(name))?;
        headers.insert(header, HeaderValue::from_str(value).map_err(|_| broken(name))?);
    }
    Ok(request)
}

async fn read(plan: &Plan, response: Response<Incoming>, seen: &mut Seen) -> Result<(), Failure> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(Failure::cut)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let bytes = body.to_bytes();
    for (name, value) in headers.iter().chain(&trailers) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let joined = seen.headers.entry(name.to_string()).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(&value);
    }
    seen.body = bytes.to_vec();
    if plan.request.kind == RequestKind::Grpc {
        seen.grpc_status = seen.headers.get("grpc-status").and_then(|code| code.parse().ok());
        // 5 bytes of prefix: compressed or not, and the length.
        seen.body = bytes.get(5..).unwrap_or_default().to_vec();
    }
    seen.status = status.to_string();
    Ok(())
}

pub(super) fn message(bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(bytes.len() + 5);
    framed.put_u8(0);
    framed.put_u32(bytes.len() as u32);
    framed.put_slice(bytes);
    framed.freeze()
}
