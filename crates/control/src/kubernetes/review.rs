//! Is a service-account token good? Asked of the API server, or of its keys while it is away.
//!
//! Invariants: few questions are under way at once, each ends, and one that was answered is not asked again for seconds, so that strangers
//! with tokens cost the API server little; an API server that is away denies nobody by itself.

use super::pod_token::{PodClaim, PodTokenError, Said, reviewed};
use super::token_keys::{TokenKeys, Unverified};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long an answer holds: a proxy that asks again at once, since its answer was lost, costs nothing.
const HOLDS: Duration = Duration::from_secs(10);
/// Answers that are kept.
const KEPT: usize = 4096;
/// Questions under way.
const AT_ONCE: usize = 16;
/// One question.
const LIMIT: Duration = Duration::from_secs(3);
/// After a question without answer the next ones go to the keys at once, for so long.
const AWAY: Duration = Duration::from_secs(2);

type Answer = Result<PodClaim, PodTokenError>;

pub struct Reviewer {
    api: Api<TokenReview>,
    audience: String,
    keys: Arc<TokenKeys>,
    room: Semaphore,
    answers: Mutex<HashMap<[u8; 32], (Instant, Answer)>>,
    away_until: Mutex<Option<Instant>>,
}

impl Reviewer {
    pub fn new(client: kube::Client, cluster: &str, keys: Arc<TokenKeys>) -> Self {
        Self {
            api: Api::all(client),
            audience: audience(cluster),
            keys,
            room: Semaphore::new(AT_ONCE),
            answers: Mutex::default(),
            away_until: Mutex::default(),
        }
    }

    /// Which pod shows this token. `now`: Unix seconds.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn pod(&self, token: &str, now: u64) -> Answer {
        let said = Said::read(token, &self.audience, now)?;
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.answers.lock().get(&hash).filter(|(at, _)| at.elapsed() < HOLDS).map(|(_, a)| a.clone());
        if let Some(known) = known {
            return known;
        }
        match tokio::time::timeout(LIMIT, self.ask(token)).await.unwrap_or_else(|_| Err("no answer in 3 s".into())) {
            Ok(review) => {
                let answer = reviewed(&review.status.unwrap_or_default(), &said, &self.audience);
                let mut answers = self.answers.lock();
                if answers.len() >= KEPT {
                    answers.retain(|_, (at, _)| at.elapsed() < HOLDS);
                }
                if answers.len() < KEPT {
                    answers.insert(hash, (Instant::now(), answer.clone()));
                }
                answer
            }
            Err(why) => self.by_keys(token, &said, why),
        }
    }

    async fn ask(&self, token: &str) -> Result<TokenReview, String> {
        if self.away_until.lock().is_some_and(|until| Instant::now() < until) {
            return Err("it did not answer a moment ago".into());
        }
        let _room = self.room.acquire().await.map_err(|e| e.to_string())?;
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![self.audience.clone()]) };
        let question = TokenReview { spec, ..TokenReview::default() };
        // Dropped on the way, it counts as unanswered too.
        let silent = Silent(&self.away_until, true);
        let answer = self.api.create(&PostParams::default(), &question).await;
        silent.answered(answer.is_ok());
        answer.map_err(|e| {
            if matches!(&e, kube::Error::Api(status) if status.code == 403) {
                tracing::error!("this control plane may not review tokens: {e}; let its ClusterRole create tokenreviews, as `fairlead install` writes it");
            }
            e.to_string()
        })
    }

    fn by_keys(&self, token: &str, said: &Said, why: String) -> Answer {
        let (who, audience) = (said.who(), self.audience.clone());
        let claim =
            said.claim().ok_or_else(|| PodTokenError::Unbound { who: who.clone(), audience: audience.clone() })?;
        match self.keys.verify(token, &self.audience) {
            Ok(()) => {
                tracing::info!(pod = %claim, "the API server is away ({why}); its token is good by the API server's keys");
                Ok(claim)
            }
            Err(Unverified::Bad(why)) => Err(PodTokenError::Denied { who, audience, why }),
            Err(e) => {
                Err(PodTokenError::Unavailable { who, why: format!("the API server does not answer ({why}), and {e}") })
            }
        }
    }
}

/// The audience of a cluster's pods.
pub fn audience(cluster: &str) -> String {
    format!("fairlead.dev/{cluster}")
}

/// Notes that a question was not answered, unless it was.
struct Silent<'a>(&'a Mutex<Option<Instant>>, bool);

