//! HTTP handshakes towards an upstream.
//!
//! The connection task runs on the worker that made it. Invariant: HTTP/2 connections ping while a stream waits, so that a
//! path that fell silent is noticed in 3 s even when TCP has nothing in flight.

use crate::executor::LocalExecutor;
use crate::limits::HttpLimits;
use crate::stream::Stream;
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// A PING goes out once a stream has heard nothing for this long...
const PING_AFTER: Duration = Duration::from_secs(1);
/// ...and the path is dead when two of its periods pass without an answer.
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// HTTP version spoken to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
}

/// The HTTP handshake failed.
#[derive(Debug, thiserror::Error)]
#[error("HTTP handshake: {0}")]
pub struct HandshakeError(#[from] hyper::Error);

/// Speaks HTTP/1.1. Notifying `close` drops the connection; `held` is dropped when it has ended.
///
/// # Errors
/// hyper refused the stream.
pub async fn handshake_http1<B>(
    io: Stream,
    close: Rc<Notify>,
    held: impl Sized + 'static,
) -> Result<http1::SendRequest<B>, HandshakeError>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::Builder::new()
        // hyper's default buffer limit is 400 KiB; a response head never needs more than Envoy's 60 KiB.
        .max_buf_size(256 * 1024)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(async move {
        let _held = held;
        tokio::select! {
            biased;
            result = connection.with_upgrades() => if let Err(error) = result {
                tracing::debug!(%error, "HTTP/1 upstream connection ended");
            },
            () = close.notified() => {}
        }
    });
    Ok(sender)
}

/// Speaks HTTP/2 with prior knowledge or after ALPN.
///
/// # Errors
/// The preface could not be exchanged.
pub async fn handshake_http2<B>(
    io: Stream,
    limits: &HttpLimits,
    close: Rc<Notify>,
    held: impl Sized + 'static,
) -> Result<http2::SendRequest<B>, HandshakeError>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(limits.head_bytes as u32)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(async move {
        let _held = held;
        tokio::select! {
            biased;
            result = connection => if let Err(error) = result {
                tracing::debug!(%error, "HTTP/2 upstream connection ended");
            },
            () = close.notified() => {}
        }
    });
    Ok(sender)
}
