//! The keys that the API server signs service-account tokens with, kept for the time that it is away.
//!
//! Fetched while it answers, from its discovery document and key set, and kept in the store over restarts. Invariant: only the keys of the
//! last answer are believed, and only with asymmetric algorithms; a token is checked for signature, issuer, audience and end.

use crate::store::{Bucket, Store};
use anyhow::Context as _;
use axum::http::Request;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
/// Between two fetches, after one that worked and one that did not.
const FRESH: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(10);
/// One request.
const LIMIT: Duration = Duration::from_secs(5);
/// Clocks of nodes may differ by so much.
const LEEWAY: u64 = 30;

/// Who signs, and with which keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signers {
    issuer: String,
    keys: JwkSet,
}

pub struct TokenKeys {
    client: kube::Client,
    store: Arc<Store>,
    signers: Mutex<Option<Signers>>,
}

impl TokenKeys {
    /// With what was known before a restart.
    pub fn load(client: kube::Client, store: Arc<Store>) -> anyhow::Result<Self> {
        let signers = store.load(Bucket::TokenKeys, "signers")?;
        Ok(Self { client, store, signers: Mutex::new(signers) })
    }

    /// Keeps them fresh, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut told = false;
        loop {
            let begun = Instant::now();
            let pause = match tokio::time::timeout(LIMIT, self.fetch()).await {
                Ok(Ok(())) => {
                    told = false;
                    FRESH
                }
                Ok(Err(e)) if !told => {
                    tracing::warn!(
                        "the keys of service-account tokens cannot be fetched: {e:#}; while the API server is away no pod gets its \
                         first certificate by keys that are not known (ClusterRole system:service-account-issuer-discovery)"
                    );
                    told = true;
                    RETRY
                }
                _ => RETRY,
            };
            tokio::time::sleep_until(begun + pause).await;
        }
    }

    pub(crate) async fn fetch(&self) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
        }
        let get = |path: &str| Request::get(path).body(Vec::new());
        let discovery: Discovery = self.client.request(get(DISCOVERY)?).await.context(DISCOVERY)?;
        let keys: JwkSet = self.client.request(get(KEYS)?).await.context(KEYS)?;
        let fetched = Signers { issuer: discovery.issuer, keys };
        if self.signers.lock().as_ref() != Some(&fetched) {
            self.store.save(Bucket::TokenKeys, "signers", &fetched)?;
            *self.signers.lock() = Some(fetched);
        }
        Ok(())
    }

    /// Why a token cannot be one of the API server's: it names a key that is known, and is not signed by it.
    pub fn forged(&self, token: &str) -> Option<String> {
        match self.check(token, None) {
            Err(Unverified::Forged) => Some(Unverified::Forged.to_string()),
            _ => None,
        }
    }

    /// Whether the token is one that the API server made for `audience`.
    ///
    /// # Errors
    /// Why it cannot be believed, or not be checked.
    pub fn verify(&self, token: &str, audience: &str) -> Result<(), Unverified> {
        self.check(token, Some(audience)).map_err(|e| match e {
            Unverified::Forged => Unverified::Bad(e.to_string()),
            other => other,
        })
    }

    /// Without an audience the signature alone.
    fn check(&self, token: &str, audience: Option<&str>) -> Result<(), Unverified> {
        let signers = self.signers.lock().clone().ok_or(Unverified::NoKeys)?;
        let header = jsonwebtoken::decode_header(token).map_err(|e| Unverified::Bad(e.to_string()))?;
        let kid = header.kid.as_deref().unwrap_or_default();
        let key = signers.keys.find(kid).ok_or_else(|| Unverified::UnknownKey(kid.to_owned()))?;
        let family = match key.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
            AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
            _ => return Err(Unverified::UnknownKey(kid.to_owned())),
        };
        let of_family = match header.alg {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => family == AlgorithmFamily::Rsa,
            Algorithm::ES256 | Algorithm::ES384 => family == AlgorithmFamily::Ec,
            _ => false,
        };
        if !of_family {
            return Err(Unverified::Bad(format!("the algorithm {:?} is not that of its key", header.alg)));
        }
        let mut wanted = Validation::new(header.alg);
        match audience {
            Some(audience) => {
                wanted.set_audience(&[audience]);
                wanted.set_issuer(&[&signers.issuer]);
                wanted.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
                wanted.validate_nbf = true;
                wanted.leeway = LEEWAY;
            }
            None => {
                wanted.required_spec_claims.clear();
                (wanted.validate_exp, wanted.validate_aud) = (false, false);
            }
        }
        let key = DecodingKey::from_jwk(key).map_err(|e| Unverified::Bad(e.to_string()))?;
        match jsonwebtoken::decode::<serde_json::Value>(token, &key, &wanted) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::InvalidSignature) => Err(Unverified::Forged),
            Err(e) => Err(Unverified::Bad(e.to_string())),
        }
    }
}

/// Why the kept keys do not prove a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error("no keys of the API server are known yet")]
    NoKeys,
    #[error("its key `{0}` is not among the known keys of the API server")]
    UnknownKey(String),
    #[error("it is not signed by the key of the API server that it names")]
    Forged,
    #[error("{0}")]
    Bad(String),
}
