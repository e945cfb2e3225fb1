//! Live mesh-TLS connections of a worker, so that a change of trust reaches them.
//!
//! A connection is judged again at the time of its handshake: its own expiry does not end it, the revocation of its issuer
//! does. Invariant: every authenticated connection, up or down, is listed until it ends.

use fairlead_identity::{TrustBundleSet, verdict};
use rustls::pki_types::{CertificateDer, UnixTime};
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
    chain: Vec<CertificateDer<'static>>,
    handshake: UnixTime,
    close: Weak<Notify>,
}

impl LiveConnections {
    /// Lists a connection for as long as somebody holds `close`; it is notified when the connection must end.
    pub fn watch(&self, chain: Vec<CertificateDer<'static>>, close: &Rc<Notify>) {
        if chain.is_empty() {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        // Swept when the list has doubled, so listing stays cheap however many come and go.
        if entries.len() == entries.capacity() {
            entries.retain(|entry| entry.close.strong_count() > 0);
        }
        entries.push(Entry { chain, handshake: UnixTime::now(), close: Rc::downgrade(close) });
    }

    /// Judges every connection by `trust` and ends those that no longer pass. Gives how many were ended.
    pub fn judge(&self, trust: &TrustBundleSet) -> usize {
        let mut ended = 0;
        self.entries.borrow_mut().retain(|entry| {
            let Some(close) = entry.close.upgrade() else { return false };
            match verdict(&entry.chain, trust, entry.handshake) {
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
