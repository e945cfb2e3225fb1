//! A CA as text: the four files of Istio's `cacerts` secret, for storing our own CA and for plugging in a foreign one.
//!
//! Loading checks that the key belongs to the certificate and that the certificate leads to a given root, so that a CA that
//! would issue certificates nobody accepts is refused at start and not found out in traffic. This module reads no file.

use std::fmt;

use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use crate::bundle::TrustBundle;
use crate::ca::{self, Ca, CaError};
use crate::certificate::{self, CertificateFacts};
use crate::spiffe::TrustDomain;

/// File names of the secret, in the order of [`CaPem`]'s fields.
pub const FILES: [&str; 4] = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"];

/// The texts of the four files. Holds a private key: keep it where only the control plane reads.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaPem {
    /// The issuing certificate.
    #[serde(rename = "ca-cert.pem")]
    pub ca_cert: String,
    /// Its private key (PKCS#8, SEC1 or PKCS#1).
    #[serde(rename = "ca-key.pem")]
    pub ca_key: String,
    /// Every accepted root; the issuing one first when it is a root itself.
    #[serde(rename = "root-cert.pem")]
    pub root_cert: String,
    /// The issuing certificate, then everything above it; may end with the root.
    #[serde(rename = "cert-chain.pem")]
    pub cert_chain: String,
    /// The bundle's sequence; 1 where the secret has none (Istio's).
    #[serde(rename = "sequence", default = "first")]
    pub sequence: u64,
}

impl CaPem {
    /// From the four files' texts, as `cacerts` has them.
    #[must_use]
    pub fn of_files(ca_cert: String, ca_key: String, root_cert: String, cert_chain: String) -> Self {
        Self { ca_cert, ca_key, root_cert, cert_chain, sequence: first() }
    }

    /// File names and texts, as a `cacerts` secret or folder holds them.
    #[must_use]
    pub fn files(&self) -> [(&'static str, &str); 4] {
        let [certificate, key, root, chain] = FILES;
        [(certificate, &self.ca_cert), (key, &self.ca_key), (root, &self.root_cert), (chain, &self.cert_chain)]
    }
}

impl Ca {
    /// The CA as text, key included.
    #[must_use]
    pub fn to_pem(&self) -> CaPem {
        let above = std::iter::once(&self.certificate).chain(&self.upper);
        CaPem {
            ca_cert: certificate::certificates_to_pem([&self.certificate]),
            ca_key: self.issuer.key().serialize_pem(),
            root_cert: self.bundle.to_pem(),
            cert_chain: certificate::certificates_to_pem(above),
            sequence: self.bundle.sequence(),
        }
    }

    /// Reads [`Ca::to_pem`], or a plugged-in CA in Istio's layout.
    ///
    /// # Errors
    /// [`CaError`] naming the file: unreadable, no CA, key and certificate apart, or no way to a root.
    pub fn from_pem(cluster: &str, trust_domain: &TrustDomain, pem: &CaPem) -> Result<Self, CaError> {
        let (issuer, certificate, facts) = ca::load_issuer(&pem.ca_cert, &pem.ca_key)?;
        let bundle = TrustBundle::from_pem(trust_domain.clone(), pem.sequence, &pem.root_cert)
            .map_err(|error| CaError::File { file: "root-cert.pem", detail: error.to_string() })?;
        let (upper, not_after) = path_to_root(&certificate, &facts, &pem.cert_chain, &bundle)?;
        Self::assemble(cluster, std::sync::Arc::new(issuer), certificate, upper, bundle, not_after)
    }
}

/// The intermediates between the CA and a root, nearest first, and the earliest end on the way.
fn path_to_root(
    certificate: &CertificateDer<'static>,
    facts: &CertificateFacts,
    chain: &str,
    bundle: &TrustBundle,
) -> Result<(Vec<CertificateDer<'static>>, UnixTime), CaError> {
    let mut not_after = facts.not_after;
    if bundle.roots().any(|root| root == certificate) {
        return Ok((Vec::new(), not_after));
    }
    // An empty chain file means that the root signed the CA directly.
    let mut candidates = if chain.trim().is_empty() {
        Vec::new()
    } else {
        certificate::certificates_from_pem(chain)
            .map_err(|error| CaError::File { file: "cert-chain.pem", detail: error.to_string() })?
    };
    candidates.retain(|candidate| candidate != certificate && !bundle.roots().any(|root| root == candidate));
    let mut upper = Vec::new();
    let mut current = certificate.clone();
    loop {
        if let Some(root) = bundle.roots().find(|root| signed_by(&current, root)) {
            let end = CertificateFacts::parse(root).map_err(unreadable)?.not_after;
            return Ok((upper, not_after.min(end)));
        }
        let Some(at) = candidates.iter().position(|candidate| signed_by(&current, candidate)) else {
            return Err(CaError::NoPathToRoot(
                "no certificate in root-cert.pem or cert-chain.pem signed it, or one above it".to_owned(),
            ));
        };
        // Each is used once, so a chain that bites its tail ends.
        current = candidates.swap_remove(at);
        not_after = not_after.min(CertificateFacts::parse(&current).map_err(unreadable)?.not_after);
        upper.push(current.clone());
    }
}

pub(crate) fn signed_by(child: &CertificateDer<'_>, parent: &CertificateDer<'_>) -> bool {
    let (Ok(child), Ok(parent)) = (certificate::parse(child), certificate::parse(parent)) else {
        return false;
    };
    child.tbs_certificate.issuer.as_raw() == parent.tbs_certificate.subject.as_raw()
        && parent.is_ca()
        && child.verify_signature(Some(parent.public_key())).is_ok()
}

fn unreadable(error: certificate::DecodeError) -> CaError {
    CaError::NoPathToRoot(error.to_string())
}

fn first() -> u64 {
    1
}

impl fmt::Debug for CaPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("CaPem").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
