//! Signed statements about members: introductions and revocations, as control planes pass them on.
//!
//! A statement is believed when its signer is the control plane of a member that is not revoked, by its certificate at the time of
//! signing. A member may be introduced by any other (revision 0); later changes of its record only it may sign. An incarnation more
//! than a day ahead is refused, so that nobody is banned for ever by a number that no clock reaches. What is signed are the bytes as
//! sent, so a newer version's unknown fields survive the journey through an older one.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use crate::ca::{self, CaError};
use crate::certificate::SpkiHash;
use crate::instant;
use crate::membership::{Member, Membership};
use crate::spiffe::{IdentityKind, SpiffeId, TrustDomain};
use crate::trust::TrustBundleSet;
use crate::verdict::{VerifiedPeer, verdict};
use crate::verify_error::VerifyError;
use crate::workload_key::WorkloadKey;

/// Largest statement accepted.
pub const MAX_STATEMENT_BYTES: usize = 256 * 1024;
/// How far ahead of ours a signer's clock may be; as far as certificates are backdated.
const MAX_AHEAD: Duration = ca::BACKDATE;
/// How far ahead of our clock an incarnation, in Unix seconds, may be: clocks of clusters that join differ, and joining anew counts up.
const MAX_INCARNATION_AHEAD: Duration = Duration::from_secs(24 * 3600);
const LABEL: &[u8] = b"fairlead membership statement v1\0";

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Statement {
    /// This cluster is a member.
    Introduce(Member),
    /// This cluster is no member any more.
    Revoke(Tombstone),
}

/// Beats every introduction of the same or an older incarnation. Carries what is needed to refuse the cluster, so that a
/// control plane which never met it refuses it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    pub cluster: String,
    pub incarnation: u64,
    pub trust_domain: TrustDomain,
    #[serde(default)]
    pub issuing_keys: BTreeSet<SpkiHash>,
}

/// A statement as it travels and is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedStatement {
    /// [`Statement`] as JSON; these very bytes are signed.
    pub body: String,
    /// Unix seconds by the signer's clock.
    pub signed_at: u64,
    /// The signer's control-plane certificate chain, DER in base64, leaf first.
    pub chain: Vec<String>,
    /// ECDSA P-256 with SHA-256, ASN.1, base64.
    pub signature: String,
}

/// A statement that was verified. Only these can be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    statement: Statement,
    signed: SignedStatement,
    signer: SpiffeId,
}

/// A control plane's means of signing.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    pub key: &'a WorkloadKey,
    /// Its own control-plane chain, leaf first.
    pub chain: &'a [CertificateDer<'static>],
}

/// Why a statement was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntroductionError {
    #[error("statement of {0} bytes; at most {MAX_STATEMENT_BYTES} are read")]
    TooLong(usize),
    #[error("the statement cannot be read: {0}")]
    Malformed(String),
    #[error("`{0}` is no ClusterId: a DNS label of at most 32 characters, not `outside`")]
    ClusterId(String),
    #[error("it was signed at {signed_at} (unix seconds), which is in the future here ({now})")]
    FromTheFuture { signed_at: u64, now: u64 },
    #[error(
        "incarnation {incarnation} of cluster {cluster} (unix seconds) is more than a day ahead of the clock here ({now}); set the \
         clocks, or distrust whoever said it"
    )]
    IncarnationAhead { cluster: String, incarnation: u64, now: u64 },
    #[error("signer: {0}")]
    Signer(#[from] VerifyError),
    #[error("signed by {0}, which is no control plane")]
    NotAControlPlane(SpiffeId),
    #[error("the signature does not fit")]
    Signature,
    #[error(
        "cluster {cluster}'s own record (revision {revision}) was signed by {signer}; only the cluster itself may change it"
    )]
    NotItsOwn { cluster: String, revision: u64, signer: SpiffeId },
    #[error("signing: {0}")]
    Signing(#[from] CaError),
}

impl Statement {
    /// The cluster it is about.
    #[must_use]
    pub fn cluster(&self) -> &str {
        match self {
            Self::Introduce(member) => &member.cluster,
            Self::Revoke(tombstone) => &tombstone.cluster,
        }
    }

