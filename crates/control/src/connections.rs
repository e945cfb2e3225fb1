//! The connections that stand, and ending those whose caller is no longer believed.
//!
//! Invariants: a change of trust ends every connection it concerns, whatever streams it carries; one identity holds a bounded number
//! of connections; a caller without a certificate holds one only for as long as asking for something takes, sends little, and takes
//! no place of one with a certificate.

use crate::places::{Bounds, Full, Place, Places, Source};
use fairlead_identity::{TrustBundleSet, VerifiedPeer, still_believed};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections of one workload or peer; a proxy needs one or two, more while it reconnects.
const PER_IDENTITY: usize = 16;
/// Connections of callers without a certificate: all proxies of a cluster may start at once, and those of a node share an IPv6 prefix.
const STRANGERS: Bounds = Bounds { all: 512, each: 64, young: Duration::from_secs(2) };
/// A stranger asks one question.
const STRANGER_LIFE: Duration = Duration::from_secs(30);
/// And what it asks with, to join or for a certificate, is a few KB.
const STRANGER_BYTES: usize = 512 * 1024;

/// All connections of one control plane.
#[derive(Debug)]
pub struct Connections {
    strangers: Arc<Places>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Open>,
    /// How many, by name.
    counts: HashMap<String, usize>,
}

#[derive(Debug)]
struct Open {
    peer: VerifiedPeer,
    cut: CancellationToken,
}

/// Why a connection is not let in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    #[error("{0} has {PER_IDENTITY} connections already")]
    OfOne(String),
    #[error("connections without a certificate: {0}")]
    Strangers(Full),
}

impl Default for Connections {
    fn default() -> Self {
        Self { strangers: Places::new(STRANGERS), state: Mutex::default() }
    }
}

impl Connections {
    /// Counts a connection in; it is counted out when the guard is dropped.
    pub fn admit(self: &Arc<Self>, peer: Option<&VerifiedPeer>, source: Source) -> Result<ConnectionGuard, TooMany> {
        let Some(peer) = peer else {
            let place = self.strangers.take(source, Instant::now()).map_err(TooMany::Strangers)?;
            return Ok(ConnectionGuard::Stranger(place));
        };
        let mut state = self.state.lock();
        let count = state.counts.entry(name(peer)).or_default();
        if *count >= PER_IDENTITY {
            return Err(TooMany::OfOne(name(peer)));
        }
        *count += 1;
        let (id, cut) = (state.next, CancellationToken::new());
        state.next += 1;
        state.open.insert(id, Open { peer: peer.clone(), cut: cut.clone() });
        Ok(ConnectionGuard::Counted { id, cut, all: self.clone() })
    }

    /// Ends the connections of callers who are not believed any more; how many.
    pub fn cut_unbelieved(&self, trust: &TrustBundleSet) -> usize {
        let mut cut = 0;
        for open in self.state.lock().open.values() {
            if let Err(e) = still_believed(&open.peer, trust) {
                tracing::info!(caller = %open.peer.spiffe_id, "its connection is ended: {e}");
                open.cut.cancel();
                cut += 1;
            }
        }
        cut
    }

    /// Follows the trust until it ends.
    pub async fn follow(self: Arc<Self>, mut changes: watch::Receiver<u64>, trust: impl Fn() -> Arc<TrustBundleSet>) {
        loop {
            self.cut_unbelieved(&trust());
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub enum ConnectionGuard {
    Stranger(Place),
    Counted { id: u64, cut: CancellationToken, all: Arc<Connections> },
}

impl ConnectionGuard {
    fn cut(&self) -> &CancellationToken {
        match self {
            Self::Stranger(place) => place.lost(),
            Self::Counted { cut, .. } => cut,
        }
    }

    /// The connection, which ends when its caller is no longer believed, or was a stranger for too long.
    pub fn guard<T>(self, io: T) -> Severable<T> {
        let cut = self.cut().clone();
        let left = match &self {
            Self::Counted { .. } => None,
            Self::Stranger(_) => {
                let cut = cut.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = tokio::time::sleep(STRANGER_LIFE) => cut.cancel(),
                        () = cut.cancelled() => {}
                    }
                });
                Some(STRANGER_BYTES)
            }
        };
        Severable { io, cut: Box::pin(cut.cancelled_owned()), left, _guard: self }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.cut().cancel();
        let Self::Counted { id, all, .. } = self else { return };
        let mut state = all.state.lock();
        let Some(open) = state.open.remove(id) else { return };
        let name = name(&open.peer);
        if let Some(count) = state.counts.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(&name);
            }
        }
    }
}

/// A stream that can be ended from outside.
pub struct Severable<T> {
    io: T,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Bytes that may still come, where that is bounded.
    left: Option<usize>,
    _guard: ConnectionGuard,
}

impl<T> Severable<T> {
    fn severed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by the control plane")),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Severable<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.severed(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Some(left) = &mut self.left {
            match left.checked_sub(buf.filled().len() - before) {
                Some(less) => *left = less,
                None => {
                    buf.set_filled(before);
                    let why = "too much was sent without a certificate";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
                }
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Severable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.severed(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.severed(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Whose connections are counted together: a workload's, a cluster's control planes', or an identity's that names neither. With one trust
/// domain for all, the identity of every control plane is the same.
fn name(peer: &VerifiedPeer) -> String {
    match (&peer.workload, &peer.cluster) {
        (Some(workload), _) => format!("{} of {workload}", peer.spiffe_id),
        (None, Some(cluster)) => format!("{} of cluster {cluster}", peer.spiffe_id),
        (None, None) => peer.spiffe_id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn strangers_are_bounded_by_source_and_by_what_they_send() {
        let connections = Arc::new(Connections::default());
        let [stranger, other] = [1, 2].map(|n| Source::from(IpAddr::from([192, 0, 2, n])));
        let mut held: Vec<_> = std::iter::from_fn(|| connections.admit(None, stranger).ok()).collect();
        assert_eq!(held.len(), STRANGERS.each);
        let (mut far, near) = tokio::io::duplex(STRANGER_BYTES * 2);
        let mut near = connections.admit(None, other).unwrap().guard(near);
        far.write_all(&vec![0; STRANGER_BYTES + 1]).await.unwrap();
        let ended = near.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
        held.clear();
        assert!(connections.admit(None, stranger).is_ok());
    }
}
