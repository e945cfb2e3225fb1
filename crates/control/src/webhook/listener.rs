//! TLS connections from a TCP listener: handshakes side by side, bounded in number and time.
//!
//! Invariant: a connection holds its place from accept to close, so that strangers cannot take more than [`PLACES`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// An API server keeps a few connections; several API servers and a storm of pods stay below it.
const PLACES: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After an accept that failed: out of file descriptors, mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections whose handshake is done.
pub struct Connections {
    done: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

/// One connection, and its place.
pub struct Connection {
    io: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    /// Accepts for as long as the result lives.
    pub fn accept(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (into, done) = mpsc::channel(16);
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, TlsAcceptor::from(config), into.clone()) => {}
                () = into.closed() => {}
            }
        });
        Ok(Self { done, address })
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, into: mpsc::Sender<(Connection, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a webhook connection was not accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, into) = (acceptor.clone(), into.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(io)) => drop(into.send((Connection { io, _place: place }, address)).await),
                Ok(Err(error)) => tracing::debug!(%address, "a webhook handshake failed: {error}"),
                Err(_) => tracing::debug!(%address, "a webhook handshake took too long"),
            }
        });
    }
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.done.recv().await {
            Some(next) => next,
            // The accepting task ends only with this value.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
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
