//! The private key of a workload, gateway or control plane: made in memory, never written down, never sent.
//!
//! Only the signing request and the certificate travel. A new certificate is made with a new key, so that renewal also
//! renews the key.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ca::CaError;
use crate::certificate::SpkiHash;
use crate::credentials::{Credentials, CredentialsError};
use crate::template;

/// A P-256 key waiting for its certificate.
pub struct WorkloadKey {
    key: KeyPair,
}

impl WorkloadKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`CaError::Signing`] when the crypto library cannot make one.
    pub fn generate() -> Result<Self, CaError> {
        Ok(Self { key: template::generate_key()? })
    }

    /// A PKCS#10 signing request in DER, without names: the issuer knows who asks from the channel.
    ///
    /// # Errors
    /// [`CaError::Signing`].
    pub fn csr(&self) -> Result<Vec<u8>, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.key).map_err(|error| CaError::Signing(error.to_string()))?;
        Ok(request.der().to_vec())
    }

    /// Joins the key with the chain issued for it.
    ///
    /// # Errors
    /// [`CredentialsError::KeyMismatch`] when the leaf is for another key, and others.
    pub fn certified(&self, chain: Vec<CertificateDer<'static>>) -> Result<Credentials, CredentialsError> {
        Credentials::new(chain, self.private_key())
    }

    /// The fingerprint of the public key.
    #[must_use]
    pub fn fingerprint(&self) -> SpkiHash {
        SpkiHash::of_spki(&rcgen::PublicKeyData::subject_public_key_info(&self.key))
    }

    /// ECDSA P-256 with SHA-256 over `message`, in ASN.1.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CaError> {
        self.key.sign(message).map_err(|error| CaError::Signing(error.to_string()))
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    pub(crate) fn private_key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkloadKey").field(&self.fingerprint()).finish()
    }
}
