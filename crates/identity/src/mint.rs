//! Certificates that a call table asks for, most of them bad on purpose: `client.certificate` of the lab's calls.
//!
//! The lab holds the CA, so it can mint anything; nothing outside the lab and tests calls this. It is the only way around the
//! checks of [`Ca::issue`], and it never touches a proxy's own credentials.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::ca::{self, Ca, CaError};
use crate::certificate;
use crate::credentials::{Credentials, CredentialsError};
use crate::instant;
use crate::random::RandomSource;
use crate::signing_request;
use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use crate::template::{self, Workload};
use crate::workload_key::WorkloadKey;

/// How long minted certificates live; a call table runs for minutes.
const LIFETIME: Duration = Duration::from_secs(3600);

/// What kind of certificate a call presents (`client.certificate`, call-table interface).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSpec {
    /// `mesh`: the caller's own identity, good.
    Mesh,
    /// `expired`: good in every way but ended an hour ago.
    Expired,
    /// `foreign-root`: the caller's identity, signed by a root nobody knows.
    ForeignRoot,
    /// `wrong-domain-root`: an identity of another known trust domain, signed by the caller's cluster.
    WrongDomainRoot,
    /// `no-spiffe`: signed by the right root, without a SPIFFE ID.
    NoSpiffe,
    /// `spiffe://…`: signed by the caller's cluster, whatever it says.
    Id(SpiffeId),
}

/// Mints for callers of one cluster.
#[derive(Debug)]
pub struct Mint<'a> {
    ca: &'a Ca,
    other_domain: Option<TrustDomain>,
}

/// A chain and its key.
#[derive(Debug)]
pub struct Minted {
    chain: Vec<CertificateDer<'static>>,
    key: WorkloadKey,
}

/// Why nothing was minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("`wrong-domain-root` needs a second trust domain; this mesh has one (trust: shared, or a single cluster)")]
    OneDomain,
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("certificate: {0} (mesh | expired | foreign-root | wrong-domain-root | no-spiffe | <SPIFFE ID>)")]
    Unknown(#[from] SpiffeError),
}

impl<'a> Mint<'a> {
    /// Mints with this cluster's CA. `other_domain` is any other member's trust domain, if there is one.
    #[must_use]
    pub fn new(ca: &'a Ca, other_domain: Option<TrustDomain>) -> Self {
        Self { ca, other_domain }
    }

    /// Mints what `spec` says for a caller whose own identity is `caller`.
    ///
    /// # Errors
    /// [`MintError`] when it cannot be made in this mesh.
    pub fn mint(
        &self,
        spec: &CertificateSpec,
        caller: &SpiffeId,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<Minted, MintError> {
        let good = (instant::earlier(now, ca::BACKDATE), instant::later(now, LIFETIME));
        match spec {
            CertificateSpec::Mesh => self.sign(self.ca, Some(caller), good, random),
            CertificateSpec::Id(id) => self.sign(self.ca, Some(id), good, random),
            CertificateSpec::NoSpiffe => self.sign(self.ca, None, good, random),
            CertificateSpec::Expired => {
                let ended = instant::earlier(now, LIFETIME);
                self.sign(self.ca, Some(caller), (instant::earlier(ended, LIFETIME), ended), random)
            }
            CertificateSpec::ForeignRoot => {
                let foreign = Ca::create_root(self.ca.cluster(), self.ca.trust_domain(), now, random)?;
                self.sign(&foreign, Some(caller), good, random)
            }
            CertificateSpec::WrongDomainRoot => {
                let other = self.other_domain.as_ref().ok_or(MintError::OneDomain)?;
                let claimed = SpiffeId::parse(&format!("spiffe://{other}{}", caller.path()))?;
                self.sign(self.ca, Some(&claimed), good, random)
            }
        }
    }

    fn sign(
        &self,
        ca: &Ca,
        identity: Option<&SpiffeId>,
        (not_before, not_after): (UnixTime, UnixTime),
        random: &mut dyn RandomSource,
    ) -> Result<Minted, MintError> {
        let key = WorkloadKey::generate()?;
        let public_key: SubjectPublicKeyInfo = signing_request::request_key(&key.csr()?)?;
        let params =
            template::leaf_params(identity.map(SpiffeId::as_str), Workload::default(), not_before, not_after, random)?;
        Ok(Minted { chain: ca.sign(&params, &public_key)?, key })
    }
}

impl Minted {
    /// Leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// For a rustls client in this process.
    ///
    /// # Errors
    /// [`CredentialsError`], in practice never.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        self.key.certified(self.chain.clone())
    }

    /// The chain as PEM, for a client in another process.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        certificate::certificates_to_pem(&self.chain)
    }

    /// The key as PKCS#8 PEM, for a client in another process.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.private_key_pem()
    }
}

impl FromStr for CertificateSpec {
    type Err = MintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "mesh" => Self::Mesh,
            "expired" => Self::Expired,
            "foreign-root" => Self::ForeignRoot,
            "wrong-domain-root" => Self::WrongDomainRoot,
            "no-spiffe" => Self::NoSpiffe,
            id => Self::Id(SpiffeId::parse(id)?),
        })
    }
}

impl fmt::Display for CertificateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Expired => f.write_str("expired"),
            Self::ForeignRoot => f.write_str("foreign-root"),
            Self::WrongDomainRoot => f.write_str("wrong-domain-root"),
            Self::NoSpiffe => f.write_str("no-spiffe"),
            Self::Id(id) => fmt::Display::fmt(id, f),
        }
    }
}