    /// Can a cluster have begun the incarnation it speaks of, by our clock?
    ///
    /// # Errors
    /// [`IntroductionError::IncarnationAhead`].
    pub fn check_incarnation(&self, now: UnixTime) -> Result<(), IntroductionError> {
        let (cluster, incarnation) = match self {
            Self::Introduce(member) => (&member.cluster, member.incarnation),
            Self::Revoke(tombstone) => (&tombstone.cluster, tombstone.incarnation),
        };
        if incarnation <= instant::later(now, MAX_INCARNATION_AHEAD).as_secs() {
            return Ok(());
        }
        Err(IntroductionError::IncarnationAhead { cluster: cluster.clone(), incarnation, now: now.as_secs() })
    }

    /// Signs it as a control plane and gives it back verified: one's own word needs no proof.
    ///
    /// # Errors
    /// [`IntroductionError`] when it cannot be signed, or the signer has no control identity.
    pub fn sign(self, signer: Signer<'_>, now: UnixTime) -> Result<Introduction, IntroductionError> {
        let id =
            crate::verdict::claimed_identity(signer.chain).ok_or(IntroductionError::Signer(VerifyError::NoSpiffeId))?;
        if id.kind() != IdentityKind::Control {
            return Err(IntroductionError::NotAControlPlane(id));
        }
        let body = serde_json::to_string(&self).map_err(|error| IntroductionError::Malformed(error.to_string()))?;
        let signed_at = now.as_secs();
        let signature = signer.key.sign(&message(&body, signed_at))?;
        Ok(Introduction {
            statement: self,
            signed: SignedStatement {
                body,
                signed_at,
                chain: signer.chain.iter().map(|der| STANDARD.encode(der)).collect(),
                signature: STANDARD.encode(signature),
            },
            signer: id,
        })
    }
}

impl SignedStatement {
    /// Believes it or not, by the trust of the reader.
    ///
    /// # Errors
    /// [`IntroductionError`] naming the first thing wrong. [`VerifyError::UnknownTrustDomain`] inside may mean only that
    /// the signer's own introduction has not arrived yet: keep it and try again after the next merge.
    pub fn verify(&self, trust: &TrustBundleSet, now: UnixTime) -> Result<Introduction, IntroductionError> {
        if self.body.len() > MAX_STATEMENT_BYTES {
            return Err(IntroductionError::TooLong(self.body.len()));
        }
        if self.signed_at > instant::later(now, MAX_AHEAD).as_secs() {
            return Err(IntroductionError::FromTheFuture { signed_at: self.signed_at, now: now.as_secs() });
        }
        let statement: Statement =
            serde_json::from_str(&self.body).map_err(|error| IntroductionError::Malformed(error.to_string()))?;
        check_cluster_id(statement.cluster())?;
        statement.check_incarnation(now)?;
        let chain = self.decode_chain()?;
        let signed_at = UnixTime::since_unix_epoch(Duration::from_secs(self.signed_at));
        let signer = verdict(&chain, trust, signed_at)?;
        if signer.spiffe_id.kind() != IdentityKind::Control {
            return Err(IntroductionError::NotAControlPlane(signer.spiffe_id));
        }
        self.verify_signature(&chain)?;
        own_changes_only(&statement, &signer)?;
        Ok(Introduction { statement, signed: self.clone(), signer: signer.spiffe_id })
    }

    /// Takes it back from this control plane's own store, where only verified statements were put.
    ///
    /// # Errors
    /// [`IntroductionError::Malformed`] for a damaged store.
    pub fn stored(self) -> Result<Introduction, IntroductionError> {
        let statement: Statement =
            serde_json::from_str(&self.body).map_err(|error| IntroductionError::Malformed(error.to_string()))?;
        let signer = crate::verdict::claimed_identity(&self.decode_chain()?)
            .ok_or(IntroductionError::Signer(VerifyError::NoSpiffeId))?;
        Ok(Introduction { statement, signed: self, signer })
    }

