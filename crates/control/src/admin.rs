//! The admin API: what operators and the CLI ask of a control plane, over a Unix socket of this user.
//!
//! Answers are rows of `model::listing`; a change is one POST. Invariant: whoever can open the socket may do everything, so the socket
//! is made readable by its owner only.

use crate::authority::{Authority, now};
use crate::caller::workload_ref;
use crate::event::Event;
use crate::joining;
use crate::listing;
use crate::world::World;
use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use fairlead_identity::{JoinToken, Rehearsal, SpiffeId, SystemRandom};
use fairlead_model::listing::WorkloadCredential;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// A workload's first credential is used at once.
const CREDENTIAL_LIFE: Duration = Duration::from_secs(600);

/// What changes membership is written to the API server within this, where there is one.
const SAFE: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Admin {
    pub authority: Arc<Authority>,
    pub events: mpsc::UnboundedSender<Event>,
}

/// Opens the socket.
pub fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the process ends.
pub async fn serve(admin: Admin, listener: UnixListener) -> anyhow::Result<()> {
    axum::serve(listener, routes(admin)).await?;
    Ok(())
}

fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/ready", get(|s| list(s, listing::ready)))
        .route("/clusters", get(|s| list(s, listing::clusters)))
        .route("/peers", get(|s| list(s, listing::peers)))
        .route("/services", get(|s| list(s, listing::services)))
        .route("/endpoints", get(|s| list(s, listing::endpoints)))
        .route("/routes", get(|s| list(s, listing::routes)))
        .route("/proxies", get(|s| list(s, listing::proxies)))
        .route("/diagnostics", get(|s| list(s, listing::diagnostics)))
        .route("/counters", get(|s| list(s, listing::counters)))
        .route("/names", get(|s| list(s, listing::names)))
        .route("/trust", get(trust))
        .route("/token", post(token))
        .route("/workload-token", post(workload_token))
        .route("/join", post(join))
        .route("/rehearse", post(rehearse))
        .route("/detach", post(detach))
        .route("/drain", post(drain))
        .with_state(admin)
}

async fn list(State(admin): State<Admin>, rows: fn(&World) -> Value) -> Response {
    let (reply, answer) = oneshot::channel();
    let question = Box::new(move |world: &World| drop(reply.send(rows(world))));
    if admin.events.send(Event::Ask(question)).is_err() {
        return Refused(anyhow::anyhow!("the control plane is stopping")).into_response();
    }
    match answer.await {
        Ok(rows) => Json(rows).into_response(),
        Err(_) => Refused(anyhow::anyhow!("the control plane is stopping")).into_response(),
    }
}

async fn trust(State(admin): State<Admin>) -> Result<Response, Refused> {
    Ok(([("content-type", "application/json")], admin.authority.trust().to_json()?).into_response())
}

#[derive(Deserialize)]
struct TokenRequest {
    #[serde(default)]
    addresses: Vec<String>,
    seconds: Option<u64>,
}

async fn token(State(admin): State<Admin>, Json(request): Json<TokenRequest>) -> Result<Json<Value>, Refused> {
    let advertised = || admin.authority.me().control_addresses;
    let addresses = if request.addresses.is_empty() { advertised() } else { request.addresses };
    let life = request.seconds.map_or(joining::TOKEN_LIFE, Duration::from_secs);
    let token = joining::create_token(&admin.authority, addresses, life)?;
    Ok(Json(json!({"token": token.to_string(), "expires": token.expires})))
}

#[derive(Deserialize)]
struct WorkloadTokenRequest {
    /// `cluster/namespace/name`
    workload: String,
}

/// The identity is the workload's by its objects; only who runs workloads of this cluster can ask here.
async fn workload_token(
    State(admin): State<Admin>,
    Json(request): Json<WorkloadTokenRequest>,
) -> Result<Json<WorkloadCredential>, Refused> {
    let workload = workload_ref(&request.workload).context("a workload is named cluster/namespace/name")?;
    let (reply, answer) = oneshot::channel();
    let wanted = workload.clone();
    let question = move |world: &World| drop(reply.send(listing::identity(world, &wanted)));
    admin.events.send(Event::Ask(Box::new(question))).map_err(|_| anyhow::anyhow!("the control plane is stopping"))?;
    let identity = answer.await?.with_context(|| format!("{workload} is no workload of this cluster with a proxy"))?;
    let identity = SpiffeId::parse(&identity)?;
    let token =
        admin.authority.tokens().issue(&identity, &workload.to_string(), CREDENTIAL_LIFE, now(), &mut SystemRandom)?;
    Ok(Json(WorkloadCredential { token: token.as_str().to_owned(), trust: admin.authority.trust().to_json()? }))
}

#[derive(Deserialize)]
struct JoinRequest {
    token: String,
}

async fn join(State(admin): State<Admin>, Json(request): Json<JoinRequest>) -> Result<Json<Value>, Refused> {
    let token: JoinToken = request.token.trim().parse()?;
    let cluster = joining::dial(&admin.authority, &token).await?;
    let _ = admin.events.send(Event::Membership);
    safe(&admin, &format!("joined {cluster}")).await?;
    Ok(Json(json!({"joined": cluster, "namespaces": "all"})))
}

#[derive(Deserialize)]
struct RehearsalRequest {
    token: String,
    address: String,
}

/// Would a join by this token, at this one of its addresses, succeed?
async fn rehearse(
    State(admin): State<Admin>,
    Json(request): Json<RehearsalRequest>,
) -> Result<Json<Rehearsal>, Refused> {
    let token: JoinToken = request.token.trim().parse()?;
    Ok(Json(joining::rehearse(&admin.authority, &token, &request.address).await?))
}

#[derive(Deserialize)]
struct DetachRequest {
    cluster: String,
    #[serde(default)]
    here: bool,
}

async fn detach(State(admin): State<Admin>, Json(request): Json<DetachRequest>) -> Result<Json<Value>, Refused> {
    if request.here {
        admin.authority.detach_here(&request.cluster)?;
    } else {
        admin.authority.detach(&request.cluster)?;
    }
    let _ = admin.events.send(Event::Membership);
    safe(&admin, &format!("detached {}", request.cluster)).await?;
    Ok(Json(json!({"detached": request.cluster, "here": request.here})))
}

/// What was done holds; an operator must know if it would not outlive this pod.
async fn safe(admin: &Admin, done: &str) -> anyhow::Result<()> {
    let is_safe = admin.authority.store().is_safe(SAFE).await;
    anyhow::ensure!(
        is_safe,
        "{done}, but the API server has not taken it yet: until it does, this control plane's pod must not be lost; it is tried on and on"
    );
    Ok(())
}

#[derive(Deserialize)]
struct DrainRequest {
    on: bool,
}

async fn drain(State(admin): State<Admin>, Json(request): Json<DrainRequest>) -> Result<Json<Value>, Refused> {
    let _ = admin.events.send(Event::Drain(request.on));
    Ok(Json(json!({"draining": request.on})))
}

/// What the admin API could not do, with the reason as text.
struct Refused(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({"error": format!("{:#}", self.0)}))).into_response()
    }
}
