//! The certificate authority of one cluster: a root of its own, or an intermediate under a shared root.
//!
//! What stands in a leaf comes from the caller, who took it from an authenticated channel; of the signing request only the
//! public key is used, after its signature proved that the requester holds the private key. A leaf never lives longer than any
//! certificate above it, and reserved identities are never issued through [`Ca::issue`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, Issuer, KeyPair, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::bundle::{BundleError, TrustBundle};
use crate::cacerts;
use crate::certificate::{self, CertificateFacts, DecodeError, SpkiHash};
use crate::instant::{earlier, later};
use crate::random::{RandomError, RandomSource};
use crate::signing_request::{MIN_RSA_BITS, request_key};
use crate::spiffe::{IdentityKind, SpiffeId, TrustDomain};
use crate::template::{Workload, leaf_params, self_signed, signing};

/// Leaves are valid from five minutes before their making: that much may clocks differ.
pub const BACKDATE: Duration = Duration::from_secs(300);
/// Shortest life of a leaf. Tests rotate every few seconds; shorter ones would expire in the handshake.
pub const MIN_LIFETIME: Duration = Duration::from_secs(10);
/// Longest life of a leaf.
pub const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Life of a root.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of an intermediate under a shared root.
pub const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// Longest workload key written into a leaf, in bytes.
pub const MAX_WORKLOAD_BYTES: usize = 256;
/// Longest uid of a pod written into a leaf (RFC 5280 allows 64 characters of a `serialNumber`).
pub const MAX_POD_UID_BYTES: usize = 64;

/// Issues the certificates of one cluster.
pub struct Ca {
    pub(crate) cluster: String,
    pub(crate) issuer: Arc<Issuer<'static, KeyPair>>,
    pub(crate) certificate: CertificateDer<'static>,
    /// Intermediates between this CA and the root, nearest first; usually none.
    pub(crate) upper: Vec<CertificateDer<'static>>,
    pub(crate) bundle: TrustBundle,
    pub(crate) key: SpkiHash,
    /// The earliest end of this CA's certificate and everything above it.
    pub(crate) not_after: UnixTime,
}

/// A leaf to be issued.
#[derive(Debug, Clone)]
pub struct LeafRequest<'a> {
    /// PKCS#10 in DER. Only its public key and signature are used.
    pub csr_der: &'a [u8],
    /// From the authenticated channel, never from the request.
    pub identity: &'a SpiffeId,
    /// The workload it is for, as `namespace/name`; written into the subject (`userId`), so that a control plane knows
    /// the proxy from its certificate alone.
    pub workload: Option<&'a str>,
    /// The Kubernetes uid of the pod it is for; written into the subject (`serialNumber`), so that a certificate is not renewed for a
    /// later pod of the same name.
    pub pod_uid: Option<&'a str>,
    /// Clamped to [`MIN_LIFETIME`]..=[`MAX_LIFETIME`] and to the CA's own end.
    pub lifetime: Duration,
    pub now: UnixTime,
}

/// The three states of a root's replacement, in order. Each is a whole [`Ca`] to be stored and published; go on to the next
/// when every peer and proxy has the bundle of this one.
#[derive(Debug)]
pub struct RootRotation {
    /// Issues with the old key; its bundle already holds the new root (sequence + 1).
    pub announcing: Ca,
    /// Issues with the new key; the bundle is the same. Go on once the last leaf of the old key has expired.
    pub switched: Ca,
    /// Without the old root (sequence + 2).
    pub finished: Ca,
}

