//! The root of a shared trust domain (`trust: shared`): one for the mesh, one intermediate per cluster.
//!
//! It signs intermediates and nothing else; a cluster's control plane never holds it. Every intermediate has a key of its own,
//! because the members of a shared domain are told apart by nothing else.

use std::fmt;
use std::sync::Arc;

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::bundle::TrustBundle;
use crate::ca::{BACKDATE, Ca, CaError, INTERMEDIATE_LIFETIME, load_issuer};
use crate::certificate;
use crate::instant::{earlier, later};
use crate::random::RandomSource;
use crate::spiffe::TrustDomain;
use crate::template::{ca_params, generate_key, self_signed, signing};

/// The root of a shared trust domain; it issues only the clusters' intermediates.
pub struct SharedRoot {
    issuer: Arc<Issuer<'static, KeyPair>>,
    certificate: CertificateDer<'static>,
    bundle: TrustBundle,
    not_after: UnixTime,
}

impl SharedRoot {
    /// One root for a whole mesh (`trust: shared`), P-256, valid ten years.
    ///
    /// # Errors
    /// [`CaError`] when no key or randomness can be had.
    pub fn create(trust_domain: &TrustDomain, now: UnixTime, random: &mut dyn RandomSource) -> Result<Self, CaError> {
        let (issuer, certificate, not_after) = self_signed(trust_domain, "shared root", 1, now, random)?;
        let bundle = TrustBundle::new(trust_domain.clone(), 1, [certificate.clone()])?;
        Ok(Self { issuer: Arc::new(issuer), certificate, bundle, not_after })
    }

    /// The roots everyone verifies against.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Issues a cluster's intermediate with a key of its own; it may sign leaves but no further CA.
    ///
    /// # Errors
    /// [`CaError`], among them an expired root.
    pub fn intermediate(&self, cluster: &str, now: UnixTime, random: &mut dyn RandomSource) -> Result<Ca, CaError> {
        if self.not_after <= now {
            return Err(CaError::CaExpired {
                cluster: cluster.to_owned(),
                not_after: self.not_after.as_secs(),
                now: now.as_secs(),
            });
        }
        let key = generate_key()?;
        let not_after = later(now, INTERMEDIATE_LIFETIME).min(self.not_after);
        let params = ca_params(
            self.bundle.trust_domain(),
            &format!("intermediate of {cluster}"),
            0,
            earlier(now, BACKDATE),
            not_after,
            random,
        )?;
        let certificate = params.signed_by(&key, self.issuer.as_ref()).map_err(signing)?.der().clone();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(signing)?;
        Ca::assemble(cluster, Arc::new(issuer), certificate, Vec::new(), self.bundle.clone(), not_after)
    }

    /// Key and certificate in PEM, to be kept where only the mesh's owner reads it.
    #[must_use]
    pub fn to_pem(&self) -> (String, String) {
        (certificate::certificates_to_pem([&self.certificate]), self.issuer.key().serialize_pem())
    }

    /// Reads [`SharedRoot::to_pem`].
    ///
    /// # Errors
    /// [`CaError`] when key and certificate do not fit.
    pub fn from_pem(trust_domain: &TrustDomain, sequence: u64, certificate: &str, key: &str) -> Result<Self, CaError> {
        let (issuer, der, facts) = load_issuer(certificate, key)?;
        Ok(Self {
            issuer: Arc::new(issuer),
            bundle: TrustBundle::new(trust_domain.clone(), sequence, [der.clone()])?,
            certificate: der,
            not_after: facts.not_after,
        })
    }
}

impl fmt::Debug for SharedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRoot").field("bundle", &self.bundle).finish_non_exhaustive()
    }
}
