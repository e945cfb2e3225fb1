//! Connections that a control plane which nobody can dial holds ready at its peers.
//!
//! It dials with the protocol [`REVERSE`]. Then, on the same connection, who was dialled asks and who dialled answers: to all above it the
//! connection came the other way. Where several replicas share an address, each of them is to find one: a line that nobody took up is
//! dropped after a while and another is dialled, until it meets one that has none. Invariants: both ends have shown control planes'
//! certificates before a line is one; a line stands for the cluster of its certificate alone; one that is taken up stays as long as its
//! connection.

use crate::authority::{Authority, now};
use crate::caller::Caller;
use crate::connections::Connections;
use crate::dial;
use crate::places::Source;
use crate::quiet::{Quiet, short};
use fairlead_identity::{Expected, SpiffeId, join, verdict};
use fairlead_runtime::Backoff;
use fairlead_xds::client::Io;
use fairlead_xds::server::Identified;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// ALPN of a connection whose ends change their parts after the handshake.
pub const REVERSE: &[u8] = b"fairlead-reverse";
/// A handshake may take this long.
const CONNECT: Duration = Duration::from_secs(5);
/// A line that nobody took up for so long is dropped.
const SPARE: Duration = Duration::from_secs(4);
/// And the next is dialled this much later: one that is lost is replaced within a lease.
const SEARCH: Duration = Duration::from_secs(2);
/// Lines of one peer that are in use: its replicas.
const MOST: usize = 8;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

static NOT_HELD: Quiet = Quiet::new();

/// Lines that wait to be taken up: the newest of each cluster.
#[derive(Default)]
pub struct Lines {
    waiting: Mutex<BTreeMap<String, Io>>,
    offered: Notify,
}

impl Lines {
    /// A peer holds one ready.
    pub fn offer(&self, cluster: &str, line: Io) {
        self.waiting.lock().insert(cluster.to_owned(), line);
        self.offered.notify_waiters();
    }

    /// The next line of a cluster, when it has one.
    pub async fn take(&self, cluster: &str) -> Io {
        loop {
            let mut offered = std::pin::pin!(self.offered.notified());
            offered.as_mut().enable();
            if let Some(line) = self.waiting.lock().remove(cluster) {
                return line;
            }
            offered.await;
        }
    }
}

/// Holds lines ready.
#[derive(Clone)]
pub struct Holder {
    pub authority: Arc<Authority>,
    pub connections: Arc<Connections>,
    /// Where accepted connections go.
    pub into: mpsc::Sender<io::Result<Identified<Caller>>>,
}

impl Holder {
    /// Keeps lines at a peer, forever.
    pub async fn hold(self, addresses: Vec<String>, identity: SpiffeId) {
        let mut used: JoinSet<()> = JoinSet::new();
        let mut attempt = 0;
        for address in addresses.iter().cycle() {
            let dialled = tokio::time::timeout(CONNECT, self.line(address, &identity)).await;
            let line = match dialled.unwrap_or_else(|_| Err(anyhow::anyhow!("it does not answer within {CONNECT:?}"))) {
                Ok(line) => line,
                Err(e) => {
                    if let Some(more) = NOT_HELD.passes() {
                        tracing::warn!(peer = %identity, address, "no line can be held ready: {}{more}", short(&format!("{e:#}")));
                    }
                    tokio::time::sleep(BACKOFF.sample(attempt)).await;
                    attempt += 1;
                    continue;
                }
            };
            attempt = 0;
            match tokio::time::timeout(SPARE, line.taken).await {
                Ok(Ok(())) => drop(used.spawn(async move { drop(line.gone.await) })),
                Ok(Err(_)) => {}
                Err(_) => line.end.cancel(),
            }
            tokio::select! {
                _ = used.join_next(), if !used.is_empty() => {}
                () = tokio::time::sleep(SEARCH), if used.len() < MOST => {}
            }
        }
    }

