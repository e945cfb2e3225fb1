//! The certificate authority of one cluster: a root of its own, or an intermediate under a shared root.
//!
//! What stands in a leaf comes from the caller, who took it from an authenticated channel; of the signing request only the
//! public key is used, after its signature proved that the requester holds the private key. A leaf never lives longer than any
//! certificate above it, and reserved identities are never issued through [`Ca::issue`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::bundle::{BundleError, TrustBundle};
use crate::certificate::{self, CertificateFacts, DecodeError, OID_USER_ID, SpkiHash};
use crate::random::{self, RandomError, RandomSource};
use crate::spiffe::{IdentityKind, SpiffeId, TrustDomain};

/// Leaves are valid from five minutes before their making: that much may clocks differ (design §6).
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

const MAX_CSR_BYTES: usize = 16 * 1024;
const MIN_RSA_BITS: usize = 2048;

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

/// The root of a shared trust domain; it issues only the clusters' intermediates.
pub struct SharedRoot {
    issuer: Arc<Issuer<'static, KeyPair>>,
    certificate: CertificateDer<'static>,
    bundle: TrustBundle,
    not_after: UnixTime,
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
    #[error(
        "key type not accepted ({0}); use ECDSA P-256 or P-384, Ed25519, or RSA of at least {MIN_RSA_BITS} bits"
    )]
    KeyType(String),
    #[error("{id} is not in trust domain {domain} of this CA")]
    ForeignDomain { id: SpiffeId, domain: TrustDomain },
    #[error("{0} is reserved for Fairlead itself and issued to no service account")]
    Reserved(SpiffeId),
    #[error("{0} is no reserved identity")]
    NotReserved(SpiffeId),
    #[error(
        "{0} is no service account's identity (spiffe://<trust domain>/ns/<namespace>/sa/<account>)"
    )]
    NotAServiceAccount(SpiffeId),
    #[error(
        "workload key of {0} bytes; at most {MAX_WORKLOAD_BYTES} are written into a certificate"
    )]
    WorkloadTooLong(usize),
    #[error(
        "the CA of cluster {cluster} expired at {not_after} (unix seconds), now is {now}; rotate its certificate"
    )]
    CaExpired {
        cluster: String,
        not_after: u64,
        now: u64,
    },
    #[error("ca-key.pem does not belong to ca-cert.pem")]
    KeyMismatch,
    #[error("{file}: {detail}")]
    File { file: &'static str, detail: String },
    #[error("ca-cert.pem does not lead to a root in root-cert.pem: {0}")]
    NoPathToRoot(String),
    #[error(
        "an intermediate under a shared root has no root of its own to rotate; issue a new intermediate instead"
    )]
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
        Self::assemble(
            cluster,
            Arc::new(issuer),
            certificate,
            Vec::new(),
            bundle,
            not_after,
        )
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
    pub fn with_root(
        &self,
        mut chain: Vec<CertificateDer<'static>>,
    ) -> Vec<CertificateDer<'static>> {
        // The issuing root comes first in a bundle; for an intermediate the one that signed it is found by path building
        // on the other side, so all are sent.
        for root in self.bundle.roots() {
            if !chain.contains(root) {
                chain.push(root.clone());
            }
        }
        chain
    }

    /// The fingerprint a join token pins: the first root.
    #[must_use]
    pub fn root_fingerprint(&self) -> Option<SpkiHash> {
        if self.is_root() {
            return Some(self.key);
        }
        self.bundle.fingerprints().next()
    }

    /// Prepares the replacement of this root by a new one with a new key.
    ///
    /// # Errors
    /// [`CaError::NotARoot`] for an intermediate; else as [`Ca::create_root`].
    pub fn rotate_root(
        &self,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<RootRotation, CaError> {
        if !self.is_root() {
            return Err(CaError::NotARoot);
        }
        let (issuer, certificate, not_after) = self_signed(
            self.trust_domain(),
            &format!("root of {}", self.cluster),
            0,
            now,
            random,
        )?;
        let issuer = Arc::new(issuer);
        let both = self.bundle.with_root(certificate.clone())?;
        let only_new = TrustBundle::new(
            self.trust_domain().clone(),
            both.sequence() + 1,
            [certificate.clone()],
        )?;
        let new = |bundle: TrustBundle| {
            Self::assemble(
                &self.cluster,
                Arc::clone(&issuer),
                certificate.clone(),
                Vec::new(),
                bundle,
                not_after,
            )
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
        let key = SpkiHash::of_certificate(&certificate)
            .map_err(|error| CaError::Signing(error.to_string()))?;
        Ok(Self {
            cluster: cluster.to_owned(),
            issuer,
            certificate,
            upper,
            bundle,
            key,
            not_after,
        })
    }

    /// Signs whatever the parameters say; only [`crate::mint`] may skip the checks above.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        public_key: &SubjectPublicKeyInfo,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let leaf = params
            .signed_by(public_key, self.issuer.as_ref())
            .map_err(signing)?;
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
            return Err(CaError::ForeignDomain {
                id: request.identity.clone(),
                domain: self.trust_domain().clone(),
            });
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
            request.workload,
            earlier(request.now, BACKDATE),
            not_after,
            random,
        )?;
        self.sign(&params, &public_key)
    }
}

