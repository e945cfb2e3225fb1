//! Join credentials of workloads: how a proxy in the lab gets its first certificate.
//!
//! A token names exactly one identity and one workload, is signed by its issuer, good once, and short-lived. After that the
//! proxy renews with its certificate alone. A restarted proxy gets a new token from whoever started it; an old one is no good.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use crate::ca;
use crate::certificate;
use crate::instant;
use crate::join_token::{MAX_TOKEN_BYTES, StoreError, TokenId, TokenStore};
use crate::random::{self, RandomError, RandomSource};
use crate::spiffe::SpiffeId;

const PREFIX: &str = "flw1.";
const LABEL: &[u8] = b"fairlead workload token v1\0";

/// The text a proxy is started with. Secret until used.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkloadToken(String);

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadClaim {
    /// The identity its certificate will have.
    pub spiffe_id: SpiffeId,
    /// The workload, `namespace/name`; written into the certificate.
    pub workload: String,
    /// Unix seconds, by the issuer's clock.
    pub expires: u64,
    /// Makes each token another.
    pub id: TokenId,
}

/// Signs and redeems tokens with one key.
pub struct WorkloadTokenIssuer {
    key: hmac::Key,
}

/// Why a workload token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadTokenError {
    #[error("no workload token of this control plane")]
    Invalid,
    #[error("the workload token of {workload} has ended; start the proxy again with a new one")]
    Expired { workload: String },
    #[error("the workload token of {workload} was used already; start the proxy again with a new one")]
    Used { workload: String },
    #[error("workload key of {0} bytes is too long")]
    WorkloadTooLong(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl WorkloadTokenIssuer {
    /// With a secret that only this cluster's control planes know.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// A token for one start of one workload.
    ///
    /// # Errors
    /// [`WorkloadTokenError`] without randomness, or for a workload key that no certificate could carry.
    pub fn issue(
        &self,
        spiffe_id: &SpiffeId,
        workload: &str,
        valid_for: Duration,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<WorkloadToken, WorkloadTokenError> {
        if workload.len() > ca::MAX_WORKLOAD_BYTES {
            return Err(WorkloadTokenError::WorkloadTooLong(workload.len()));
        }
        let claim = WorkloadClaim {
            spiffe_id: spiffe_id.clone(),
            workload: workload.to_owned(),
            expires: instant::later(now, valid_for).as_secs(),
            id: TokenId::from_bytes(random::bytes(random)?),
        };
        let body = serde_json::to_vec(&claim).map_err(|_| WorkloadTokenError::Invalid)?;
        let body = URL_SAFE_NO_PAD.encode(body);
        let proof = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, &message(&body)));
        Ok(WorkloadToken(format!("{PREFIX}{body}.{proof}")))
    }

    /// Checks a token and uses it up.
    ///
    /// # Errors
    /// [`WorkloadTokenError`]; a store that fails refuses.
    pub fn redeem(
        &self,
        token: &WorkloadToken,
        store: &dyn TokenStore,
        now: UnixTime,
    ) -> Result<WorkloadClaim, WorkloadTokenError> {
        let (body, proof) =
            token.0.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or(WorkloadTokenError::Invalid)?;
        let proof = URL_SAFE_NO_PAD.decode(proof).map_err(|_| WorkloadTokenError::Invalid)?;
        hmac::verify(&self.key, &message(body), &proof).map_err(|_| WorkloadTokenError::Invalid)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| WorkloadTokenError::Invalid)?;
        let claim: WorkloadClaim = serde_json::from_slice(&body).map_err(|_| WorkloadTokenError::Invalid)?;
        if now.as_secs() >= claim.expires {
            return Err(WorkloadTokenError::Expired { workload: claim.workload });
        }
        if !store.burn(&claim.id, claim.expires)? {
            return Err(WorkloadTokenError::Used { workload: claim.workload });
        }
        Ok(claim)
    }
}

impl WorkloadToken {
    /// Reads a text; whether it is good only the issuer can say.
    ///
    /// # Errors
    /// [`WorkloadTokenError::Invalid`] for a text that cannot be a token.
    pub fn parse(text: &str) -> Result<Self, WorkloadTokenError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES || !text.starts_with(PREFIX) {
            return Err(WorkloadTokenError::Invalid);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identity it claims, unproven: a proxy may log what it asks for.
    #[must_use]
    pub fn claimed(&self) -> Option<WorkloadClaim> {
        let (body, _) = self.0.strip_prefix(PREFIX)?.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
    }
}

fn message(body: &str) -> Vec<u8> {
    [LABEL, body.as_bytes()].concat()
}

impl fmt::Debug for WorkloadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever reads the text may use it.
        let digest = sha2::Digest::finalize(sha2::Digest::chain_update(
            <sha2::Sha256 as sha2::Digest>::new(),
            self.0.as_bytes(),
        ));
        let name: [u8; 32] = digest.into();
        write!(f, "WorkloadToken(sha256 {})", certificate::hex(&name[..8]))
    }
}

impl fmt::Debug for WorkloadTokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadTokenIssuer").finish_non_exhaustive()
    }
}
