//! Joining two clusters with a token: both sides.
//!
//! The proofs are identity's; here are only the RPC and what follows from success. Invariant: nothing is believed before the proof,
//! and the token is burned before the answer leaves.

use crate::authority::{Authority, now};
use crate::caller::Caller;
use crate::limiter::Limiter;
use anyhow::{Context as _, bail};
use fairlead_identity::{JoinAnswer, JoinRequest, JoinToken, Rehearsal, Roster, Statement, SystemRandom, join, tls};
use fairlead_proto::JsonMessage;
use fairlead_proto::join::{Join, JoinClient};
use fairlead_xds::client::{ChannelOptions, channel, connector};
use rustls::pki_types::ServerName;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{Request, Response, Status};

const REQUEST: &str = "join";
const ANSWER: &str = "joined";
const REHEARSED: &str = "rehearsed";
/// A token without `--for` ends after this.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Attempts to join that are looked at, a second, and at once; each costs us a store look-up and an HMAC.
const ATTEMPTS: (u32, u32) = (5, 20);

/// A newcomer waits no longer than this for the API server.
const SAFE: Duration = Duration::from_secs(2);

pub struct Acceptor {
    authority: Arc<Authority>,
    /// Tells the owner that membership changed.
    changed: Arc<dyn Fn() + Send + Sync>,
    attempts: Limiter,
}

impl Acceptor {
    pub fn new(authority: Arc<Authority>, changed: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { authority, changed, attempts: Limiter::new(ATTEMPTS.0, ATTEMPTS.1) }
    }
}

/// A token with which another cluster can join this one.
pub fn create_token(authority: &Authority, addresses: Vec<String>, life: Duration) -> anyhow::Result<JoinToken> {
    use fairlead_identity::TokenStore as _;
    let root = authority.ca().root_fingerprint().context("this cluster's CA has no root")?;
    let (token, stored) = JoinToken::create(addresses, root, authority.ca().cluster(), life, now(), &mut SystemRandom)?;
    authority.store().put(stored)?;
    Ok(token)
}

/// Joins the mesh of the token's issuer; returns its cluster's name.
pub async fn dial(authority: &Authority, token: &JoinToken) -> anyhow::Result<String> {
    // Joining is a new incarnation: it beats a revocation of the one before.
    authority.reincarnate()?;
    let mut last = anyhow::anyhow!("the token names no address");
    for address in &token.addresses {
        match dial_one(authority, token, address).await {
            Ok(joined) => return Ok(joined),
            Err(e) => last = e.context(format!("joining through {address}")),
        }
    }
    Err(last)
}

/// Whether the token's issuer would let this cluster join; changes nothing on either side.
pub async fn rehearse(authority: &Authority, token: &JoinToken, address: &str) -> anyhow::Result<Rehearsal> {
    let (client, exporter) = connected(token, address).await?;
    let mut me = authority.me();
    // A join is a new incarnation, which beats every revocation.
    me.incarnation = u64::MAX;
    let (request, _) = join::request(token, exporter, &me, &mut SystemRandom)?;
    let answer = client.rehearse(JsonMessage::new(REQUEST, serde_json::to_vec(&request)?)).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    Ok(serde_json::from_slice(&answer.json)?)
}

/// The exporter belongs to this one connection.
async fn connected(token: &JoinToken, address: &str) -> anyhow::Result<(JoinClient, [u8; join::EXPORTER_BYTES])> {
    let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
    let config = tls::joining_config(token.root, &clock, &[b"h2"])?;
    // The exporter belongs to one connection, so the handshake is made here and the channel gets it ready-made, once.
    let stream = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("control.fairlead.invalid")?;
    let stream = TlsConnector::from(config).connect(name, stream).await.context("TLS handshake")?;
    let mut exporter = [0; join::EXPORTER_BYTES];
    stream.get_ref().1.export_keying_material(&mut exporter, join::EXPORTER_LABEL, None)?;
    let ready = Arc::new(tokio::sync::Mutex::new(Some(stream)));
    let connect = connector(move |_| {
        let ready = ready.clone();
        async move { ready.lock().await.take().ok_or_else(|| std::io::Error::other("the joining connection ended")) }
    });
    let client = JoinClient::new(channel(address, connect, ChannelOptions::default()).await?);
    Ok((client, exporter))
}

