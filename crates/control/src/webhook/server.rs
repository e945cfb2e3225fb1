//! HTTP under the webhooks: two paths, bounded bodies, bounded memory, bounded time.
//!
//! Invariant: what is no review is a 400 with the reason, never an answer that lets something pass.

use super::admission::{Answer, Request as Question, Review};
use super::budget::Budget;
use super::injection::Injector;
use super::listener::{self, Talk};
use super::profile::CurrentProfile;
use super::validation::Validator;
use crate::places::Bounds;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::rustls::ServerConfig;

/// An object is 1.5 MiB in etcd at most. A review holds one and the one before, and JSON of what is stored in a shorter form.
pub const BODY: usize = 4 * 1024 * 1024;
/// Reviews that are decided at once: as values in memory they are many times as large.
const DECIDING: usize = 4;

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections. An API server keeps a few; several of them, behind one address too, and a storm of pods stay below.
    pub places: Bounds,
    /// Bytes of all requests that are held at once, and of one source.
    pub bytes: (usize, usize),
    /// For the handshake.
    pub handshake: Duration,
    /// For a request's head, from its first byte.
    pub head: Duration,
    /// For a request's body; API servers send it at once, and wait no longer for an answer.
    pub body: Duration,
    /// From a request's first byte to its answer.
    pub request: Duration,
    /// Between two requests. API servers close what was idle for 90 s themselves.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            places: Bounds { all: 512, each: 256, young: Duration::from_secs(1) },
            bytes: (32 * 1024 * 1024, 16 * 1024 * 1024),
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            request: Duration::from_secs(15),
            idle: Duration::from_secs(100),
        }
    }
}

/// Who answers.
pub struct Webhooks {
    pub injector: Injector,
    pub validator: Validator,
    pub profile: CurrentProfile,
}

/// What a request is read and decided with.
#[derive(Clone)]
struct Served {
    webhooks: Arc<Webhooks>,
    budget: Arc<Budget>,
    deciding: Arc<Semaphore>,
    limits: Limits,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, config: Arc<ServerConfig>, webhooks: Arc<Webhooks>, limits: Limits) {
    let (budget, deciding) = (Budget::new(limits.bytes.0, limits.bytes.1), Arc::new(Semaphore::new(DECIDING)));
    let served = Served { webhooks, budget, deciding, limits };
    let inject = async |State(served): State<Served>, Extension(talk): Extension<Talk>, body: Body| {
        let webhooks = served.webhooks.clone();
        served.answer(&talk, body, move |question| webhooks.injector.answer(question)).await
    };
    let validate = async |State(served): State<Served>, Extension(talk): Extension<Talk>, body: Body| {
        let webhooks = served.webhooks.clone();
        let profile = webhooks.profile.get().await;
        served.answer(&talk, body, move |question| webhooks.validator.answer(question, profile)).await
    };
    let routes = Router::new().route("/inject", post(inject)).route("/validate", post(validate)).with_state(served);
    listener::serve(listener, config, routes, limits).await;
}

impl Served {
    /// Deciding is pure and takes well under a millisecond for any object that people write; the largest are checked beside.
    async fn answer(
        &self,
        talk: &Talk,
        body: Body,
        decide: impl FnOnce(&Question) -> Answer + Send + 'static,
    ) -> Response {
        let mut share = self.budget.share(talk.source);
        let reading = async {
            let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, format!("a review of more than {BODY} bytes"));
            if body.size_hint().lower() > BODY as u64 {
                return Err(too_large());
            }
            let (mut parts, mut bytes) = (body.into_data_stream(), Vec::new());
            while let Some(part) = parts.next().await {
                let part = part.map_err(|error| (StatusCode::BAD_REQUEST, format!("the review: {error}")))?;
                if bytes.len() + part.len() > BODY {
                    return Err(too_large());
                }
                if !share.more(part.len()) {
                    return Err((
                        StatusCode::TOO_MANY_REQUESTS,
                        "too many large reviews at once; ask again".to_owned(),
                    ));
                }
                bytes.extend_from_slice(&part);
            }
            Ok(bytes)
        };
        let bytes = match tokio::time::timeout(self.limits.body, reading).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(refused)) => return refused.into_response(),
            Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time").into_response(),
        };
        talk.request_came();
        let Ok(turn) = self.deciding.clone().acquire_owned().await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let decided = tokio::task::spawn_blocking(move || {
            let _held_meanwhile = (turn, share);
            let question = Review::read(&bytes)?;
            Ok::<_, String>(decide(&question).to_review(&question.uid))
        });
        match decided.await {
            Ok(Ok(review)) => axum::Json(review).into_response(),
            Ok(Err(why)) => (StatusCode::BAD_REQUEST, why).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the review could not be answered").into_response(),
        }
    }
}
