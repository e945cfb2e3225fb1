//! The connections that stand, and ending those whose caller is no longer believed.
//!
//! Invariants: a change of trust ends every connection it concerns, whatever streams it carries; one identity holds a bounded number
//! of connections, and a caller without a certificate holds one only for as long as asking for something takes.

use fairlead_identity::{TrustBundleSet, VerifiedPeer, still_believed};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections of one workload or peer; a proxy needs one or two, more while it reconnects.
const PER_IDENTITY: usize = 16;
/// Connections of callers without a certificate: all proxies of a cluster may start at once.
const STRANGERS: usize = 512;
/// A stranger asks one question.
const STRANGER_LIFE: Duration = Duration::from_secs(30);

/// All connections of one control plane.
#[derive(Debug, Default)]
pub struct Connections {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// `None`: a stranger.
    peer: Option<VerifiedPeer>,
    cut: CancellationToken,
}

/// Why a connection is not let in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    #[error("{0} has {PER_IDENTITY} connections already")]
    OfOne(String),
    #[error("{STRANGERS} callers without a certificate are connected already")]
    Strangers,
}

impl Connections {
    /// Counts a connection in; it is counted out when the guard is dropped.
    pub fn admit(self: &Arc<Self>, peer: Option<&VerifiedPeer>) -> Result<ConnectionGuard, TooMany> {
        let mut state = self.state.lock();
        let key = peer.map(name);
        let alike = state.open.values().filter(|o| o.peer.as_ref().map(name) == key).count();
        match key {
            Some(name) if alike >= PER_IDENTITY => return Err(TooMany::OfOne(name)),
            None if alike >= STRANGERS => return Err(TooMany::Strangers),
            _ => {}
        }
        let (id, cut) = (state.next, CancellationToken::new());
        state.next += 1;
        state.open.insert(id, Open { peer: peer.cloned(), cut: cut.clone() });
        Ok(ConnectionGuard { id, cut, all: self.clone() })
    }

    /// Ends the connections of callers who are not believed any more; how many.
    pub fn cut_unbelieved(&self, trust: &TrustBundleSet) -> usize {
        let mut cut = 0;
        for open in self.state.lock().open.values() {
            let Some(peer) = &open.peer else { continue };
            if let Err(e) = still_believed(peer, trust) {
                tracing::info!(caller = %peer.spiffe_id, "its connection is ended: {e}");
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
pub struct ConnectionGuard {
    id: u64,
    cut: CancellationToken,
    all: Arc<Connections>,
}

impl ConnectionGuard {
    /// The connection, which ends when its caller is no longer believed.
    pub fn guard<T>(self, io: T) -> Severable<T> {
        let stranger = self.all.state.lock().open.get(&self.id).is_some_and(|o| o.peer.is_none());
        if stranger {
            let cut = self.cut.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(STRANGER_LIFE) => cut.cancel(),
                    () = cut.cancelled() => {}
                }
            });
        }
        Severable { io, cut: Box::pin(self.cut.clone().cancelled_owned()), _guard: self }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.cut.cancel();
        self.all.state.lock().open.remove(&self.id);
    }
}

/// A stream that can be ended from outside.
pub struct Severable<T> {
    io: T,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
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
        Pin::new(&mut self.io).poll_read(cx, buf)
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

/// Whose connections are counted together: a workload's, or an identity's that names none.
fn name(peer: &VerifiedPeer) -> String {
    match &peer.workload {
        Some(workload) => format!("{} of {workload}", peer.spiffe_id),
        None => peer.spiffe_id.to_string(),
    }
}
