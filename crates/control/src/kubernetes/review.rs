//! Is a service-account token good? Asked of the API server, or of its keys while it is silent, unreachable or answers with a 5xx.
//!
//! Invariants: few questions are under way at once, each ends, and one that was answered is not asked again for seconds; a token that is
//! forged by the keys that are known is not asked about. An API server that answers otherwise, be it that it is busy (429) or that we may not ask, is never
//! passed over by its keys; one that is away denies nobody by itself.

use super::pod_token::{PodClaim, PodTokenError, Said, reviewed};
use super::token_keys::{TokenKeys, Unverified};
use crate::quiet::{Quiet, short};
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
/// For a place among the questions under way.
const QUEUE: Duration = Duration::from_secs(2);
/// A server that is busy says when to ask again; it is asked again within this.
const BUSY: Duration = Duration::from_secs(3);
/// Where it does not say.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After a question without answer the next ones go to the keys at once, for so long.
const AWAY: Duration = Duration::from_secs(2);

type Answer = Result<PodClaim, PodTokenError>;

static NOT_ALLOWED: Quiet = Quiet::new();
static BY_KEYS: Quiet = Quiet::new();

/// Who vouches for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// The API server: this pod is there.
    Reviewed,
    /// Its signature alone: the pod was there when it was made.
    ByKeys,
}

/// Why there is no review.
#[derive(Debug)]
enum Unanswered {
    /// The API server does not answer at all.
    Away(String),
    /// It answers, and not the question; or too many ask.
    Later(String),
    /// It is busy, and says for how long.
    Busy(Duration),
}

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

    /// Which pod shows this token, and who says so. `now`: Unix seconds.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn pod(&self, token: &str, now: u64) -> Result<(PodClaim, Proven), PodTokenError> {
        let said = Said::read(token, &self.audience, now)?;
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.answers.lock().get(&hash).filter(|(at, _)| at.elapsed() < HOLDS).map(|(_, a)| a.clone());
        if let Some(known) = known {
            return known.map(|claim| (claim, Proven::Reviewed));
        }
        if let Some(why) = self.keys.forged(token) {
            return Err(PodTokenError::Denied { who: said.who(), audience: self.audience.clone(), why });
        }
        match self.review(token).await {
            Ok(review) => {
                let answer = reviewed(&review.status.unwrap_or_default(), &said, &self.audience);
                let mut answers = self.answers.lock();
                if answers.len() >= KEPT {
                    answers.retain(|_, (at, _)| at.elapsed() < HOLDS);
                }
                if answers.len() < KEPT {
                    answers.insert(hash, (Instant::now(), answer.clone()));
                }
                answer.map(|claim| (claim, Proven::Reviewed))
            }
            Err(Unanswered::Away(why)) => self.by_keys(token, &said, why).map(|claim| (claim, Proven::ByKeys)),
            Err(Unanswered::Later(why)) => Err(PodTokenError::Unavailable { who: said.who(), why }),
            Err(Unanswered::Busy(wait)) => {
                let why = format!("the API server is busy and wants to be asked again in {} s", wait.as_secs());
                Err(PodTokenError::Unavailable { who: said.who(), why })
            }
        }
    }

    /// Asks, and asks again when a server that was busy says so.
    async fn review(&self, token: &str) -> Result<TokenReview, Unanswered> {
        let patience = Instant::now() + BUSY;
        loop {
            match self.ask(token).await {
                Err(Unanswered::Busy(wait)) if Instant::now() + wait < patience => tokio::time::sleep(wait).await,
                answer => return answer,
            }
        }
    }

    async fn ask(&self, token: &str) -> Result<TokenReview, Unanswered> {
        if self.away_until.lock().is_some_and(|until| Instant::now() < until) {
            return Err(Unanswered::Away("it did not answer a moment ago".into()));
        }
        let room = tokio::time::timeout(QUEUE, self.room.acquire()).await;
        let Ok(Ok(_room)) = room else {
            return Err(Unanswered::Later("too many tokens are being checked".into()));
        };
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![self.audience.clone()]) };
        let question = TokenReview { spec, ..TokenReview::default() };
        let params = PostParams::default();
        let asked = tokio::time::timeout(LIMIT, self.api.create(&params, &question)).await;
        let answer = match asked {
            Ok(answer) => answer.map_err(unanswered),
            Err(_) => Err(Unanswered::Away(format!("no answer in {} s", LIMIT.as_secs()))),
        };
        *self.away_until.lock() = matches!(answer, Err(Unanswered::Away(_))).then(|| Instant::now() + AWAY);
        answer
    }

    fn by_keys(&self, token: &str, said: &Said, why: String) -> Answer {
        let (who, audience) = (said.who(), self.audience.clone());
        let claim =
            said.claim().ok_or_else(|| PodTokenError::Unbound { who: who.clone(), audience: audience.clone() })?;
        if !said.is_short_lived() {
            let why =
                "the API server does not answer, and without it no token that lives longer than 2 h is taken".into();
            return Err(PodTokenError::Unavailable { who, why });
        }
        match self.keys.verify(token, &self.audience) {
            Ok(()) => {
                if let Some(more) = BY_KEYS.passes() {
                    tracing::info!(pod = %claim, "the API server is away ({why}); its token is good by the API server's keys{more}");
                }
                Ok(claim)
            }
            Err(Unverified::Bad(why)) => Err(PodTokenError::Denied { who, audience, why }),
            Err(e) => {
                Err(PodTokenError::Unavailable { who, why: format!("the API server does not answer ({why}), and {e}") })
            }
        }
    }
}

