//! The joining handshake of two control planes, without its sockets.
//!
//! ```text
//! dialler                                             acceptor (issued the token)
//!   TLS to an address of the token, root pinned ───►
//!   JoinRequest {token id, body, HMAC} ────────────►  find, check end and proof, check ClusterId, burn
//!   verify HMAC, nonce                 ◄────────────  JoinAnswer {body, HMAC}
//! ```
//!
//! Both proofs are HMACs, keyed by the token's secret, over the TLS exporter of this very connection: nobody in between can
//! carry them over to another. The token is burned before the answer is made, and a wrong proof burns nothing.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use crate::bundle::TrustBundle;
use crate::certificate::{self, SpkiHash};
use crate::introduction::{self, SignedStatement};
use crate::join_token::{JoinToken, StoreError, StoredToken, TokenId, TokenStore};
use crate::membership::{Member, Membership};
use crate::random::{self, RandomError, RandomSource};
use crate::spiffe::{IdentityKind, TrustDomain};
use crate::trust::TrustBundleSet;
use crate::verdict::{VerifiedPeer, claimed_identity, verdict};
use crate::verify_error::VerifyError;

/// Label for `export_keying_material`; no context.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL fairlead join v1";
/// Bytes to export.
pub const EXPORTER_BYTES: usize = 32;
/// Largest request or answer body read.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

const DIALLER: &[u8] = b"fairlead join dialler v1\0";
const ACCEPTOR: &[u8] = b"fairlead join acceptor v1\0";

/// From the dialler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequest {
    pub token: TokenId,
    /// Who wants to join, as JSON; these very bytes are proven.
    pub body: String,
    /// HMAC-SHA256, base64.
    pub proof: String,
}

/// From the acceptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    pub body: String,
    pub proof: String,
}

/// The dialler's side between request and answer.
pub struct PendingJoin {
    key: [u8; 32],
    exporter: [u8; EXPORTER_BYTES],
    body: String,
    nonce: String,
}

/// What the dialler has learnt, proven by the token's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The acceptor itself.
    pub member: Member,
    /// Everyone else it knows, said in its name.
    pub introductions: Vec<SignedStatement>,
}

/// What the acceptor knows already.
#[derive(Debug, Clone, Copy)]
pub struct Roster<'a> {
    /// The acceptor's own record.
    pub me: &'a Member,
    pub membership: &'a Membership,
    /// `trust: shared`.
    pub shared: bool,
}