/// Why something was not issued, or a CA not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    #[error("certificate signing request: {0}")]
    Request(String),
    #[error("the signing request's signature does not fit its key")]
    RequestSignature,
    #[error("key type not accepted ({0}); use ECDSA P-256 or P-384, Ed25519, or RSA of at least {MIN_RSA_BITS} bits")]
    KeyType(String),
    #[error("{id} is not in trust domain {domain} of this CA")]
    ForeignDomain { id: SpiffeId, domain: TrustDomain },
    #[error("{0} is reserved for Fairlead itself and issued to no service account")]
    Reserved(SpiffeId),
    #[error("{0} is no reserved identity")]
    NotReserved(SpiffeId),
    #[error("{0} is no service account's identity (spiffe://<trust domain>/ns/<namespace>/sa/<account>)")]
    NotAServiceAccount(SpiffeId),
    #[error("workload key of {0} bytes; at most {MAX_WORKLOAD_BYTES} are written into a certificate")]
    WorkloadTooLong(usize),
    #[error(
        "a pod's uid of {0} bytes, or with characters that are none of a uid; at most {MAX_POD_UID_BYTES} letters, digits and `-`"
    )]
    PodUid(usize),
    #[error("the CA of cluster {cluster} expired at {not_after} (unix seconds), now is {now}; rotate its certificate")]
    CaExpired { cluster: String, not_after: u64, now: u64 },
    #[error("ca-key.pem does not belong to ca-cert.pem")]
    KeyMismatch,
    #[error("{file}: {detail}")]
    File { file: &'static str, detail: String },
    #[error("ca-cert.pem does not lead to a root in root-cert.pem: {0}")]
    NoPathToRoot(String),
    #[error("an intermediate under a shared root has no root of its own to rotate; issue a new intermediate instead")]
    NotARoot,
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("signing failed: {0}")]
    Signing(String),
}

impl Ca {
    /// A cluster's own root (`trust: perCluster`), P-256, valid ten years.
    ///
    /// # Errors
    /// [`CaError`] when no key or randomness can be had.
    pub fn create_root(
        cluster: &str,
        trust_domain: &TrustDomain,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<Self, CaError> {
        let (issuer, certificate, not_after) =
            self_signed(trust_domain, &format!("root of {cluster}"), 0, now, random)?;
        let bundle = TrustBundle::new(trust_domain.clone(), 1, [certificate.clone()])?;
        Self::assemble(cluster, Arc::new(issuer), certificate, Vec::new(), bundle, not_after)
    }

    /// The cluster it issues for.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The domain it issues in.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The roots its leaves are verified against, to be given to everyone.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The fingerprint of its issuing key: what tells the members of a shared domain apart.
    #[must_use]
    pub fn issuing_key(&self) -> SpkiHash {
        self.key
    }

    /// When it, or something above it, ends.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// True for a root of its own, false for an intermediate.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.bundle.roots().any(|root| root == &self.certificate)
    }

    /// Issues a service account's certificate. Returns the chain to present, leaf first, without the root.
    ///
    /// # Errors
    /// [`CaError`] naming what is wrong; reserved identities are refused.
    pub fn issue(
        &self,
        request: &LeafRequest<'_>,
        random: &mut dyn RandomSource,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        match request.identity.kind() {
            IdentityKind::ServiceAccount { .. } => self.issue_checked(request, random),
            _ if request.identity.is_reserved() => Err(CaError::Reserved(request.identity.clone())),
            _ => Err(CaError::NotAServiceAccount(request.identity.clone())),
        }
    }

    /// Issues `spiffe://<td>/fairlead/control` or `…/gateway`: for the control plane itself and for gateways it has named.
    ///
    /// # Errors
    /// [`CaError`]; every other identity is refused.
    pub fn issue_reserved(
        &self,
        request: &LeafRequest<'_>,
        random: &mut dyn RandomSource,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        match request.identity.kind() {
            IdentityKind::Control | IdentityKind::Gateway => self.issue_checked(request, random),
            _ => Err(CaError::NotReserved(request.identity.clone())),
        }
    }

    /// The chain with the root at its end: what a control plane presents to those who know only the root's fingerprint
    /// from a join token.
    #[must_use]
    pub fn with_root(&self, mut chain: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
        if let Some(root) = self.issuing_root()
            && !chain.contains(root)
        {
            chain.push(root.clone());
        }
        chain
    }

    /// The fingerprint a join token pins: of the root this CA's certificates lead to.
    #[must_use]
    pub fn root_fingerprint(&self) -> Option<SpkiHash> {
        SpkiHash::of_certificate(self.issuing_root()?).ok()
    }

