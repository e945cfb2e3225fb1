//! HTTP handshakes towards an upstream.
//!
//! The connection task runs on the worker that made it. Invariants: HTTP/2 connections ping while a stream waits, so that a
//! path that fell silent is noticed in 3 s even when TCP has nothing in flight; a connection that is told to end ends at once, with
//! whatever it carries.

use crate::executor::ConnectionExecutor;
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

/// Speaks HTTP/2 with prior knowledge or after ALPN. Notifying `close` drops the connection and fails its streams; `held` is dropped
/// when it has ended.
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
    let executor = ConnectionExecutor::default();
    let (sender, dispatch) = http2::Builder::new(executor.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(limits.head_bytes as u32)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(io))
        .await?;
    let connection = executor.connection();
    tokio::task::spawn_local(async move {
        if let Err(error) = dispatch.await {
            tracing::debug!(%error, "HTTP/2 upstream connection ended");
        }
    });
    tokio::task::spawn_local(async move {
        let _held = held;
        let Some(mut connection) = connection else { return };
        tokio::select! {
            biased;
            _ = &mut connection => {}
            () = close.notified() => connection.abort(),
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Raw, Socket};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use hyper::server::conn::http2::Builder;
    use hyper::service::service_fn;
    use std::convert::Infallible;
    use std::task::Poll;

    /// A body that never comes.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    /// What is revoked is cut off, streams included; and also when nobody can send on the connection any more.
    #[tokio::test]
    async fn closing_an_http2_connection_ends_its_streams_at_once() {
        for sender_is_kept in [true, false] {
            let local = tokio::task::LocalSet::new();
            let run = async {
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                let serve = Builder::new(crate::LocalExecutor).serve_connection(
                    TokioIo::new(theirs),
                    service_fn(async |_| Ok::<_, Infallible>(hyper::Response::new(Endless))),
                );
                let server = tokio::task::spawn_local(serve);
                let close = Rc::new(Notify::new());
                let held = Rc::new(());
                let stream = Stream::Plain(Raw::new(Socket::Memory(ours)));
                let limits = HttpLimits::default();
                let mut sender = handshake_http2(stream, &limits, close.clone(), held.clone()).await.unwrap();
                let request = hyper::Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
                let mut body = sender.send_request(request).await.unwrap().into_body();
                let kept = sender_is_kept.then_some(sender);
                assert_eq!(Rc::strong_count(&held), 2, "it is open as long as it carries something");
                close.notify_one();
                assert!(body.frame().await.is_some_and(|frame| frame.is_err()), "the stream fails");
                // The server sees the end of the connection itself.
                let _ = server.await.unwrap();
                drop(kept);
            };
            tokio::time::timeout(Duration::from_secs(20), local.run_until(run)).await.unwrap();
        }
    }
}