    async fn line(&self, address: &str, identity: &SpiffeId) -> anyhow::Result<Line> {
        let expected = Expected::OneOf(Arc::new([identity.clone()].into()));
        let config = self.authority.tls().client_config(&expected, &[REVERSE])?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let remote = stream.peer_addr()?;
        // Nothing is said on a line before it is taken up: only the kernel can find out that its other end is gone.
        let alive =
            TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2)).with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&alive)?;
        let tls = TlsConnector::from(config).connect(ServerName::try_from(dial::NAME)?, stream).await?;
        let (_, connection) = tls.get_ref();
        anyhow::ensure!(connection.alpn_protocol() == Some(REVERSE), "it does not know of lines that are held ready");
        let exporter = connection.export_keying_material([0; join::EXPORTER_BYTES], join::EXPORTER_LABEL, None)?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let peer = verdict(chain, &self.authority.trust(), now())?;
        let guard = self.connections.admit(Some(&peer), Source::from(remote.ip()))?;
        let (line, watched) = Line::of(guard.guard(tls));
        let caller = Caller { peer: Some(peer), exporter, address: remote };
        self.into.send(Ok(Identified::new(watched, caller))).await.map_err(|_| anyhow::anyhow!("nobody serves"))?;
        Ok(line)
    }
}

/// What is known of a line that was handed on.
struct Line {
    /// The first byte came; an error: it ended without.
    taken: oneshot::Receiver<()>,
    /// It ended.
    gone: oneshot::Receiver<()>,
    end: CancellationToken,
}

impl Line {
    fn of<T>(io: T) -> (Self, Watched<T>) {
        let ((first, taken), (held, gone)) = (oneshot::channel(), oneshot::channel());
        let end = CancellationToken::new();
        let ended = Box::pin(end.clone().cancelled_owned());
        (Self { taken, gone, end }, Watched { io, first: Some(first), ended, _held: held })
    }
}

/// A connection that tells of its first byte and of its end, and can be ended.
struct Watched<T> {
    io: T,
    first: Option<oneshot::Sender<()>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _held: oneshot::Sender<()>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // What was taken up is not ended any more.
        if self.first.is_some() && self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before
            && let Some(first) = self.first.take()
        {
            let _ = first.send(());
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_line_is_taken_by_who_waits_for_its_cluster() {
        let lines = Arc::new(Lines::default());
        let waiting = tokio::spawn({
            let lines = lines.clone();
            async move { lines.take("west").await }
        });
        let (east, west) = (tokio::io::duplex(8), tokio::io::duplex(8));
        lines.offer("east", Box::new(east.0));
        lines.offer("west", Box::new(west.0));
        let mut taken = waiting.await.unwrap();
        let mut far = west.1;
        far.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        taken.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
        let mut newer = tokio::io::duplex(8);
        lines.offer("east", Box::new(newer.0));
        newer.1.write_all(b"new").await.unwrap();
        let mut read = [0; 3];
        lines.take("east").await.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"new", "the newest counts: an older one may be dead");
    }

    #[tokio::test]
    async fn a_line_tells_of_its_first_byte_and_its_end_and_ends_before_the_first_only() {
        let (mut far, near) = tokio::io::duplex(8);
        let (mut line, mut watched) = Line::of(near);
        assert!(line.taken.try_recv().is_err());
        far.write_all(b"x").await.unwrap();
        assert_eq!(watched.read_u8().await.unwrap(), b'x');
        line.taken.await.unwrap();
        line.end.cancel();
        far.write_all(b"y").await.unwrap();
        assert_eq!(watched.read_u8().await.unwrap(), b'y', "one that is in use goes on");
        drop(watched);
        assert!(line.gone.await.is_err());
        let (_far, near) = tokio::io::duplex(8);
        let (line, mut watched) = Line::of(near);
        line.end.cancel();
        assert_eq!(watched.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
