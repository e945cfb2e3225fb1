//! Connections that a control plane which nobody can dial holds ready at its peers.
//!
//! It dials with the protocol [`REVERSE`]. Then, on the same connection, who was dialled asks and who dialled answers: to all above it the
//! connection came the other way. The first byte says whether it is wanted: [`TAKEN`], followed by HTTP/2, or [`NOT_NEEDED`], where this
//! replica has one; where several share an address, each of them is to find one, so that others are dialled then. Invariants: both ends
//! have shown control planes' certificates before a line is one; a line stands for the cluster of its certificate alone; one that waits
//! ends when its cluster is no longer believed.

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
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// ALPN of a connection whose ends change their parts after the handshake.
pub const REVERSE: &[u8] = b"fairlead-reverse";
/// What follows is HTTP/2.
const TAKEN: u8 = 1;
/// Who was dialled has a line of this cluster.
const NOT_NEEDED: u8 = 0;
/// A handshake may take this long.
const CONNECT: Duration = Duration::from_secs(5);
/// Lines of one peer that are in use: its replicas.
const MOST: usize = 8;
/// Between tries that fail, and between those that find that they are not needed; a line that is lost begins it anew.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(8));

static NOT_HELD: Quiet = Quiet::new();

/// Lines that peers hold ready here.
#[derive(Default)]
pub struct Lines {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Default)]
struct State {
    /// Who waits for a line, by its cluster.
    wanted: BTreeMap<String, oneshot::Sender<Line>>,
    /// Clusters of which a line is in use.
    used: BTreeSet<String>,
}

/// What becomes of a line.
enum Fate {
    Given(oneshot::Sender<Line>),
    NotNeeded,
    Waits,
}

impl Lines {
    /// A peer holds one ready: it is given to who waits for it, sent back, or kept until it is wanted or ends.
    pub async fn offer(self: &Arc<Self>, cluster: &str, mut line: Io) {
        loop {
            let mut asked = std::pin::pin!(self.asked.notified());
            asked.as_mut().enable();
            match self.fate(cluster) {
                Fate::Given(to) => {
                    // Whatever fails here ends the line; the peer holds another ready then.
                    let used = Used { lines: self.clone(), cluster: cluster.to_owned() };
                    if line.write_u8(TAKEN).await.is_ok() && line.flush().await.is_ok() {
                        let _ = to.send(With { io: line, _kept: used });
                    }
                    return;
                }
                Fate::NotNeeded => {
                    let _ = line.write_u8(NOT_NEEDED).await;
                    let _ = line.shutdown().await;
                    return;
                }
                Fate::Waits => {}
            }
            tokio::select! {
                () = asked => {}
                // Nothing is said by the other end before it is asked: this is its end, or ours.
                _ = line.read_u8() => return,
            }
        }
    }

    fn fate(&self, cluster: &str) -> Fate {
        let mut state = self.state.lock();
        match state.wanted.remove(cluster).filter(|to| !to.is_closed()) {
            Some(to) => {
                state.used.insert(cluster.to_owned());
                Fate::Given(to)
            }
            None if state.used.contains(cluster) => Fate::NotNeeded,
            None => Fate::Waits,
        }
    }

    /// The next line of a cluster, when it has one.
    pub async fn take(&self, cluster: &str) -> Line {
        loop {
            let (to, given) = oneshot::channel();
            self.state.lock().wanted.insert(cluster.to_owned(), to);
            self.asked.notify_waiters();
            if let Ok(line) = given.await {
                return line;
            }
        }
    }
}

/// A line in use.
pub type Line = With<Io, Used>;

/// Says that a line of the cluster is in use.
pub struct Used {
    lines: Arc<Lines>,
    cluster: String,
}

