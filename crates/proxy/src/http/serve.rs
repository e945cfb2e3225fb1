//! One downstream HTTP connection, HTTP/1 or HTTP/2, from its first byte to its end.
//!
//! Invariant: a draining connection finishes what it carries and closes only when no request can be on its way.

use super::context::HttpContext;
use crate::telemetry::{Flags, RequestRecord};
use crate::worker::{Connection, Stage, Worker};
use fairlead_engine::listener::{Codec, HttpManager};
use fairlead_transport::{GuardSignals, HeadGuard, HttpKind, HttpLimits, LocalExecutor, Stream};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A caller that has gone silent in the middle of HTTP/2 is noticed by a ping.
const DOWNSTREAM_PING: Duration = Duration::from_secs(60);

/// Serves until the connection ends.
pub async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    manager: Arc<HttpManager>,
    stream: Stream,
    sniffed: Option<HttpKind>,
) {
    let limits = HttpLimits {
        head_bytes: manager.max_request_headers_kb as usize * 1024,
        idle_timeout: manager.idle_timeout.unwrap_or_default(),
        head_timeout: manager.request_headers_timeout.unwrap_or(HttpLimits::default().head_timeout),
        ..HttpLimits::default()
    };
    let h2 = match (manager.codec, connection.alpn.as_deref(), sniffed) {
        (Codec::Http1, ..) => false,
        (Codec::Http2, ..) => true,
        (Codec::Auto, alpn, _) if crate::upstream::is_http2(alpn) => true,
        (Codec::Auto, alpn, _) if crate::upstream::is_http1(alpn) => false,
        (Codec::Auto, _, Some(kind)) => kind == HttpKind::Http2,
        (Codec::Auto, _, None) => {
            let (stream, h2) = match by_preface(stream).await {
                Some(found) => found,
                None => return,
            };
            return version(worker, connection, manager, stream, limits, h2).await;
        }
    };
    version(worker, connection, manager, stream, limits, h2).await;
}

async fn version(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    manager: Arc<HttpManager>,
    stream: Stream,
    limits: HttpLimits,
    h2: bool,
) {
    if h2 {
        serve_http2(worker, connection, manager, stream, limits).await;
    } else {
        serve_http1(worker, connection, manager, stream, limits).await;
    }
}

async fn serve_http1(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    manager: Arc<HttpManager>,
    stream: Stream,
    limits: HttpLimits,
) {
    let signals = Arc::new(GuardSignals::default());
    let guard = HeadGuard::new(stream, limits, signals.clone());
    let context = HttpContext::new(worker.clone(), connection.clone(), manager.clone(), Some(signals.clone()));
    let service = service_fn(|request| {
        let context = context.clone();
        async move { Ok::<_, std::convert::Infallible>(super::exchange::handle(context, request).await) }
    });
    let serving = http1::Builder::new()
        .max_buf_size((limits.head_bytes + 8192).max(64 * 1024))
        .auto_date_header(true)
        .serve_connection(TokioIo::new(guard), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let closing = worker.drain.reached(Stage::Closing);
    let result = tokio::select! {
        biased;
        result = &mut serving => result,
        () = closing => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Some(refusal) = signals.refusal() {
        // hyper has answered 400; nobody else tells the story of a request that never became one.
        let log = worker.telemetry.logs.logger(&worker.telemetry.sink, &manager.access_log);
        let mut record = RequestRecord::begin(&worker, &connection, log);
        record.protocol = Some("HTTP/1.1");
        record.code = 400;
        record.flags.insert(Flags::DOWNSTREAM_PROTOCOL_ERROR);
        record.details = Cow::Borrowed(refusal.detail());
    }
    if let Err(error) = result {
        tracing::debug!(peer = %connection.remote, %error, "HTTP/1 connection ended");
    }
}

async fn serve_http2(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    manager: Arc<HttpManager>,
    stream: Stream,
    limits: HttpLimits,
) {
    let context = HttpContext::new(worker.clone(), connection.clone(), manager, None);
    let service = service_fn(|request| {
        let context = context.clone();
        async move { Ok::<_, std::convert::Infallible>(super::exchange::handle(context, request).await) }
    });
    let serving = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrent_streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(limits.head_bytes as u32)
        .max_send_buf_size(1024 * 1024)
        .keep_alive_interval(DOWNSTREAM_PING)
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    // GOAWAY leaves streams that are on their way: it can go out at once.
    let leaving = worker.drain.reached(Stage::Leaving);
    let result = tokio::select! {
        biased;
        result = &mut serving => result,
        () = leaving => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %connection.remote, %error, "HTTP/2 connection ended");
    }
}

/// Tells HTTP/2 with prior knowledge from HTTP/1 where nobody has sniffed.
async fn by_preface(stream: Stream) -> Option<(Stream, bool)> {
    match stream {
        Stream::Plain(mut raw) => {
            let want = fairlead_transport::SniffWant { tls: false, http: true };
            let sniffed = fairlead_transport::sniff(&mut raw, want, None).await.ok()?;
            Some((Stream::Plain(raw), sniffed.http == Some(HttpKind::Http2)))
        }
        // Inside TLS the version is ALPN's to tell; without it, it is HTTP/1.1.
        tls => Some((tls, false)),
    }
}
