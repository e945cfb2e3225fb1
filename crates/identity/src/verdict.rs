//! The verdict about one certificate chain, pure.
//!
//! Roots are chosen from the trust domain the leaf *claims*, before any path is built, so a root is never valid for a domain
//! that is not its own. The same function judges a handshake, a resumed session's stored chain, and a live connection after
//! the trust changed. It keeps no state and never looks at host names: a mesh peer is its SPIFFE ID.

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use crate::bundle::TrustBundle;
use crate::certificate::{CertificateFacts, SpkiHash};
use crate::provider;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::{DomainTrust, TrustBundleSet};
use crate::verify_error::VerifyError;

/// Most certificates of a peer's chain that are looked at.
pub const MAX_CHAIN: usize = 8;

/// OIDs id-kp-serverAuth and id-kp-clientAuth (RFC 5280 §4.2.1.12).
const SERVER_AUTH: [usize; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: [usize; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 2];

/// A peer that is who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    pub spiffe_id: SpiffeId,
    /// The member the identity belongs to: by trust domain, or by issuing key in a shared one. None when the trust set
    /// does not name one.
    pub cluster: Option<String>,
    /// The key that signed the leaf.
    pub issuer: SpkiHash,
    /// Every key above the leaf: the issuer first, the root last.
    pub path: Vec<SpkiHash>,
    /// The leaf's own key.
    pub key: SpkiHash,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    /// The workload key the issuer wrote into the leaf, for our own leaves (see [`crate::ca::LeafRequest::workload`]).
    pub workload: Option<String>,
    /// The uid of the pod it was issued to, likewise.
    pub pod_uid: Option<String>,
}

/// Judges `chain` (leaf first) by `trust` at `now`.
///
/// - A handshake and a *resumed* session are judged at the present time.
/// - A *live* connection whose trust changed is judged by [`still_believed`], or here at the time of its handshake.
///
/// # Errors
/// The first rule broken, in the order: readable, names, leaf rules, trust domain known and not revoked, path and
/// validity, issuer, namespace.
pub fn verdict(
    chain: &[CertificateDer<'_>],
    trust: &TrustBundleSet,
    now: UnixTime,
) -> Result<VerifiedPeer, VerifyError> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(VerifyError::NoCertificate);
    };
    if chain.len() > MAX_CHAIN {
        return Err(VerifyError::ChainTooLong(chain.len()));
    }
    let facts = CertificateFacts::parse(leaf).map_err(|error| VerifyError::Malformed(error.to_string()))?;
    let id = only_spiffe_id(&facts)?;
    if facts.is_ca || facts.may_sign_certificates {
        return Err(VerifyError::LeafIsCa { id });
    }
    if id.path().is_empty() {
        return Err(VerifyError::RootPath { id });
    }
    let (domain, bundle) = domain_of(&id, trust)?;
    let path = Path::build(leaf, intermediates, bundle, &id, now)
        .map_err(|error| signed_elsewhere(error, leaf, intermediates, &id, trust, now))?;
    let cluster = judge_issuers(&path.keys, &id, domain)?;
    judge_namespace(&id, domain, cluster.as_deref())?;
    Ok(VerifiedPeer {
        spiffe_id: id,
        cluster,
        issuer: path.issuer,
        path: path.keys,
        key: facts.spki,
        not_before: facts.not_before,
        not_after: facts.not_after,
        workload: facts.workload,
        pod_uid: facts.pod_uid,
    })
}

/// Is a peer that was believed at its handshake still believed after the trust changed? For live connections: without
/// cryptography, as the chain was verified and its keys are known, and without a look at the clock, as a long stream outlives
/// its short certificate but not the revocation of its issuer.
///
/// # Errors
/// As [`verdict`]: a revoked or unknown domain, a root no longer accepted, a revoked issuer, a namespace out of bounds.
pub fn still_believed(peer: &VerifiedPeer, trust: &TrustBundleSet) -> Result<(), VerifyError> {
    let id = &peer.spiffe_id;
    let (domain, bundle) = domain_of(id, trust)?;
    let root = peer.path.last();
    if !bundle.fingerprints().any(|key| Some(&key) == root) {
        return Err(VerifyError::ForeignRoot { id: id.clone() });
    }
    let cluster = judge_issuers(&peer.path, id, domain)?;
    judge_namespace(id, domain, cluster.as_deref())
}

/// What a leaf claims, without believing any of it: for log lines about refused peers.
#[must_use]
pub fn claimed_identity(chain: &[CertificateDer<'_>]) -> Option<SpiffeId> {
    let facts = CertificateFacts::parse(chain.first()?).ok()?;
    only_spiffe_id(&facts).ok()
}

fn only_spiffe_id(facts: &CertificateFacts) -> Result<SpiffeId, VerifyError> {
    match facts.uri_sans.as_slice() {
        [] => Err(VerifyError::NoSpiffeId),
        [uri] => SpiffeId::parse(uri).map_err(|source| VerifyError::InvalidSpiffeId {
            // A stranger's text goes to logs: bounded.
            uri: uri.chars().take(256).collect(),
            source,
        }),
        several => Err(VerifyError::SeveralUriSans(several.len())),
    }
}

fn domain_of<'t>(id: &SpiffeId, trust: &'t TrustBundleSet) -> Result<(&'t DomainTrust, &'t TrustBundle), VerifyError> {
    let unknown = || VerifyError::UnknownTrustDomain { domain: id.trust_domain(), id: id.clone() };
    let domain = trust.domain(id.domain()).ok_or_else(unknown)?;
    if domain.revoked {
        return Err(VerifyError::RevokedCluster {
            id: id.clone(),
            cluster: domain.cluster.clone().unwrap_or_else(|| id.domain().to_owned()),
        });
    }
    let bundle = domain.bundle.as_ref().ok_or_else(unknown)?;
    Ok((domain, bundle))
}

