//! Live mesh-TLS connections of a worker, so that a change of trust reaches them.
//!
//! A connection's own expiry does not end it, the revocation of its issuer does. Invariant: every authenticated connection, up or down, is listed until it ends.

use fairlead_identity::{TrustBundleSet, VerifiedPeer, still_believed};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use tokio::sync::Notify;

/// The register.
#[derive(Debug, Default)]
pub struct LiveConnections {
    entries: RefCell<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    peer: VerifiedPeer,
    close: Weak<Notify>,
}

impl LiveConnections {
    /// Lists a connection for as long as somebody holds `close`; it is notified when the connection must end.
    pub fn watch(&self, peer: VerifiedPeer, close: &Rc<Notify>) {
        let mut entries = self.entries.borrow_mut();
        // Swept when the list has doubled, so listing stays cheap however many come and go.
        if entries.len() == entries.capacity() {
            entries.retain(|entry| entry.close.strong_count() > 0);
        }
        entries.push(Entry { peer, close: Rc::downgrade(close) });
    }

    /// Judges every connection by `trust` and ends those that no longer pass. Gives how many were ended.
    pub fn judge(&self, trust: &TrustBundleSet) -> usize {
        let mut ended = 0;
        self.entries.borrow_mut().retain(|entry| {
            let Some(close) = entry.close.upgrade() else { return false };
            match still_believed(&entry.peer, trust) {
                Ok(_) => true,
                Err(error) => {
                    tracing::info!(%error, "closing a connection whose peer is no longer trusted");
                    close.notify_one();
                    ended += 1;
                    false
                }
            }
        });
        ended
    }
}
