//! Why a peer was not believed: one variant per reason, so that access logs, metrics and refusal tables can name it.
//!
//! The type travels through rustls inside [`rustls::CertificateError::Other`] and is found again with
//! [`VerifyError::find`] or [`VerifyError::find_io`]. The peer learns none of it: it gets the alert `certificate_unknown`.

use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::certificate::SpkiHash;
use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};

/// The reason a certificate chain was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the peer sent no certificate")]
    NoCertificate,
    #[error("the peer's chain has {0} certificates, more than {max}", max = crate::verdict::MAX_CHAIN)]
    ChainTooLong(usize),
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    #[error("the certificate has no SPIFFE ID (no URI among its names)")]
    NoSpiffeId,
    #[error("the certificate has {0} URI names; exactly one is allowed")]
    SeveralUriSans(usize),
    #[error("`{uri}` is no SPIFFE ID: {source}")]
    InvalidSpiffeId { uri: String, source: SpiffeError },
    #[error("{id} is a CA certificate, or may sign certificates, and cannot stand for a workload")]
    LeafIsCa { id: SpiffeId },
    #[error("{id} names a trust domain, not a workload in it")]
    RootPath { id: SpiffeId },
    #[error("trust domain {domain} of {id} is not known here")]
    UnknownTrustDomain { domain: TrustDomain, id: SpiffeId },
    #[error("{id} is signed by no root that is known here")]
    ForeignRoot { id: SpiffeId },
    #[error("{id} is signed by a root of trust domain {signer}, not of its own")]
    WrongDomainRoot { id: SpiffeId, signer: TrustDomain },
    #[error("the certificate of {id} expired at {not_after} (unix seconds), now is {now}")]
    Expired { id: SpiffeId, not_after: u64, now: u64 },
    #[error("the certificate of {id} is not valid before {not_before} (unix seconds), now is {now}")]
    NotYetValid { id: SpiffeId, not_before: u64, now: u64 },
    #[error("the chain of {id} is broken: {detail}")]
    BadChain { id: SpiffeId, detail: String },
    #[error("the cluster of {id} ({cluster}) is detached from the mesh")]
    RevokedCluster { id: SpiffeId, cluster: String },
    #[error("the issuing key {key} of {id} (cluster {cluster}) is revoked")]
    IssuerRevoked { id: SpiffeId, cluster: String, key: SpkiHash },
    #[error("{id} is issued by key {key}, which belongs to no member of the shared trust domain")]
    UnknownIssuer { id: SpiffeId, key: SpkiHash },
    #[error("identities of {id}'s namespace are not accepted from cluster {cluster} (Peer.spec.namespaces)")]
    NamespaceNotAllowed { id: SpiffeId, cluster: String },
    #[error("the peer is {id}, which is not the identity expected here ({expected})")]
    UnexpectedIdentity { id: SpiffeId, expected: String },
}

impl VerifyError {
    /// A stable word for logs and metric labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::ChainTooLong(_) => "chain-too-long",
            Self::Malformed(_) => "malformed-certificate",
            Self::NoSpiffeId => "no-spiffe-id",
            Self::SeveralUriSans(_) => "several-uri-sans",
            Self::InvalidSpiffeId { .. } => "invalid-spiffe-id",
            Self::LeafIsCa { .. } => "leaf-is-ca",
            Self::RootPath { .. } => "root-path",
            Self::UnknownTrustDomain { .. } => "unknown-trust-domain",
            Self::ForeignRoot { .. } => "foreign-root",
            Self::WrongDomainRoot { .. } => "wrong-domain-root",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::BadChain { .. } => "bad-chain",
            Self::RevokedCluster { .. } => "revoked-cluster",
            Self::IssuerRevoked { .. } => "issuer-revoked",
            Self::UnknownIssuer { .. } => "unknown-issuer",
            Self::NamespaceNotAllowed { .. } => "namespace-not-allowed",
            Self::UnexpectedIdentity { .. } => "unexpected-identity",
        }
    }

    /// The identity the peer claimed, if it got that far. Claimed, not proven.
    #[must_use]
    pub fn claimed(&self) -> Option<&SpiffeId> {
        match self {
            Self::LeafIsCa { id }
            | Self::RootPath { id }
            | Self::UnknownTrustDomain { id, .. }
            | Self::ForeignRoot { id }
            | Self::WrongDomainRoot { id, .. }
            | Self::Expired { id, .. }
            | Self::NotYetValid { id, .. }
            | Self::BadChain { id, .. }
            | Self::RevokedCluster { id, .. }
            | Self::IssuerRevoked { id, .. }
            | Self::UnknownIssuer { id, .. }
            | Self::NamespaceNotAllowed { id, .. }
            | Self::UnexpectedIdentity { id, .. } => Some(id),
            Self::NoCertificate
            | Self::ChainTooLong(_)
            | Self::Malformed(_)
            | Self::NoSpiffeId
            | Self::SeveralUriSans(_)
            | Self::InvalidSpiffeId { .. } => None,
        }
    }

    /// The reason inside a handshake error of this side, if our verifier gave one.
    #[must_use]
    pub fn find(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.0.downcast_ref::<Self>().cloned()
            }
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            _ => None,
        }
    }

    /// As [`VerifyError::find`], for an I/O error that carries a rustls error (tokio-rustls wraps them so).
    #[must_use]
    pub fn find_io(error: &std::io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(Self::find)
    }
}

impl From<VerifyError> for rustls::Error {
    fn from(error: VerifyError) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}
