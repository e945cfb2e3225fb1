//! What kubelets and scrapers ask of a control plane over plain HTTP: is it ready, and how is it.
//!
//! Never changes anything and tells no secrets: anybody in the cluster can ask. Invariant: ready means that objects were read and a
//! generation of them is published, however the API server and the peers are now; not being ready comes with the reason.

use crate::event::Event;
use crate::listing;
use crate::metrics;
use crate::world::World;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// How far the start has come, for those who ask before the owner runs. Clones are the same.
#[derive(Clone, Default)]
pub struct Status(Arc<Mutex<Stage>>);

#[derive(Clone)]
enum Stage {
    /// Why the owner does not run yet.
    Waiting(String),
    Owned(mpsc::UnboundedSender<Event>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Waiting("the control plane is starting".into())
    }
}

impl Status {
    /// What the start waits for.
    pub fn waiting(&self, why: impl Into<String>) {
        *self.0.lock() = Stage::Waiting(why.into());
    }

    /// The owner runs: it answers from now on.
    pub fn owned(&self, events: mpsc::UnboundedSender<Event>) {
        *self.0.lock() = Stage::Owned(events);
    }

    async fn ask<T: Send + 'static>(&self, question: fn(&World) -> T) -> Result<T, String> {
        let events = match self.0.lock().clone() {
            Stage::Waiting(why) => return Err(why),
            Stage::Owned(events) => events,
        };
        let (reply, answer) = oneshot::channel();
        let stopping = || "the control plane is stopping".to_owned();
        let question = Box::new(move |world: &World| drop(reply.send(question(world))));
        events.send(Event::Ask(question)).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}

/// Serves until the process ends.
pub async fn serve(status: Status, listener: TcpListener) {
    let routes = Router::new().route("/ready", get(ready)).route("/metrics", get(scrape)).with_state(status);
    if let Err(e) = axum::serve(listener, routes).await {
        tracing::error!("the status listener has ended: {e}");
    }
}

async fn ready(State(status): State<Status>) -> (StatusCode, String) {
    match status.ask(listing::why_not_ready).await {
        Ok(None) => (StatusCode::OK, "ready\n".into()),
        Ok(Some(why)) | Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn scrape(State(status): State<Status>) -> (StatusCode, String) {
    match status.ask(metrics::render).await {
        Ok(text) => (StatusCode::OK, text),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("# {why}\n")),
    }
}