/// Why a join failed. The dialler is told this text, except that everything before a good proof is one refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JoinRefused {
    #[error(
        "the token is not good here: unknown, used already, or not proven; make a new one with `fairlead token create`"
    )]
    BadToken,
    #[error("the token has ended; make a new one with `fairlead token create`")]
    Expired,
    #[error("the message cannot be read: {0}")]
    Malformed(String),
    #[error("ClusterId {0} is taken by another cluster of this mesh; give the joining cluster another name")]
    ClusterIdTaken(String),
    #[error("trust domain {domain} is taken by cluster {cluster}; give the joining cluster a trust domain of its own")]
    TrustDomainTaken { domain: TrustDomain, cluster: String },
    #[error(
        "this mesh shares one root (trust: shared), which the joining cluster's CA does not lead to; issue it an intermediate under that root"
    )]
    NotUnderSharedRoot,
    #[error("cluster {cluster} shares its issuing key with {other}; give each its own intermediate")]
    IssuingKeyShared { cluster: String, other: String },
    #[error("the name {0} is claimed by two authorities already; detach {0}, then join again")]
    Contested(String),
    #[error("cluster {cluster} was detached at incarnation {revoked}; it joins again only with a higher one")]
    Detached { cluster: String, revoked: u64 },
    #[error("the answer is not proven; whoever answered does not know the token's secret")]
    AnswerNotProven,
    #[error("the token store failed, so the token could not be used up: {0}")]
    Store(String),
    #[error("no random bytes")]
    Random,
    #[error(
        "another cluster is joining as {0} at this moment; give the joining cluster another name, or try again in a minute"
    )]
    NameHeld(String),
    #[error("the control plane cannot introduce its mesh: {0}")]
    Internal(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody {
    member: Member,
    nonce: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerBody {
    member: Member,
    /// The dialler's, so that an old answer is none.
    your_nonce: String,
    nonce: String,
    introductions: Vec<SignedStatement>,
}

/// The dialler's message, after the TLS handshake. `me` carries its ClusterId, incarnation and bundle.
///
/// # Errors
/// [`JoinRefused::Random`] or [`JoinRefused::Malformed`], before anything is sent.
pub fn request(
    token: &JoinToken,
    exporter: [u8; EXPORTER_BYTES],
    me: &Member,
    random: &mut dyn RandomSource,
) -> Result<(JoinRequest, PendingJoin), JoinRefused> {
    let nonce = certificate::hex(&random::bytes::<32>(random)?);
    let body = to_json(&RequestBody { member: me.clone(), nonce: nonce.clone() })?;
    let key = token.key();
    let proof = prove(&key, DIALLER, &exporter, &[&body]);
    let pending = PendingJoin { key, exporter, body: body.clone(), nonce };
    let request = JoinRequest { token: token.id(), body, proof };
    Ok((request, pending))
}

/// The acceptor's whole part: checks, burns, answers. Returns the newcomer's record, which the acceptor introduces to the
/// others in its own name. `introduce` makes the introductions for the newcomer once it has proven its token and is admitted, or refuses it.
///
/// # Errors
/// [`JoinRefused`]; the token is burned only if everything else was good.
pub fn accept(
    request: &JoinRequest,
    exporter: [u8; EXPORTER_BYTES],
    store: &dyn TokenStore,
    roster: Roster<'_>,
    introduce: impl FnOnce(&Member) -> Result<Vec<SignedStatement>, JoinRefused>,
    now: UnixTime,
    random: &mut dyn RandomSource,
) -> Result<(JoinAnswer, Member), JoinRefused> {
    let token = proven_token(request, &exporter, store, now)?;
    let body: RequestBody = from_json(&request.body)?;
    roster.admits(&body.member)?;
    let introductions = introduce(&body.member)?;
    let key = token.key_bytes().ok_or(JoinRefused::BadToken)?;
    let answer = to_json(&AnswerBody {
        member: roster.me.clone(),
        your_nonce: body.nonce,
        nonce: certificate::hex(&random::bytes::<32>(random)?),
        introductions,
    })?;
    if !store.burn(&token.id, token.expires)? {
        return Err(JoinRefused::BadToken);
    }
    let proof = prove(&key, ACCEPTOR, &exporter, &[&request.body, &answer]);
    Ok((JoinAnswer { body: answer, proof }, body.member))
}

/// What [`accept`] would do, without doing it: nothing is burned, nobody becomes a member.
///
/// # Errors
/// [`JoinRefused`], the same as of a join.
pub fn rehearse(
    request: &JoinRequest,
    exporter: [u8; EXPORTER_BYTES],
    store: &dyn TokenStore,
    roster: Roster<'_>,
    now: UnixTime,
) -> Result<(), JoinRefused> {
    let token = proven_token(request, &exporter, store, now)?;
    let body: RequestBody = from_json(&request.body)?;
    roster.admits(&body.member)?;
    if store.is_burned(&token.id)? { Err(JoinRefused::BadToken) } else { Ok(()) }
}

/// Answer to a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// Why a join would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<JoinRefused>,
    /// The acceptor's clock, unix seconds.
    pub now: u64,
}

impl PendingJoin {
    /// The dialler's check of the answer.
    ///
    /// # Errors
    /// [`JoinRefused::AnswerNotProven`] when the acceptor does not know the secret or answers something else.
    pub fn finish(self, answer: &JoinAnswer) -> Result<Joined, JoinRefused> {
        if answer.body.len() > MAX_BODY_BYTES {
            return Err(JoinRefused::Malformed(format!("{} bytes", answer.body.len())));
        }
        check(&self.key, ACCEPTOR, &self.exporter, &[&self.body, &answer.body], &answer.proof)
            .map_err(|()| JoinRefused::AnswerNotProven)?;
        let body: AnswerBody = from_json(&answer.body)?;
        if body.your_nonce != self.nonce {
            return Err(JoinRefused::AnswerNotProven);
        }
        Ok(Joined { member: body.member, introductions: body.introductions })
    }
}

impl Roster<'_> {
    /// May this newcomer join under its name, trust domain and keys?
    ///
    /// # Errors
    /// [`JoinRefused`] naming what is taken.
    pub fn admits(&self, newcomer: &Member) -> Result<(), JoinRefused> {
        introduction::check_cluster_id(&newcomer.cluster).map_err(|error| JoinRefused::Malformed(error.to_string()))?;
        if newcomer.cluster == self.me.cluster {
            return Err(JoinRefused::ClusterIdTaken(newcomer.cluster.clone()));
        }
        if let Some(tombstone) = self.membership.tombstone(&newcomer.cluster)
            && tombstone.incarnation >= newcomer.incarnation
        {
            return Err(JoinRefused::Detached { cluster: newcomer.cluster.clone(), revoked: tombstone.incarnation });
        }
        if self.shared
            && !(newcomer.bundle.shares_root_with(&self.me.bundle) && newcomer.trust_domain() == self.me.trust_domain())
        {
            return Err(JoinRefused::NotUnderSharedRoot);
        }
        if self.membership.claims(&newcomer.cluster).count() > 1 {
            return Err(JoinRefused::Contested(newcomer.cluster.clone()));
        }
        let others = self.membership.members().filter(|known| known.cluster != self.me.cluster);
        for known in others.chain([self.me]) {
            self.admits_beside(newcomer, known)?;
        }
        Ok(())
    }

    fn admits_beside(&self, newcomer: &Member, known: &Member) -> Result<(), JoinRefused> {
        if known.cluster == newcomer.cluster {
            // The same cluster may join again (it lost its state, or dials another member); another one may not.
            return if known.same_authority(newcomer, self.shared) {
                Ok(())
            } else {
                Err(JoinRefused::ClusterIdTaken(newcomer.cluster.clone()))
            };
        }
        if !self.shared && known.trust_domain() == newcomer.trust_domain() {
            return Err(JoinRefused::TrustDomainTaken {
                domain: newcomer.trust_domain().clone(),
                cluster: known.cluster.clone(),
            });
        }
        if !known.issuing_keys.is_disjoint(&newcomer.issuing_keys) {
            return Err(JoinRefused::IssuingKeyShared {
                cluster: newcomer.cluster.clone(),
                other: known.cluster.clone(),
            });
        }
        Ok(())
    }
}

