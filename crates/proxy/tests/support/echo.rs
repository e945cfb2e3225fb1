//! Programs to call: an HTTP echo, a TCP echo, and one that misbehaves.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A running HTTP program.
pub struct Program {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Program {
    /// Answers every request with what it saw, HTTP/1.1 and HTTP/2. `/grpc.*` answers two messages and trailers.
    pub async fn echo(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = count.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        count.fetch_add(1, Ordering::SeqCst);
                        answer(name, request)
                    });
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, requests, task }
    }

    /// Accepts, reads something, and closes without an answer.
    pub async fn reset() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 1024];
                if matches!(stream.read(&mut bytes).await, Ok(n) if n > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { address, requests, task }
    }

    /// Reads to the end, then answers what it read, reversed.
    pub async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await.unwrap();
                    all.reverse();
                    stream.write_all(&all).await.unwrap();
                });
            }
        });
        Self { address, requests: Arc::default(), task }
    }

    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address nobody listens on.
pub async fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(name: &'static str, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with("/grpc.") {
        return Ok(grpc(request).await);
    }
    if request.headers().contains_key("upgrade") {
        return Ok(upgrade(&mut request));
    }
    if let Some(ms) = request.headers().get("x-wait-ms").and_then(|v| v.to_str().ok()?.parse().ok()) {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
    }
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let headers: serde_json::Map<String, serde_json::Value> = parts
        .headers
        .iter()
        .map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned().into()))
        .collect();
    let authority = parts.uri.authority().map(|a| a.to_string());
    let seen = serde_json::json!({
        "name": name,
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map(|p| p.as_str()),
        "authority": authority.or_else(|| parts.headers.get("host").map(|h| h.to_str().unwrap().to_owned())),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "body": bytes.len(),
    });
    let status = parts.headers.get("x-answer").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(200);
    let mut response = Response::new(Full::new(Bytes::from(seen.to_string())).boxed());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    Ok(response)
}

async fn grpc(request: Request<Incoming>) -> Response<Body> {
    let body = request.into_body().collect().await.unwrap();
    let sent = body.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-length", HeaderValue::from(sent.len()));
    let frames = vec![
        Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 1, 7]))),
        Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 0]))),
        Ok(Frame::trailers(trailers)),
    ];
    let stream = StreamBody::new(tokio_stream::iter(frames));
    let mut response = Response::new(BodyExt::boxed(stream));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn upgrade(request: &mut Request<Incoming>) -> Response<Body> {
    let pending = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(pending.await.unwrap());
        let mut bytes = [0; 5];
        io.read_exact(&mut bytes).await.unwrap();
        bytes.reverse();
        io.write_all(&bytes).await.unwrap();
        io.shutdown().await.unwrap();
    });
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
    response
}