/// The verified way from a leaf to a root, as key fingerprints.
struct Path {
    /// The key that signed the leaf.
    issuer: SpkiHash,
    /// Every key above the leaf, the issuer first, the root last.
    keys: Vec<SpkiHash>,
}

impl Path {
    fn build(
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        bundle: &TrustBundle,
        id: &SpiffeId,
        now: UnixTime,
    ) -> Result<Self, VerifyError> {
        let end_entity =
            webpki::EndEntityCert::try_from(leaf).map_err(|error| VerifyError::Malformed(error.to_string()))?;
        let verified = end_entity
            .verify_for_usage(
                provider::verification_algorithms().all,
                bundle.anchors(),
                intermediates,
                now,
                SvidUsage,
                None,
                None,
            )
            .map_err(|error| path_error(&error, id))?;
        Self::of(&verified, bundle, id, now)
    }

    fn of(
        verified: &VerifiedPath<'_>,
        bundle: &TrustBundle,
        id: &SpiffeId,
        now: UnixTime,
    ) -> Result<Self, VerifyError> {
        let root = bundle.root_of(verified.anchor()).ok_or_else(|| VerifyError::ForeignRoot { id: id.clone() })?;
        // webpki does not look at a root's own validity; an expired root must not go on vouching.
        if root.not_after < now {
            return Err(VerifyError::Expired {
                id: id.clone(),
                not_after: root.not_after.as_secs(),
                now: now.as_secs(),
            });
        }
        let keys: Vec<SpkiHash> = verified
            .intermediate_certificates()
            .map(|certificate| SpkiHash::of_spki(&certificate.subject_public_key_info()))
            .chain([root.spki])
            .collect();
        Ok(Self { issuer: keys.first().copied().unwrap_or(root.spki), keys })
    }
}

/// Which member issued this? Every key of the path is looked at, not only the nearest: a detached member could
/// otherwise put a fresh intermediate of its own between itself and the leaf.
fn judge_issuers(keys: &[SpkiHash], id: &SpiffeId, domain: &DomainTrust) -> Result<Option<String>, VerifyError> {
    if domain.issuers.is_empty() {
        return Ok(domain.cluster.clone());
    }
    let mut cluster = None;
    for key in keys {
        let Some(issuer) = domain.issuers.get(key) else {
            continue;
        };
        if issuer.revoked {
            return Err(VerifyError::IssuerRevoked { id: id.clone(), cluster: issuer.cluster.clone(), key: *key });
        }
        if !issuer.namespaces.allows(id) {
            return Err(VerifyError::NamespaceNotAllowed { id: id.clone(), cluster: issuer.cluster.clone() });
        }
        cluster.get_or_insert_with(|| issuer.cluster.clone());
    }
    match (cluster, keys.first()) {
        (None, Some(nearest)) => Err(VerifyError::UnknownIssuer { id: id.clone(), key: *nearest }),
        (cluster, _) => Ok(cluster),
    }
}

fn judge_namespace(id: &SpiffeId, domain: &DomainTrust, cluster: Option<&str>) -> Result<(), VerifyError> {
    if domain.namespaces.allows(id) {
        return Ok(());
    }
    Err(VerifyError::NamespaceNotAllowed { cluster: cluster.unwrap_or_else(|| id.domain()).to_owned(), id: id.clone() })
}

/// Tells "some other domain's root" from "nobody's root", for the message only: the chain is refused either way.
fn signed_elsewhere(
    error: VerifyError,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    id: &SpiffeId,
    trust: &TrustBundleSet,
    now: UnixTime,
) -> VerifyError {
    if !matches!(error, VerifyError::ForeignRoot { .. }) {
        return error;
    }
    let signer = trust
        .domains()
        .filter(|(domain, _)| domain.as_str() != id.domain())
        .filter_map(|(domain, other)| Some((domain, other.bundle.as_ref()?)))
        .find(|(_, bundle)| Path::build(leaf, intermediates, bundle, id, now).is_ok())
        .map(|(domain, _)| TrustDomain::clone(domain));
    match signer {
        Some(signer) => VerifyError::WrongDomainRoot { id: id.clone(), signer },
        None => error,
    }
}

fn path_error(error: &webpki::Error, id: &SpiffeId) -> VerifyError {
    let id = id.clone();
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            VerifyError::Expired { id, not_after: not_after.as_secs(), now: time.as_secs() }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            VerifyError::NotYetValid { id, not_before: not_before.as_secs(), now: time.as_secs() }
        }
        // A foreign root may well carry the same subject as ours; then the path is found and its signature fails.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => VerifyError::ForeignRoot { id },
        webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => VerifyError::ForeignRoot { id },
        other => VerifyError::BadChain { id, detail: other.to_string() },
    }
}

/// X.509-SVID §4.4: extended key usage may be absent; when present it must hold both purposes.
struct SvidUsage;

impl ExtendedKeyUsageValidator for SvidUsage {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let (mut any, mut server, mut client) = (false, false, false);
        for purpose in purposes {
            let oid = purpose?.to_decoded_oid();
            any = true;
            server |= oid == SERVER_AUTH;
            client |= oid == CLIENT_AUTH;
        }
        if any && !(server && client) {
            return Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
                required: if server { webpki::KeyUsage::client_auth() } else { webpki::KeyUsage::server_auth() },
                present: Vec::new(),
            }));
        }
        Ok(())
    }
}