fn unanswered(error: kube::Error) -> Unanswered {
    match error {
        kube::Error::Api(status) if status.code == 429 => {
            let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
            Unanswered::Busy(if seconds == 0 { ASK_AGAIN } else { Duration::from_secs(seconds.into()) })
        }
        kube::Error::Api(status) if status.code >= 500 => Unanswered::Away(short(&status.to_string())),
        kube::Error::Api(status) => {
            if let (401 | 403, Some(more)) = (status.code, NOT_ALLOWED.passes()) {
                tracing::error!(
                    "this control plane may not review tokens: {status}; let its ClusterRole create tokenreviews, as `fairlead install` \
                     writes it{more}"
                );
            }
            Unanswered::Later(format!("the API server refuses to review it: {}", short(&status.to_string())))
        }
        error @ (kube::Error::Service(_) | kube::Error::HyperError(_)) => Unanswered::Away(error.to_string()),
        error => Unanswered::Later(error.to_string()),
    }
}

/// The audience of a cluster's pods.
pub fn audience(cluster: &str) -> String {
    format!("fairlead.dev/{cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake_api::FakeApi;
    use crate::kubernetes::fake_signer::Signer;
    use crate::kubernetes::pod_token::tests::{AUDIENCE, authenticated, claims, unsigned};
    use crate::store::Store;
    use serde_json::json;

    fn reviewer(api: &FakeApi, store: &Arc<Store>) -> (Reviewer, Arc<TokenKeys>) {
        let keys = Arc::new(TokenKeys::load(api.client(), store.clone()).unwrap());
        (Reviewer::new(api.client(), "east", keys.clone()), keys)
    }

    #[tokio::test]
    async fn the_api_server_is_asked_once_for_each_token() {
        let (api, store) = (FakeApi::new(), Arc::new(Store::in_memory().unwrap()));
        let (reviewer, _) = reviewer(&api, &store);
        let good = unsigned(&claims("shop", Some("a-1"), AUDIENCE));
        api.set_review(&good, authenticated("shop", Some("a-1"), &[AUDIENCE]));
        for _ in 0..3 {
            let (claim, proven) = reviewer.pod(&good, 1000).await.unwrap();
            assert_eq!((claim.to_string().as_str(), proven), ("shop/a-1", Proven::Reviewed));
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
        signer.serve(&api);
        {
            let (_, keys) = reviewer(&api, &store);
            keys.fetch().await.unwrap();
        }
        api.set_away(true);
        // After a restart too: the keys are in the store.
        let (reviewer, keys) = reviewer(&api, &store);
        let now = 1000;
        let good = claims("shop", Some("a-1"), AUDIENCE);
        let (claim, proven) = reviewer.pod(&signer.sign("one", &good), now).await.unwrap();
        assert_eq!((claim.uid.as_str(), proven), ("2", Proven::ByKeys));
        let mut lasting = good.clone();
        lasting["iat"] = json!(1);
        let refused = reviewer.pod(&signer.sign("one", &lasting), now).await.unwrap_err().to_string();
        assert!(refused.contains("longer than 2 h"), "{refused}");
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

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_is_not_passed_over_by_its_keys() {
        let (api, store) = (FakeApi::new(), Arc::new(Store::in_memory().unwrap()));
        let signer = Signer::new();
        signer.serve(&api);
        let (reviewer, keys) = reviewer(&api, &store);
        keys.fetch().await.unwrap();
        let token = |pod: &str| signer.sign("one", &claims("shop", Some(pod), AUDIENCE));
        // Of a pod that is gone: its keys would still believe it.
        for code in [401, 403, 404, 429] {
            api.refuse("tokenreviews", code, usize::MAX);
            let answer = reviewer.pod(&token(&format!("gone-{code}")), 1000).await;
            assert!(matches!(answer, Err(PodTokenError::Unavailable { .. })), "{code}: {answer:?}");
        }
        // Busy for a moment: asked again.
        api.refuse("tokenreviews", 429, 2);
        let good = token("a-1");
        api.set_review(&good, authenticated("shop", Some("a-1"), &[AUDIENCE]));
        assert_eq!(reviewer.pod(&good, 1000).await.unwrap().1, Proven::Reviewed);
        // Broken or silent: then its keys decide.
        for code in [500, 503] {
            api.refuse("tokenreviews", code, 1);
            assert_eq!(reviewer.pod(&token(&format!("b-{code}")), 1000).await.unwrap().1, Proven::ByKeys);
            tokio::time::advance(AWAY).await;
        }
        api.set_open(false);
        assert_eq!(reviewer.pod(&token("c-1"), 1000).await.unwrap().1, Proven::ByKeys);
        tokio::time::advance(AWAY).await;
        // Many that ask at once are told to wait, and who goes away in the middle makes nobody believe that the server is away.
        let asked = api.requests("tokenreviews");
        let one = token("d-1");
        tokio::select! {
            biased;
            answer = reviewer.pod(&one, 1000) => panic!("{answer:?}"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        assert_eq!(api.requests("tokenreviews"), asked + 1);
        let away = reviewer.away_until.lock().is_some_and(|until| Instant::now() < until);
        assert!(!away, "a question that was dropped says nothing of the server");
        let _all = reviewer.room.acquire_many(AT_ONCE as u32).await.unwrap();
        let waiting = reviewer.pod(&token("d-2"), 1000).await;
        assert!(matches!(waiting, Err(PodTokenError::Unavailable { .. })), "{waiting:?}");
    }

    #[tokio::test]
    async fn a_forged_token_costs_the_api_server_nothing() {
        let (api, store) = (FakeApi::new(), Arc::new(Store::in_memory().unwrap()));
        let signer = Signer::new();
        signer.serve(&api);
        let (reviewer, keys) = reviewer(&api, &store);
        keys.fetch().await.unwrap();
        let forged = Signer::new().sign("one", &claims("shop", Some("a-1"), AUDIENCE));
        assert!(matches!(reviewer.pod(&forged, 1000).await, Err(PodTokenError::Denied { .. })));
        assert_eq!(api.requests("tokenreviews"), 0);
        // By a key that is not known yet, the API server knows.
        let rotated = Signer::new().sign("two", &claims("shop", Some("a-1"), AUDIENCE));
        api.set_review(&rotated, authenticated("shop", Some("a-1"), &[AUDIENCE]));
        assert!(reviewer.pod(&rotated, 1000).await.is_ok());
    }
}