impl SharedRoot {
    /// One root for a whole mesh (`trust: shared`), P-256, valid ten years.
    ///
    /// # Errors
    /// [`CaError`] when no key or randomness can be had.
    pub fn create(
        trust_domain: &TrustDomain,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<Self, CaError> {
        let (issuer, certificate, not_after) =
            self_signed(trust_domain, "shared root", 1, now, random)?;
        let bundle = TrustBundle::new(trust_domain.clone(), 1, [certificate.clone()])?;
        Ok(Self {
            issuer: Arc::new(issuer),
            certificate,
            bundle,
            not_after,
        })
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
    pub fn intermediate(
        &self,
        cluster: &str,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<Ca, CaError> {
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
        let certificate = params
            .signed_by(&key, self.issuer.as_ref())
            .map_err(signing)?
            .der()
            .clone();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(signing)?;
        Ca::assemble(
            cluster,
            Arc::new(issuer),
            certificate,
            Vec::new(),
            self.bundle.clone(),
            not_after,
        )
    }

    /// Key and certificate in PEM, to be kept where only the mesh's owner reads it.
    #[must_use]
    pub fn to_pem(&self) -> (String, String) {
        (
            certificate::certificates_to_pem([&self.certificate]),
            self.issuer.key().serialize_pem(),
        )
    }

    /// Reads [`SharedRoot::to_pem`].
    ///
    /// # Errors
    /// [`CaError`] when key and certificate do not fit.
    pub fn from_pem(
        trust_domain: &TrustDomain,
        sequence: u64,
        certificate: &str,
        key: &str,
    ) -> Result<Self, CaError> {
        let (issuer, der, facts) = load_issuer(certificate, key)?;
        Ok(Self {
            issuer: Arc::new(issuer),
            bundle: TrustBundle::new(trust_domain.clone(), sequence, [der.clone()])?,
            certificate: der,
            not_after: facts.not_after,
        })
    }
}

/// The public key of a signing request whose signature holds.
pub(crate) fn request_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(CaError::Request(format!(
            "{} bytes, more than {MAX_CSR_BYTES}",
            csr_der.len()
        )));
    }
    let (rest, request) = X509CertificationRequest::from_der(csr_der)
        .map_err(|error| CaError::Request(error.to_string()))?;
    if !rest.is_empty() {
        return Err(CaError::Request("bytes after its end".to_owned()));
    }
    request
        .verify_signature()
        .map_err(|_| CaError::RequestSignature)?;
    let spki = &request.certification_request_info.subject_pki;
    if let Ok(x509_parser::public_key::PublicKey::RSA(rsa)) = spki.parsed()
        && rsa.key_size() < MIN_RSA_BITS
    {
        return Err(CaError::KeyType(format!("RSA of {} bits", rsa.key_size())));
    }
    SubjectPublicKeyInfo::from_der(spki.raw).map_err(|error| CaError::KeyType(error.to_string()))
}

/// A CA certificate and its key from PEM, checked to belong together.
pub(crate) fn load_issuer(
    certificate: &str,
    key: &str,
) -> Result<
    (
        Issuer<'static, KeyPair>,
        CertificateDer<'static>,
        CertificateFacts,
    ),
    CaError,
> {
    let file = |file: &'static str| move |detail: String| CaError::File { file, detail };
    let der = certificate::certificates_from_pem(certificate)
        .map_err(|error: DecodeError| file("ca-cert.pem")(error.to_string()))?
        .swap_remove(0);
    let facts =
        CertificateFacts::parse(&der).map_err(|error| file("ca-cert.pem")(error.to_string()))?;
    if !facts.is_ca || !facts.may_sign_certificates {
        return Err(file("ca-cert.pem")(
            "it may not sign certificates (needs basicConstraints CA and keyUsage keyCertSign)"
                .to_owned(),
        ));
    }
    let key = KeyPair::from_pem(key).map_err(|error| file("ca-key.pem")(error.to_string()))?;
    if rcgen::PublicKeyData::subject_public_key_info(&key) != facts.spki_der {
        return Err(CaError::KeyMismatch);
    }
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(signing)?;
    Ok((issuer, der, facts))
}

/// Parameters of a leaf; `uri` None only for a certificate that is to be refused (see [`crate::mint`]).
pub(crate) fn leaf_params(
    uri: Option<&str>,
    workload: Option<&str>,
    not_before: UnixTime,
    not_after: UnixTime,
    random: &mut dyn RandomSource,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(workload) = workload {
        if workload.len() > MAX_WORKLOAD_BYTES {
            return Err(CaError::WorkloadTooLong(workload.len()));
        }
        subject.push(DnType::CustomDnType(OID_USER_ID.to_vec()), workload);
    }
    params.distinguished_name = subject;
    if let Some(uri) = uri {
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri).map_err(signing)?)];
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial(random)?);
    set_validity(&mut params, not_before, not_after);
    Ok(params)
}