    fn decode_chain(&self) -> Result<Vec<CertificateDer<'static>>, IntroductionError> {
        self.chain
            .iter()
            .take(crate::verdict::MAX_CHAIN + 1)
            .map(|text| {
                STANDARD
                    .decode(text)
                    .map(CertificateDer::from)
                    .map_err(|error| IntroductionError::Malformed(format!("chain: {error}")))
            })
            .collect()
    }

    fn verify_signature(&self, chain: &[CertificateDer<'_>]) -> Result<(), IntroductionError> {
        let leaf = chain.first().ok_or(IntroductionError::Signature)?;
        let signature = STANDARD.decode(&self.signature).map_err(|_| IntroductionError::Signature)?;
        webpki::EndEntityCert::try_from(leaf)
            .map_err(|_| IntroductionError::Signature)?
            .verify_signature(webpki::aws_lc_rs::ECDSA_P256_SHA256, &message(&self.body, self.signed_at), &signature)
            .map_err(|_| IntroductionError::Signature)
    }
}

impl Introduction {
    /// What is said.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// As it travels.
    #[must_use]
    pub fn signed(&self) -> &SignedStatement {
        &self.signed
    }

    /// The control plane that said it.
    #[must_use]
    pub fn signer(&self) -> &SpiffeId {
        &self.signer
    }

    pub(crate) fn into_parts(self) -> (Statement, SignedStatement) {
        (self.statement, self.signed)
    }
}

impl Membership {
    /// Everything this control plane knows, said anew in its own name: what a newcomer is told, who may not know (or no
    /// longer be able to believe) those who said it first. Of a contested name both claims, so that it is contested there too.
    ///
    /// # Errors
    /// As [`Statement::sign`].
    pub fn reintroduce(&self, signer: Signer<'_>, now: UnixTime) -> Result<Vec<SignedStatement>, IntroductionError> {
        let introductions =
            self.introductions().map(|member| Statement::Introduce(Member { revision: 0, ..member.clone() }));
        let revocations = self.revocations().map(|(tombstone, _)| Statement::Revoke(tombstone.clone()));
        introductions.chain(revocations).map(|statement| Ok(statement.sign(signer, now)?.signed)).collect()
    }

    /// Verifies and merges what can be believed, again and again while new members make more of it believable. Returns
    /// what was not believed, with the reason.
    pub fn absorb<'s>(
        &mut self,
        statements: &'s [SignedStatement],
        trust: &dyn Fn(&Self) -> TrustBundleSet,
        now: UnixTime,
    ) -> (Vec<crate::membership::Merged>, Vec<(&'s SignedStatement, IntroductionError)>) {
        let mut merged = Vec::new();
        let mut waiting: Vec<(&SignedStatement, Option<IntroductionError>)> =
            statements.iter().map(|statement| (statement, None)).collect();
        loop {
            let before = waiting.len();
            let believed = trust(self);
            waiting.retain_mut(|(statement, reason)| match statement.verify(&believed, now) {
                Ok(introduction) => {
                    merged.push(self.merge(introduction));
                    false
                }
                Err(error) => {
                    *reason = Some(error);
                    true
                }
            });
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        let refused = waiting.into_iter().filter_map(|(statement, reason)| Some((statement, reason?))).collect();
        (merged, refused)
    }
}

/// Is it a ClusterId: a DNS label of at most 32 characters, and not the reserved `outside`?
pub(crate) fn check_cluster_id(text: &str) -> Result<(), IntroductionError> {
    let good = !text.is_empty()
        && text.len() <= 32
        && text != "outside"
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good { Ok(()) } else { Err(IntroductionError::ClusterId(text.chars().take(64).collect())) }
}

fn own_changes_only(statement: &Statement, signer: &VerifiedPeer) -> Result<(), IntroductionError> {
    let Statement::Introduce(member) = statement else {
        return Ok(());
    };
    if member.revision > 0 && signer.cluster.as_deref() != Some(member.cluster.as_str()) {
        return Err(IntroductionError::NotItsOwn {
            cluster: member.cluster.clone(),
            revision: member.revision,
            signer: signer.spiffe_id.clone(),
        });
    }
    Ok(())
}

fn message(body: &str, signed_at: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(LABEL.len() + 8 + body.len());
    out.extend_from_slice(LABEL);
    out.extend_from_slice(&signed_at.to_be_bytes());
    out.extend_from_slice(body.as_bytes());
    out
}
