//! Connecting to an upstream address.
//!
//! Invariant: a dial ends within its limit, and tells a refusal from a silence.

use crate::socket;
use crate::stream::{Raw, Socket};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct DialOptions {
    pub connect_timeout: Duration,
    /// `SO_MARK`, so that capture rules let the proxy's own traffic pass.
    pub mark: Option<u32>,
    /// Source address to bind (Envoy `upstream_bind_config`; Istio's 127.0.0.6 for inbound passthrough).
    pub source: Option<SocketAddr>,
}

/// Why nothing was connected.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("connect to {0}: timed out")]
    Timeout(SocketAddr),
    #[error("connect to {0}: {1}")]
    Failed(SocketAddr, io::Error),
}

impl DialError {
    /// Nobody listens there (the callee's host answered).
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Failed(_, e) if e.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Connects.
///
/// # Errors
/// Refused, unreachable, timed out, or the socket could not be marked.
pub async fn dial(remote: SocketAddr, options: DialOptions) -> Result<Raw, DialError> {
    let socket = socket::upstream(remote, options.source, options.mark).map_err(|e| DialError::Failed(remote, e))?;
    match tokio::time::timeout(options.connect_timeout, socket.connect(remote)).await {
        Ok(Ok(stream)) => Ok(Raw::new(Socket::Tcp(stream))),
        Ok(Err(e)) if e.kind() == io::ErrorKind::TimedOut => Err(DialError::Timeout(remote)),
        Ok(Err(e)) => Err(DialError::Failed(remote, e)),
        Err(_) => Err(DialError::Timeout(remote)),
    }
}