async fn dial_one(authority: &Authority, token: &JoinToken, address: &str) -> anyhow::Result<String> {
    let (client, exporter) = connected(token, address).await?;
    let (request, pending) = join::request(token, exporter, &authority.me(), &mut SystemRandom)?;
    let answer = client.join(JsonMessage::new(REQUEST, serde_json::to_vec(&request)?)).await;
    let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    if answer.kind != ANSWER {
        bail!("the other side answered `{}`", answer.kind);
    }
    let answer: JoinAnswer = serde_json::from_slice(&answer.json)?;
    let joined = pending.finish(&answer)?;
    let cluster = joined.member.cluster.clone();
    // First the one whose proof we hold, in our own name; then those it vouches for, by its now known bundle.
    authority.introduced_here(&cluster)?;
    authority.attach_here(&cluster)?;
    authority.declare(Statement::Introduce(joined.member))?;
    authority.absorb(&joined.introductions)?;
    Ok(cluster)
}

#[tonic::async_trait]
impl Join for Acceptor {
    async fn join(&self, request: Request<JsonMessage>) -> Result<Response<JsonMessage>, Status> {
        if !self.attempts.take(Instant::now()) {
            return Err(Status::resource_exhausted("too many attempts to join; try again in a few seconds"));
        }
        let Some(Caller { exporter, address, .. }) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("connection without TLS"));
        };
        let request: JoinRequest =
            serde_json::from_slice(&request.get_ref().json).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let internal = |e: anyhow::Error| Status::internal(format!("{e:#}"));
        let introductions = self.authority.reintroduce().map_err(internal)?;
        let shared = self.authority.is_shared();
        let (me, membership) = self.authority.with_membership(|me, membership| (me.clone(), membership.clone()));
        let store = self.authority.store().clone();
        // On its own thread: the token is burned at the API server first, where there is one.
        let accept = move || {
            let roster = Roster { me: &me, membership: &membership, shared };
            join::accept(&request, exporter, store.as_ref(), roster, introductions, now(), &mut SystemRandom)
        };
        let (answer, newcomer) =
            tokio::task::spawn_blocking(accept).await.map_err(|e| Status::internal(e.to_string()))?.map_err(|e| {
                tracing::warn!(%address, "an attempt to join is refused: {e}");
                Status::permission_denied(e.to_string())
            })?;
        tracing::info!(%address, cluster = newcomer.cluster, "a cluster joined");
        self.authority.introduced_here(&newcomer.cluster).map_err(internal)?;
        self.authority.attach_here(&newcomer.cluster).map_err(internal)?;
        self.authority.declare(Statement::Introduce(newcomer)).map_err(internal)?;
        (self.changed)();
        // The newcomer's token is burned: if this pod were lost now, what it was burned for should not be.
        if !self.authority.store().is_safe(SAFE).await {
            tracing::warn!("a cluster joined, and the API server has not taken that yet");
        }
        let json = serde_json::to_vec(&answer).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(JsonMessage::new(ANSWER, json)))
    }

    async fn rehearse(&self, request: Request<JsonMessage>) -> Result<Response<JsonMessage>, Status> {
        if !self.attempts.take(Instant::now()) {
            return Err(Status::resource_exhausted("too many attempts to join; try again in a few seconds"));
        }
        let Some(Caller { exporter, .. }) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("connection without TLS"));
        };
        let request: JoinRequest =
            serde_json::from_slice(&request.get_ref().json).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let shared = self.authority.is_shared();
        let (me, membership) = self.authority.with_membership(|me, membership| (me.clone(), membership.clone()));
        let store = self.authority.store().clone();
        let look = move || {
            let roster = Roster { me: &me, membership: &membership, shared };
            join::rehearse(&request, exporter, store.as_ref(), roster, now())
        };
        let looked = tokio::task::spawn_blocking(look).await.map_err(|e| Status::internal(e.to_string()))?;
        let answer = Rehearsal { refused: looked.err(), now: now().as_secs() };
        let json = serde_json::to_vec(&answer).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(JsonMessage::new(REHEARSED, json)))
    }
}
