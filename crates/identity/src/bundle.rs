//! A trust bundle: the roots one trust domain is verified against, with a sequence number.
//!
//! A bundle never holds a key, and is never changed in place: a new one has a higher sequence. Roots are parsed when the
//! bundle is made, so verification cannot meet a root it cannot read.

use std::sync::Arc;

use base64::Engine as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::certificate::{self, CertificateFacts, DecodeError, SpkiHash};
use crate::spiffe::TrustDomain;

/// Most roots in one bundle: own, next, and a few left over from rotations.
pub const MAX_ROOTS: usize = 16;

/// The accepted roots of one trust domain. Cheap to clone.
#[derive(Clone)]
pub struct TrustBundle {
    inner: Arc<Inner>,
}

/// Why a bundle cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("trust bundle of {0} has no root")]
    NoRoots(TrustDomain),
    #[error("trust bundle of {0} has more than {MAX_ROOTS} roots")]
    TooManyRoots(TrustDomain),
    #[error("root {index} of trust domain {domain}: {source}")]
    Root { domain: TrustDomain, index: usize, source: DecodeError },
    #[error("trust bundle: {0}")]
    Json(String),
    #[error(transparent)]
    Pem(#[from] DecodeError),
}

/// One root, parsed.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) spki: SpkiHash,
    pub(crate) not_after: UnixTime,
}

struct Inner {
    domain: TrustDomain,
    sequence: u64,
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BundleForm {
    trust_domain: TrustDomain,
    sequence: u64,
    /// DER in standard base64, as in a JWKS `x5c`.
    roots: Vec<String>,
}

impl TrustBundle {
    /// Makes a bundle; equal roots are kept once, the order is kept.
    ///
    /// # Errors
    /// [`BundleError`] for no root, too many, or bytes that are no CA certificate.
    pub fn new(
        trust_domain: TrustDomain,
        sequence: u64,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut parsed: Vec<Root> = Vec::new();
        let mut anchors = Vec::new();
        for (index, der) in roots.into_iter().enumerate() {
            if parsed.iter().any(|known| known.der == der) {
                continue;
            }
            if parsed.len() == MAX_ROOTS {
                return Err(BundleError::TooManyRoots(trust_domain));
            }
            let (root, anchor) =
                Root::parse(der).map_err(|source| BundleError::Root { domain: trust_domain.clone(), index, source })?;
            parsed.push(root);
            anchors.push(anchor);
        }
        if parsed.is_empty() {
            return Err(BundleError::NoRoots(trust_domain));
        }
        Ok(Self { inner: Arc::new(Inner { domain: trust_domain, sequence, roots: parsed, anchors }) })
    }

    /// The domain these roots are valid for, and no other.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.inner.domain
    }

    /// Grows by one with every change of the roots; the higher sequence of one domain wins.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.inner.sequence
    }

    /// The roots in DER.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.inner.roots.iter().map(|root| &root.der)
    }

    /// The fingerprints of the roots' keys, first the issuing one.
    pub fn fingerprints(&self) -> impl Iterator<Item = SpkiHash> + '_ {
        self.inner.roots.iter().map(|root| root.spki)
    }

    /// A bundle with one more root and the next sequence.
    ///
    /// # Errors
    /// As [`TrustBundle::new`].
    pub fn with_root(&self, root: CertificateDer<'static>) -> Result<Self, BundleError> {
        let roots = self.roots().cloned().chain([root]);
        Self::new(self.inner.domain.clone(), self.inner.sequence + 1, roots)
    }

    /// A bundle without the roots of this key, and the next sequence.
    ///
    /// # Errors
    /// [`BundleError::NoRoots`] when none would be left.
    pub fn without_root(&self, key: SpkiHash) -> Result<Self, BundleError> {
        let roots = self.inner.roots.iter().filter(|root| root.spki != key).map(|root| root.der.clone());
        Self::new(self.inner.domain.clone(), self.inner.sequence + 1, roots)
    }

    /// True when both hold a root with the same key: they speak of the same authority.
    #[must_use]
    pub fn shares_root_with(&self, other: &Self) -> bool {
        self.fingerprints().any(|mine| other.fingerprints().any(|theirs| mine == theirs))
    }

    /// Reads the roots of a PEM text.
    ///
    /// # Errors
    /// [`BundleError`] for a text without certificates, or as [`TrustBundle::new`].
    pub fn from_pem(trust_domain: TrustDomain, sequence: u64, pem: &str) -> Result<Self, BundleError> {
        Self::new(trust_domain, sequence, certificate::certificates_from_pem(pem)?)
    }

    /// The roots as PEM; domain and sequence are not in it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        certificate::certificates_to_pem(self.roots())
    }

    /// `{trustDomain, sequence, roots: [base64 DER]}`.
    ///
    /// # Errors
    /// [`BundleError::Json`] never in practice; kept so that no caller must trust that.
    pub fn to_json(&self) -> Result<String, BundleError> {
        serde_json::to_string(self).map_err(|error| BundleError::Json(error.to_string()))
    }

    /// Reads [`TrustBundle::to_json`].
    ///
    /// # Errors
    /// [`BundleError::Json`] with the place of the first mistake.
    pub fn from_json(text: &str) -> Result<Self, BundleError> {
        serde_json::from_str(text).map_err(|error| BundleError::Json(error.to_string()))
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.inner.anchors
    }

    /// The root an anchor of this bundle stands for.
    pub(crate) fn root_of(&self, anchor: &TrustAnchor<'_>) -> Option<&Root> {
        let at = self.inner.anchors.iter().position(|known| {
            known.subject == anchor.subject && known.subject_public_key_info == anchor.subject_public_key_info
        })?;
        self.inner.roots.get(at)
    }
}

impl Root {
    fn parse(der: CertificateDer<'static>) -> Result<(Self, TrustAnchor<'static>), DecodeError> {
        let facts = CertificateFacts::parse(&der)?;
        if !facts.is_ca {
            return Err(DecodeError {
                what: "root",
                detail: "it is no CA certificate (basicConstraints CA is not set)".to_owned(),
            });
        }
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| DecodeError { what: "root", detail: error.to_string() })?
            .to_owned();
        let root = Self { spki: facts.spki, not_after: facts.not_after, der };
        Ok((root, anchor))
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
            || (self.inner.domain == other.inner.domain
                && self.inner.sequence == other.inner.sequence
                && self.roots().eq(other.roots()))
    }
}

impl Eq for TrustBundle {}

impl std::fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.inner.domain)
            .field("sequence", &self.inner.sequence)
            .field("roots", &self.fingerprints().collect::<Vec<_>>())
            .finish()
    }
}

impl Serialize for TrustBundle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BundleForm {
            trust_domain: self.inner.domain.clone(),
            sequence: self.inner.sequence,
            roots: self.roots().map(|der| base64::engine::general_purpose::STANDARD.encode(der)).collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TrustBundle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let form = BundleForm::deserialize(deserializer)?;
        let mut roots = Vec::new();
        for root in form.roots.iter().take(MAX_ROOTS + 1) {
            let der = base64::engine::general_purpose::STANDARD
                .decode(root)
                .map_err(|error| D::Error::custom(format!("roots: {error}")))?;
            roots.push(CertificateDer::from(der));
        }
        Self::new(form.trust_domain, form.sequence, roots).map_err(D::Error::custom)
    }
}
