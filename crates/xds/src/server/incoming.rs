//! Connections that know who is at their other end, and the server settings that suit discovery streams.
//!
//! TLS happens before: whoever accepts connections verifies them and wraps each with what it found out.

use crate::client::Io;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// A connection and the description of its client, which each request on it carries in its extensions.
pub struct Identified<C> {
    io: Io,
    client: C,
}

/// A tonic server with settings for long streams: a dead client is found within 15 seconds, and one connection
/// cannot open streams without bound. Not for TLS: the incoming connections are verified already.
pub fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .max_concurrent_streams(64)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
}

impl<C> Identified<C> {
    /// A verified connection.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, client: C) -> Self {
        Identified { io: Box::new(io), client }
    }
}

impl<C: Clone + Send + Sync + 'static> Connected for Identified<C> {
    type ConnectInfo = C;

    fn connect_info(&self) -> C {
        self.client.clone()
    }
}

impl<C: Unpin> AsyncRead for Identified<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<C: Unpin> AsyncWrite for Identified<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