/// The dialler's judgement of the acceptor's chain: it must hold the pinned root, lead to it, and name a control plane.
///
/// # Errors
/// [`VerifyError`].
pub fn judge_pinned(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    root: SpkiHash,
    now: UnixTime,
) -> Result<VerifiedPeer, VerifyError> {
    let chain: Vec<CertificateDer<'static>> = std::iter::once(end_entity)
        .chain(intermediates.iter().take(crate::verdict::MAX_CHAIN))
        .map(|der| der.clone().into_owned())
        .collect();
    let id = claimed_identity(&chain).ok_or(VerifyError::NoSpiffeId)?;
    let foreign = || VerifyError::ForeignRoot { id: id.clone() };
    let pinned = chain
        .iter()
        .skip(1)
        .find(|der| SpkiHash::of_certificate(der).is_ok_and(|key| key == root))
        .ok_or_else(foreign)?;
    let bundle = TrustBundle::new(id.trust_domain(), 0, [pinned.clone()]).map_err(|_| foreign())?;
    let trust = TrustBundleSet::of(bundle, None).map_err(|_| foreign())?;
    let peer = verdict(&chain, &trust, now)?;
    if peer.spiffe_id.kind() != IdentityKind::Control {
        return Err(VerifyError::UnexpectedIdentity { id: peer.spiffe_id, expected: "a control plane".to_owned() });
    }
    Ok(peer)
}

fn proven_token(
    request: &JoinRequest,
    exporter: &[u8; EXPORTER_BYTES],
    store: &dyn TokenStore,
    now: UnixTime,
) -> Result<StoredToken, JoinRefused> {
    if request.body.len() > MAX_BODY_BYTES {
        return Err(JoinRefused::Malformed(format!("{} bytes", request.body.len())));
    }
    let token = store.find(&request.token)?.ok_or(JoinRefused::BadToken)?;
    let key = token.key_bytes().ok_or(JoinRefused::BadToken)?;
    check(&key, DIALLER, exporter, &[&request.body], &request.proof).map_err(|()| JoinRefused::BadToken)?;
    if token.is_expired(now) {
        return Err(JoinRefused::Expired);
    }
    Ok(token)
}

fn prove(key: &[u8; 32], label: &[u8], exporter: &[u8; EXPORTER_BYTES], bodies: &[&str]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    STANDARD.encode(hmac::sign(&key, &transcript(label, exporter, bodies)))
}

/// Constant-time, by aws-lc.
fn check(
    key: &[u8; 32],
    label: &[u8],
    exporter: &[u8; EXPORTER_BYTES],
    bodies: &[&str],
    proof: &str,
) -> Result<(), ()> {
    let proof = STANDARD.decode(proof).map_err(|_| ())?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, &transcript(label, exporter, bodies), &proof).map_err(|_| ())
}

/// Every part with its length before it, so that no two transcripts are the same bytes.
fn transcript(label: &[u8], exporter: &[u8; EXPORTER_BYTES], bodies: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(label);
    out.extend_from_slice(exporter);
    for body in bodies {
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        out.extend_from_slice(body.as_bytes());
    }
    out
}

fn to_json(value: &impl Serialize) -> Result<String, JoinRefused> {
    serde_json::to_string(value).map_err(|error| JoinRefused::Malformed(error.to_string()))
}

fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, JoinRefused> {
    serde_json::from_str(text).map_err(|error| JoinRefused::Malformed(error.to_string()))
}

impl From<StoreError> for JoinRefused {
    fn from(error: StoreError) -> Self {
        Self::Store(error.0)
    }
}

impl From<RandomError> for JoinRefused {
    fn from(_: RandomError) -> Self {
        Self::Random
    }
}

impl std::fmt::Debug for PendingJoin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingJoin").finish_non_exhaustive()
    }
}
