//! HTTP under the webhooks: two paths, bounded bodies, bounded time.
//!
//! Invariant: what is no review is a 400 with the reason, never an answer that lets something pass.

use super::admission::{Answer, Request as Question, Review};
use super::injection::Injector;
use super::listener::Connections;
use super::profile::CurrentProfile;
use super::validation::Validator;
use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

/// A review holds an object and the one before; an API server takes no request of more than 3 MiB.
const BODY: usize = 8 * 1024 * 1024;
/// For a body to arrive; API servers send it at once, and wait no longer for an answer.
const ARRIVE: Duration = Duration::from_secs(10);

/// Who answers.
pub struct Webhooks {
    pub injector: Injector,
    pub validator: Validator,
    pub profile: CurrentProfile,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, config: Arc<ServerConfig>, webhooks: Arc<Webhooks>) {
    let connections = match Connections::accept(listener, config) {
        Ok(connections) => connections,
        Err(error) => return tracing::error!("the webhooks are not served: {error}"),
    };
    let routes = Router::new()
        .route(
            "/inject",
            post(|State(webhooks): State<Arc<Webhooks>>, body: Body| async move {
                answer(body, move |question| webhooks.injector.answer(question)).await
            }),
        )
        .route(
            "/validate",
            post(|State(webhooks): State<Arc<Webhooks>>, body: Body| async move {
                let profile = webhooks.profile.get().await;
                answer(body, move |question| webhooks.validator.answer(question, profile)).await
            }),
        )
        .with_state(webhooks);
    if let Err(error) = axum::serve(connections, routes).await {
        tracing::error!("the webhooks have ended: {error}");
    }
}

/// Deciding is pure and takes well under a millisecond for any object that people write; the largest are checked beside.
async fn answer(body: Body, decide: impl FnOnce(&Question) -> Answer + Send + 'static) -> Response {
    if body.size_hint().lower() > BODY as u64 {
        return (StatusCode::PAYLOAD_TOO_LARGE, format!("a review of more than {BODY} bytes")).into_response();
    }
    let bytes = match tokio::time::timeout(ARRIVE, to_bytes(body, BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return (StatusCode::PAYLOAD_TOO_LARGE, format!("the review: {error}")).into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time").into_response(),
    };
    let decided = tokio::task::spawn_blocking(move || {
        let question = Review::read(&bytes)?;
        Ok::<_, String>(decide(&question).to_review(&question.uid))
    });
    match decided.await {
        Ok(Ok(review)) => axum::Json(review).into_response(),
        Ok(Err(why)) => (StatusCode::BAD_REQUEST, why).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the review could not be answered").into_response(),
    }
}