impl Drop for Used {
    fn drop(&mut self) {
        self.lines.state.lock().used.remove(&self.cluster);
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
            match self.once(address, &identity).await {
                Ok(Some(gone)) => {
                    attempt = 0;
                    used.spawn(async move { drop(gone.await) });
                }
                Ok(None) => attempt += 1,
                Err(e) => {
                    attempt += 1;
                    if let Some(more) = NOT_HELD.passes() {
                        let why = format!("{e:#}");
                        tracing::warn!(peer = %identity, address, "no line can be held ready: {}{more}", short(&why));
                    }
                }
            }
            tokio::select! {
                Some(_) = used.join_next() => attempt = 0,
                () = tokio::time::sleep(BACKOFF.ceiling(attempt)), if used.len() < MOST => {}
            }
        }
    }

    /// Until a line is taken up, whose end is told then; `None`: it was not needed.
    async fn once(&self, address: &str, identity: &SpiffeId) -> anyhow::Result<Option<oneshot::Receiver<()>>> {
        let dialled = tokio::time::timeout(CONNECT, self.line(address, identity)).await;
        let (mut tls, remote) = dialled.map_err(|_| anyhow::anyhow!("it does not answer within {CONNECT:?}"))??;
        match tls.read_u8().await {
            Ok(TAKEN) => {}
            Ok(NOT_NEEDED) => return Ok(None),
            Ok(other) => anyhow::bail!("it answered {other}, which is not known"),
            Err(e) => anyhow::bail!("it was refused, or ended before it was used: {e}"),
        }
        let (_, connection) = tls.get_ref();
        let exporter = connection.export_keying_material([0; join::EXPORTER_BYTES], join::EXPORTER_LABEL, None)?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let peer = verdict(chain, &self.authority.trust(), now())?;
        let guard = self.connections.admit(Some(&peer), Source::from(remote.ip()))?;
        let (held, gone) = oneshot::channel();
        let watched = With { io: guard.guard(tls), _kept: held };
        let caller = Caller { peer: Some(peer), exporter, address: remote };
        self.into.send(Ok(Identified::new(watched, caller))).await.map_err(|_| anyhow::anyhow!("nobody serves"))?;
        Ok(Some(gone))
    }

    async fn line(
        &self,
        address: &str,
        identity: &SpiffeId,
    ) -> anyhow::Result<(TlsStream<TcpStream>, std::net::SocketAddr)> {
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
        let known = tls.get_ref().1.alpn_protocol() == Some(REVERSE);
        anyhow::ensure!(known, "it does not know of lines that are held ready");
        Ok((tls, remote))
    }
}

/// A connection with what ends when it does.
pub struct With<T, K> {
    io: T,
    _kept: K,
}

impl<T: AsyncRead + Unpin, K: Unpin> AsyncRead for With<T, K> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin, K: Unpin> AsyncWrite for With<T, K> {
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

    fn offered(lines: &Arc<Lines>, cluster: &'static str) -> tokio::io::DuplexStream {
        let (far, near) = tokio::io::duplex(8);
        let lines = lines.clone();
        tokio::spawn(async move { lines.offer(cluster, Box::new(near)).await });
        far
    }

    #[tokio::test]
    async fn a_line_is_taken_by_who_waits_for_its_cluster_and_a_second_is_not_needed() {
        let lines = Arc::new(Lines::default());
        let _east = offered(&lines, "east");
        let mut west = offered(&lines, "west");
        let mut taken = lines.take("west").await;
        assert_eq!(west.read_u8().await.unwrap(), TAKEN);
        west.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        taken.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
        assert_eq!(offered(&lines, "west").read_u8().await.unwrap(), NOT_NEEDED);
        drop(taken);
        let mut next = offered(&lines, "west");
        let _taken = lines.take("west").await;
        assert_eq!(next.read_u8().await.unwrap(), TAKEN);
    }

    #[tokio::test]
    async fn a_line_that_ended_while_it_waited_is_given_to_nobody() {
        let lines = Arc::new(Lines::default());
        let (far, near) = tokio::io::duplex(8);
        drop(far);
        lines.offer("west", Box::new(near)).await;
        let mut next = offered(&lines, "west");
        let _taken = lines.take("west").await;
        assert_eq!(next.read_u8().await.unwrap(), TAKEN);
    }
}
