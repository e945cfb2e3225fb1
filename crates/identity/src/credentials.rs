//! The certificate a proxy or control plane presents, swappable while connections live.
//!
//! A handshake in flight goes on with the certificate it began with; the next one takes the new. A certificate that does not
//! belong to its key, or names no identity, is refused before it is swapped in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

use crate::certificate::{CertificateFacts, DecodeError};
use crate::provider;
use crate::spiffe::{SpiffeError, SpiffeId};

/// A shared place for the current certificate and key. Clones are the same place.
#[derive(Clone)]
pub struct CertHandle {
    slot: Arc<Slot>,
}

/// A certificate with its key, checked.
#[derive(Clone)]
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    spiffe_id: Option<SpiffeId>,
    not_before: UnixTime,
    not_after: UnixTime,
}

/// Why a certificate cannot be presented.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the certificate chain is empty")]
    EmptyChain,
    #[error(transparent)]
    Certificate(#[from] DecodeError),
    #[error("the certificate's URI name is no SPIFFE ID: {0}")]
    Identity(#[from] SpiffeError),
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    #[error("the certificate does not belong to the private key")]
    KeyMismatch,
}

struct Slot {
    current: ArcSwap<Credentials>,
    generation: AtomicU64,
}

impl Credentials {
    /// Checks that the leaf belongs to the key. The leaf may lack a SPIFFE ID (see [`crate::mint`]).
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, CredentialsError> {
        let facts = CertificateFacts::parse(chain.first().ok_or(CredentialsError::EmptyChain)?)?;
        let spiffe_id = match facts.uri_sans.as_slice() {
            [uri] => Some(SpiffeId::parse(uri)?),
            _ => None,
        };
        let key = provider::provider().key_provider.load_private_key(key).map_err(CredentialsError::Key)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(CredentialsError::KeyMismatch);
            }
            Err(error) => return Err(CredentialsError::Key(error)),
        }
        Ok(Self { certified: Arc::new(certified), spiffe_id, not_before: facts.not_before, not_after: facts.not_after })
    }

    /// The identity it names; None only for a certificate minted without one.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.spiffe_id.as_ref()
    }

    /// Leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }
}

impl CertHandle {
    /// A place that holds `first`.
    #[must_use]
    pub fn new(first: Credentials) -> Self {
        Self { slot: Arc::new(Slot { current: ArcSwap::from_pointee(first), generation: AtomicU64::new(1) }) }
    }

    /// Presents `next` from now on.
    pub fn swap(&self, next: Credentials) {
        self.slot.current.store(Arc::new(next));
        self.slot.generation.fetch_add(1, Ordering::Release);
    }

    /// What is presented now.
    #[must_use]
    pub fn load(&self) -> Arc<Credentials> {
        self.slot.current.load_full()
    }

    /// Counts swaps, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.slot.generation.load(Ordering::Acquire)
    }

    pub(crate) fn server_resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.slot) as Arc<dyn ResolvesServerCert>
    }

    pub(crate) fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.slot) as Arc<dyn ResolvesClientCert>
    }
}

impl ResolvesServerCert for Slot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

impl ResolvesClientCert for Slot {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self.current.load(), f)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Credentials")
            .field("spiffe_id", &self.spiffe_id)
            .field("not_after", &self.not_after.as_secs())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CertHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.slot, f)
    }
}
