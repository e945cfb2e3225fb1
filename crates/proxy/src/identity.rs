//! Who this proxy is to its peers, and whom it believes right now.
//!
//! Invariant: there is one place for the certificate and one for the trust; every TLS configuration reads them at each
//! handshake.

use fairlead_identity::{MeshTls, SpiffeId, TrustBundleSet};
use fairlead_runtime::{Published, Subscription};
use std::sync::Arc;

/// The proxy's identity, shared by all workers.
#[derive(Clone)]
pub struct MeshIdentity {
    tls: MeshTls,
    trust: Published<TrustBundleSet>,
    spiffe: SpiffeId,
}

impl MeshIdentity {
    /// `trust` must be what `tls` reads.
    ///
    /// # Errors
    /// The certificate names no SPIFFE ID.
    pub fn new(tls: MeshTls, trust: Published<TrustBundleSet>) -> Result<Self, String> {
        let spiffe = tls.credentials().load().spiffe_id().cloned();
        let spiffe = spiffe.ok_or("the certificate carries no SPIFFE ID")?;
        Ok(Self { tls, trust, spiffe })
    }

    pub fn tls(&self) -> &MeshTls {
        &self.tls
    }

    pub fn spiffe(&self) -> &SpiffeId {
        &self.spiffe
    }

    /// Takes new trust, if it is other than what holds. Invariant: whoever was told, nobody who was revoked comes back by it.
    pub fn trust(&self, bundles: TrustBundleSet) {
        let held = self.trust.load();
        let bundles = bundles.keeping_revocations_of(&held);
        if bundles.epoch() != held.epoch() {
            tracing::info!(epoch = bundles.epoch(), "trust changed");
            self.trust.publish(bundles);
        }
    }

    pub fn current_trust(&self) -> Arc<TrustBundleSet> {
        self.trust.load()
    }

    /// Told when trust changes, so that live connections are judged again.
    pub fn trust_changes(&self) -> Subscription<TrustBundleSet> {
        self.trust.subscribe()
    }
}