impl Silent<'_> {
    fn answered(mut self, answered: bool) {
        self.1 = !answered;
        if answered {
            *self.0.lock() = None;
        }
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        if self.1 {
            *self.0.lock() = Some(Instant::now() + AWAY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake_api::FakeApi;
    use crate::kubernetes::pod_token::tests::{AUDIENCE, authenticated, claims, unsigned};
    use crate::store::Store;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn jwks(&self) -> Value {
            let point = self.0.public_key().as_ref();
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "alg": "ES256",
                "x": part(&point[1..33]), "y": part(&point[33..])}]})
        }

        fn sign(&self, kid: &str, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let message = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT", "kid": kid})), part(claims));
            let signature = self.0.sign(&aws_lc_rs::rand::SystemRandom::new(), message.as_bytes()).unwrap();
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        }
    }

    fn reviewer(api: &FakeApi, store: &Arc<Store>) -> (Reviewer, Arc<TokenKeys>) {
        let keys = Arc::new(TokenKeys::load(api.client(), store.clone()).unwrap());
        (Reviewer::new(api.client(), "east", keys.clone()), keys)
    }

    fn serve_keys(api: &FakeApi, signer: &Signer) {
        api.set_document("/openid/v1/jwks", signer.jwks());
        api.set_document("/.well-known/openid-configuration", json!({"issuer": "https://kubernetes.default.svc"}));
    }

    #[tokio::test]
    async fn the_api_server_is_asked_once_for_each_token() {
        let (api, store) = (FakeApi::new(), Arc::new(Store::in_memory().unwrap()));
        let (reviewer, _) = reviewer(&api, &store);
        let good = unsigned(&claims("shop", Some("a-1"), AUDIENCE));
        api.set_review(&good, authenticated("shop", Some("a-1"), &[AUDIENCE]));
        for _ in 0..3 {
            assert_eq!(reviewer.pod(&good, 1000).await.unwrap().to_string(), "shop/a-1");
        }
        assert_eq!(api.requests("tokenreviews"), 1);
        let stranger = unsigned(&claims("shop", Some("b-1"), AUDIENCE));
        for _ in 0..3 {
            assert!(matches!(reviewer.pod(&stranger, 1000).await, Err(PodTokenError::Denied { .. })));
        }
        assert_eq!(api.requests("tokenreviews"), 2, "a refusal is kept too");
        // What could never be right is not asked at all.
        let foreign = unsigned(&claims("shop", Some("a-1"), "fairlead.dev/west"));
        assert!(matches!(reviewer.pod(&foreign, 1000).await, Err(PodTokenError::Audience { .. })));
        let unbound = unsigned(&claims("shop", None, AUDIENCE));
        assert!(matches!(reviewer.pod(&unbound, 1000).await, Err(PodTokenError::Unbound { .. })));
        assert_eq!(api.requests("tokenreviews"), 2);
    }

    #[tokio::test]
    async fn while_the_api_server_is_away_its_keys_decide() {
        let (api, store) = (FakeApi::new(), Arc::new(Store::in_memory().unwrap()));
        let signer = Signer::new();
        serve_keys(&api, &signer);
        {
            let (_, keys) = reviewer(&api, &store);
            keys.fetch().await.unwrap();
        }
        api.set_away(true);
        // After a restart too: the keys are in the store.
        let (reviewer, keys) = reviewer(&api, &store);
        let now = 1000;
        let good = claims("shop", Some("a-1"), AUDIENCE);
        assert_eq!(reviewer.pod(&signer.sign("one", &good), now).await.unwrap().to_string(), "shop/a-1");
        let forged = Signer::new().sign("one", &good);
        assert!(matches!(reviewer.pod(&forged, now).await, Err(PodTokenError::Denied { .. })));
        assert!(matches!(reviewer.pod(&unsigned(&good), now).await, Err(PodTokenError::Unavailable { .. })));
        let mut foreign = good.clone();
        foreign["iss"] = json!("https://elsewhere");
        assert!(matches!(reviewer.pod(&signer.sign("one", &foreign), now).await, Err(PodTokenError::Denied { .. })));
        let mut early = good.clone();
        early["nbf"] = json!(3_900_000_000_u64);
        assert!(matches!(reviewer.pod(&signer.sign("one", &early), now).await, Err(PodTokenError::Denied { .. })));
        let audience = claims("shop", Some("a-1"), "fairlead.dev/west");
        assert!(keys.verify(&signer.sign("one", &audience), AUDIENCE).is_err());
        let mut ended = good.clone();
        ended["exp"] = json!(1_000_000_000_u64);
        assert!(keys.verify(&signer.sign("one", &ended), AUDIENCE).is_err(), "also by the real clock");
    }

    #[tokio::test]
    async fn without_keys_a_token_waits_for_the_api_server() {
        let (api, store) = (FakeApi::new(), Arc::new(Store::in_memory().unwrap()));
        let (reviewer, _) = reviewer(&api, &store);
        let token = unsigned(&claims("shop", Some("a-1"), AUDIENCE));
        api.set_review(&token, authenticated("shop", Some("a-1"), &[AUDIENCE]));
        api.set_away(true);
        let waiting = reviewer.pod(&token, 1000).await.unwrap_err();
        assert!(matches!(&waiting, PodTokenError::Unavailable { .. }), "{waiting}");
        api.set_away(false);
        *reviewer.away_until.lock() = None;
        assert!(reviewer.pod(&token, 1000).await.is_ok(), "and what could not be checked is not kept");
    }
}