    /// Prepares the replacement of this root by a new one with a new key.
    ///
    /// # Errors
    /// [`CaError::NotARoot`] for an intermediate; else as [`Ca::create_root`].
    pub fn rotate_root(&self, now: UnixTime, random: &mut dyn RandomSource) -> Result<RootRotation, CaError> {
        if !self.is_root() {
            return Err(CaError::NotARoot);
        }
        let (issuer, certificate, not_after) =
            self_signed(self.trust_domain(), &format!("root of {}", self.cluster), 0, now, random)?;
        let issuer = Arc::new(issuer);
        let both = self.bundle.with_root(certificate.clone())?;
        let only_new = TrustBundle::new(self.trust_domain().clone(), both.sequence() + 1, [certificate.clone()])?;
        let new = |bundle: TrustBundle| {
            Self::assemble(&self.cluster, Arc::clone(&issuer), certificate.clone(), Vec::new(), bundle, not_after)
        };
        Ok(RootRotation {
            announcing: Self {
                cluster: self.cluster.clone(),
                issuer: Arc::clone(&self.issuer),
                certificate: self.certificate.clone(),
                upper: self.upper.clone(),
                bundle: both.clone(),
                key: self.key,
                not_after: self.not_after,
            },
            switched: new(both)?,
            finished: new(only_new)?,
        })
    }

    pub(crate) fn assemble(
        cluster: &str,
        issuer: Arc<Issuer<'static, KeyPair>>,
        certificate: CertificateDer<'static>,
        upper: Vec<CertificateDer<'static>>,
        bundle: TrustBundle,
        not_after: UnixTime,
    ) -> Result<Self, CaError> {
        let key = SpkiHash::of_certificate(&certificate).map_err(|error| CaError::Signing(error.to_string()))?;
        Ok(Self { cluster: cluster.to_owned(), issuer, certificate, upper, bundle, key, not_after })
    }

    /// Of the bundle's roots the one above this CA; a bundle in rotation holds others too.
    fn issuing_root(&self) -> Option<&CertificateDer<'static>> {
        let top = self.upper.last().unwrap_or(&self.certificate);
        self.bundle
            .roots()
            .find(|root| *root == top)
            .or_else(|| self.bundle.roots().find(|root| cacerts::signed_by(top, root)))
    }

    /// Signs whatever the parameters say; only [`crate::mint`] may skip the checks above.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        public_key: &SubjectPublicKeyInfo,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let leaf = params.signed_by(public_key, self.issuer.as_ref()).map_err(signing)?;
        let mut chain = vec![leaf.der().clone()];
        if !self.is_root() {
            chain.push(self.certificate.clone());
        }
        chain.extend(self.upper.iter().cloned());
        Ok(chain)
    }

    fn issue_checked(
        &self,
        request: &LeafRequest<'_>,
        random: &mut dyn RandomSource,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        if request.identity.domain() != self.trust_domain().as_str() {
            return Err(CaError::ForeignDomain { id: request.identity.clone(), domain: self.trust_domain().clone() });
        }
        if self.not_after <= request.now {
            return Err(CaError::CaExpired {
                cluster: self.cluster.clone(),
                not_after: self.not_after.as_secs(),
                now: request.now.as_secs(),
            });
        }
        let public_key = request_key(request.csr_der)?;
        let lifetime = request.lifetime.clamp(MIN_LIFETIME, MAX_LIFETIME);
        let not_after = later(request.now, lifetime).min(self.not_after);
        let params = leaf_params(
            Some(request.identity.as_str()),
            Workload { key: request.workload, pod_uid: request.pod_uid },
            earlier(request.now, BACKDATE),
            not_after,
            random,
        )?;
        self.sign(&params, &public_key)
    }
}

/// A CA certificate and its key from PEM, checked to belong together.
pub(crate) fn load_issuer(
    certificate: &str,
    key: &str,
) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>, CertificateFacts), CaError> {
    let file = |file: &'static str| move |detail: String| CaError::File { file, detail };
    let der = certificate::certificates_from_pem(certificate)
        .map_err(|error: DecodeError| file("ca-cert.pem")(error.to_string()))?
        .swap_remove(0);
    let facts = CertificateFacts::parse(&der).map_err(|error| file("ca-cert.pem")(error.to_string()))?;
    if !facts.is_ca || !facts.may_sign_certificates {
        return Err(file("ca-cert.pem")(
            "it may not sign certificates (needs basicConstraints CA and keyUsage keyCertSign)".to_owned(),
        ));
    }
    let key = KeyPair::from_pem(key).map_err(|error| file("ca-key.pem")(error.to_string()))?;
    if rcgen::PublicKeyData::subject_public_key_info(&key) != facts.spki_der {
        return Err(CaError::KeyMismatch);
    }
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(signing)?;
    Ok((issuer, der, facts))
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Ca")
            .field("cluster", &self.cluster)
            .field("bundle", &self.bundle)
            .field("issuing_key", &self.key)
            .finish_non_exhaustive()
    }
}
