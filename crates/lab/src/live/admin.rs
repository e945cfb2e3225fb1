//! Asking control planes and proxies: one small HTTP exchange, over a Unix socket or from inside a namespace.
//!
//! Invariant: every exchange ends within its deadline and reads a bounded answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::Handle;

/// Listings of a large mesh are megabytes; a round of per-call records may be some tens of them.
const MOST_BYTES: usize = 64 << 20;
/// An admin interface that says nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where a proxy's admin interface listens in its namespace.
pub const PROXY_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Why an exchange gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct AdminError {
    /// Who was asked for what.
    pub what: String,
    /// What came instead.
    pub reason: String,
}

/// GET of a listing of a control plane.
pub async fn get(socket: &Path, path: &str) -> Result<Value, AdminError> {
    over_unix(socket, "GET", path, None).await
}

/// POST of a change to a control plane.
pub async fn post(socket: &Path, path: &str, body: &Value) -> Result<Value, AdminError> {
    over_unix(socket, "POST", path, Some(body)).await
}

/// Asks a proxy; `owner` is a name of the plan. The answer is JSON, or text.
pub async fn proxy(handle: &Handle, owner: &str, method: &str, path: &str) -> Result<Bytes, AdminError> {
    let error = |reason: String| AdminError { what: format!("proxy of {owner}: {method} {path}"), reason };
    let work = async {
        let namespace = handle.namespace(owner).map_err(|e| error(e.to_string()))?;
        let stream = namespace.connect(PROXY_ADMIN).await.map_err(|e| error(e.to_string()))?;
        exchange(stream, method, path, None).await.map_err(error)
    };
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(error(format!("no answer within {PATIENCE:?}"))))
}

async fn over_unix(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value, AdminError> {
    let error = |reason: String| AdminError { what: format!("{} {method} {path}", socket.display()), reason };
    let work = async {
        let stream = UnixStream::connect(socket).await.map_err(|e| error(e.to_string()))?;
        exchange(stream, method, path, body).await.map_err(error)
    };
    let bytes =
        timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(error(format!("no answer within {PATIENCE:?}"))))?;
    serde_json::from_slice(&bytes).map_err(|e| error(format!("no JSON: {e}")))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Bytes, String> {
    let text = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    tokio::spawn(connection);
    let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(bytes))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|e| e.to_string())?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let told = serde_json::from_slice::<Value>(&body).ok().and_then(|v| v["error"].as_str().map(str::to_owned));
    Err(told.unwrap_or_else(|| format!("{status}: {}", String::from_utf8_lossy(&body).trim())))
}