pub(crate) fn generate_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(signing)
}

/// `time` plus `by`, without overflow.
pub(crate) fn later(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        time.as_secs().saturating_add(by.as_secs()),
    ))
}

/// `time` minus `by`, not before 1970.
pub(crate) fn earlier(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        time.as_secs().saturating_sub(by.as_secs()),
    ))
}

fn self_signed(
    trust_domain: &TrustDomain,
    what: &str,
    path_length: u8,
    now: UnixTime,
    random: &mut dyn RandomSource,
) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>, UnixTime), CaError> {
    let key = generate_key()?;
    let not_after = later(now, ROOT_LIFETIME);
    let params = ca_params(
        trust_domain,
        what,
        path_length,
        earlier(now, BACKDATE),
        not_after,
        random,
    )?;
    let certificate = params.self_signed(&key).map_err(signing)?.der().clone();
    let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(signing)?;
    Ok((issuer, certificate, not_after))
}

fn ca_params(
    trust_domain: &TrustDomain,
    what: &str,
    path_length: u8,
    not_before: UnixTime,
    not_after: UnixTime,
    random: &mut dyn RandomSource,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    let tag = certificate::hex(&random::bytes::<4>(random)?);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, trust_domain.as_str());
    // The tag keeps the subjects of successive roots apart, which keeps path building short.
    subject.push(DnType::CommonName, format!("fairlead {what} {tag}"));
    params.distinguished_name = subject;
    // X.509-SVID §3.1: a signing certificate names its trust domain.
    let id = trust_domain.id();
    params.subject_alt_names = vec![SanType::URI(
        Ia5String::try_from(id.as_str()).map_err(signing)?,
    )];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial(random)?);
    set_validity(&mut params, not_before, not_after);
    Ok(params)
}

/// 127 random bits, positive and never zero in its first byte (RFC 5280 §4.1.2.2).
fn serial(random: &mut dyn RandomSource) -> Result<SerialNumber, CaError> {
    let mut bytes = random::bytes::<16>(random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, not_before: UnixTime, not_after: UnixTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before.as_secs());
    params.not_after = epoch + Duration::from_secs(not_after.as_secs());
}

fn signing(error: impl fmt::Display) -> CaError {
    CaError::Signing(error.to_string())
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

impl fmt::Debug for SharedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRoot")
            .field("bundle", &self.bundle)
            .finish_non_exhaustive()
    }
}
