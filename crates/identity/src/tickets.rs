//! Session tickets of servers, sealed with a key that lives no longer than a bundle epoch.
//!
//! A ticket sealed before the trust changed opens no more: its holder makes a full handshake and is judged anew. Tickets
//! are kept nowhere; a restart forgets the key. This narrows, it does not decide: a session resumed within one epoch is still
//! judged from its stored chain by whoever accepts it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

use crate::trust::TrustSource;

/// How long a ticket may be used, in seconds; short, as a leaf may live only minutes.
const LIFETIME_SECONDS: u32 = 3600;

/// A ticket sealer bound to the epoch of a trust source.
pub struct EpochTicketer {
    trust: TrustSource,
    current: RwLock<Option<Sealer>>,
}

#[derive(Clone)]
struct Sealer {
    epoch: u64,
    tickets: Arc<dyn ProducesTickets>,
}

impl EpochTicketer {
    /// Bound to `trust`.
    #[must_use]
    pub fn new(trust: TrustSource) -> Self {
        Self { trust, current: RwLock::new(None) }
    }

    /// The sealer of the present epoch; None when no key could be made, then there are no tickets.
    fn sealer(&self) -> Option<Arc<dyn ProducesTickets>> {
        let epoch = (self.trust)().epoch();
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(sealer) = current.as_ref().filter(|sealer| sealer.epoch == epoch) {
                return Some(Arc::clone(&sealer.tickets));
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|sealer| sealer.epoch != epoch) {
            *current = Ticketer::new().ok().map(|tickets| Sealer { epoch, tickets });
        }
        current.as_ref().map(|sealer| Arc::clone(&sealer.tickets))
    }
}

impl ProducesTickets for EpochTicketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.sealer()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.sealer()?.decrypt(cipher)
    }
}

impl fmt::Debug for EpochTicketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochTicketer").finish_non_exhaustive()
    }
}
