//! TLS connections from a TCP listener: served side by side, bounded in number, for each source too, and in time.
//!
//! Invariants: a connection holds its place from accept to close, so that strangers cannot take more than there are, and none that a review
//! is being answered on; a connection that waits for its client, in whatever, is closed after a bound.

use super::server::Limits;
use crate::places::{Place, Places, Source};
use crate::quiet::Quiet;
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tower::Service as _;

/// After an accept that failed: out of file descriptors, mostly.
const PAUSE: Duration = Duration::from_millis(100);
/// Of a request's head; that of an API server is under 1 KiB.
const HEAD_BYTES: usize = 32 * 1024;

static NOT_ACCEPTED: Quiet = Quiet::new();
static FULL: Quiet = Quiet::new();

/// One connection, as its requests see it.
#[derive(Clone)]
pub struct Talk {
    pub source: Source,
    place: Arc<Place>,
    stage: watch::Sender<Stage>,
}

/// What a connection waits for, and since when.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Idle(Instant),
    Head(Instant),
    /// Since its head began.
    Request(Instant),
}

impl Stage {
    fn since(self) -> Instant {
        match self {
            Self::Idle(since) | Self::Head(since) | Self::Request(since) => since,
        }
    }
}

impl Talk {
    fn new(source: Source, place: Place) -> Self {
        Self { source, place: Arc::new(place), stage: watch::Sender::new(Stage::Idle(Instant::now())) }
    }

    fn bytes_came(&self) {
        self.stage.send_if_modified(|stage| {
            let begins = matches!(stage, Stage::Idle(_));
            if begins {
                *stage = Stage::Head(Instant::now());
            }
            begins
        });
    }

    fn head_came(&self) {
        self.stage.send_modify(|stage| *stage = Stage::Request(begun(*stage)));
    }

    /// The request is there as a whole: nobody gets its connection's place while it is answered.
    pub fn request_came(&self) {
        self.place.set_in_use(true);
    }

    fn answered(&self) {
        self.place.set_in_use(false);
        self.stage.send_replace(Stage::Idle(Instant::now()));
    }

    /// Until the client was waited for too long, or another got the place.
    async fn over(&self, limits: &Limits) {
        let mut stages = self.stage.subscribe();
        let waited = async {
            loop {
                let stage = *stages.borrow_and_update();
                let bound = match stage {
                    Stage::Idle(_) => limits.idle,
                    Stage::Head(_) => limits.head,
                    Stage::Request(_) => limits.request,
                };
                tokio::select! {
                    () = tokio::time::sleep_until(stage.since() + bound) => return,
                    _ = stages.changed() => {}
                }
            }
        };
        tokio::select! {
            () = waited => {}
            () = self.place.lost().cancelled() => {}
        }
    }
}

/// A request that came with the bytes of the one before begins when it is looked at.
fn begun(stage: Stage) -> Instant {
    match stage {
        Stage::Head(since) => since,
        Stage::Idle(_) | Stage::Request(_) => Instant::now(),
    }
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, config: Arc<ServerConfig>, routes: Router, limits: Limits) {
    let (acceptor, places) = (TlsAcceptor::from(config), Places::new(limits.places));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(more) = NOT_ACCEPTED.passes() {
                    tracing::warn!("a webhook connection was not accepted: {error}{more}");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let address = crate::listen::caller(address);
        let source = Source::from(address.ip());
        match places.take(source, std::time::Instant::now()) {
            Ok(place) => {
                let talk = Talk::new(source, place);
                drop(tokio::spawn(connection(stream, address, acceptor.clone(), routes.clone(), talk, limits)));
            }
            Err(full) => {
                if let Some(more) = FULL.passes() {
                    tracing::warn!(%address, "a webhook connection is refused: {full}{more}");
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    routes: Router,
    talk: Talk,
    limits: Limits,
) {
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(limits.handshake, acceptor.accept(stream)) => shaken,
        () = talk.place.lost().cancelled() => return,
    };
    let io = match shaken {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return tracing::debug!(%address, "a webhook handshake failed: {error}"),
        Err(_) => return tracing::debug!(%address, "a webhook handshake took too long"),
    };
    talk.stage.send_replace(Stage::Idle(Instant::now()));
    let of_requests = talk.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        of_requests.head_came();
        request.extensions_mut().insert(of_requests.clone());
        let (mut routes, talk) = (routes.clone(), of_requests.clone());
        async move {
            let answer = routes.call(request).await;
            talk.answered();
            answer
        }
    });
    let io = TokioIo::new(Watched { io, talk: talk.clone() });
    let served = hyper::server::conn::http1::Builder::new().max_buf_size(HEAD_BYTES).serve_connection(io, service);
    tokio::select! {
        _ = served => {}
        () = talk.over(&limits) => tracing::debug!(%address, "a webhook connection is closed: nothing came for too long"),
    }
}

/// A stream that tells when something came.
struct Watched {
    io: TlsStream<TcpStream>,
    talk: Talk,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.talk.bytes_came();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
