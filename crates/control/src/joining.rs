//! Joining two clusters with a token: both sides.
//!
//! The proofs are identity's; here are only the RPC and what follows from success. Invariants: nothing is believed before the proof,
//! nor anything signed for a newcomer; the token is burned before the answer leaves; of two that join under one name at once one does.

use crate::authority::{Authority, now};
use crate::caller::Caller;
use crate::dial;
use crate::limiter::{Attempt, Limiter, Rate, Rates};
use crate::quiet::{Quiet, short};
use crate::store::{Bucket, Store};
use anyhow::{Context as _, bail};
use fairlead_identity::join::JoinRefused;
use fairlead_identity::{
    JoinAnswer, JoinRequest, JoinToken, Member, Rehearsal, Roster, Statement, SystemRandom, join, tls,
};
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

/// Attempts that fail, and how many are looked at at once; each costs us a store look-up and an HMAC.
const ATTEMPTS: Rates = Rates {
    each: Rate { per_second: 1, burst: 10 },
    clean: Rate { per_second: 10, burst: 20 },
    failed: Rate { per_second: 5, burst: 10 },
};
/// How long a name is kept for the authority that joins under it: until all replicas have heard of the member.
const NAME_HELD: Duration = Duration::from_secs(60);

static REFUSED: Quiet = Quiet::new();

/// A newcomer waits no longer than this for the API server.
const SAFE: Duration = Duration::from_secs(2);

/// Clones are the same.
#[derive(Clone)]
pub struct Acceptor {
    authority: Arc<Authority>,
    /// Tells the owner that membership changed.
    changed: Arc<dyn Fn() + Send + Sync>,
    attempts: Arc<Limiter>,
    /// One joins at a time, so that each is judged by what the one before has become.
    one_by_one: Arc<tokio::sync::Mutex<()>>,
}

impl Acceptor {
    pub fn new(authority: Arc<Authority>, changed: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { authority, changed, attempts: Limiter::new(ATTEMPTS), one_by_one: Arc::default() }
    }

    /// Who attempts what, if it may be looked at now.
    fn attempt(&self, request: &Request<JsonMessage>) -> Result<(Attempt, Caller, JoinRequest), Status> {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::internal("connection without TLS"));
        };
        let too_many = || Status::resource_exhausted("too many attempts to join; try again in a few seconds");
        let attempt = self.attempts.take(caller.address.ip().into(), Instant::now()).ok_or_else(too_many)?;
        let request =
            serde_json::from_slice(&request.get_ref().json).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok((attempt, caller, request))
    }

    /// Goes on to its end whether or not the newcomer waits for the answer: a burned token has made a member.
    async fn accept(self, attempt: Attempt, caller: Caller, request: JoinRequest) -> Result<JoinAnswer, Status> {
        let internal = |e: anyhow::Error| Status::internal(format!("{e:#}"));
        let address = caller.address;
        if let Some(why) = self.authority.refuses_joins() {
            return Err(Status::failed_precondition(why));
        }
        let one = self.one_by_one.lock().await;
        let authority = self.authority.clone();
        // On its own thread: the name is held and the token burned at the API server first, where there is one.
        let accept = move || {
            let shared = authority.is_shared();
            let (me, membership) = authority.with_membership(|me, membership| (me.clone(), membership.clone()));
            let roster = Roster { me: &me, membership: &membership, shared };
            let store = authority.store().clone();
            let introduce = |newcomer: &Member| {
                hold_name(&store, newcomer)?;
                authority.reintroduce().map_err(|e| JoinRefused::Internal(format!("{e:#}")))
            };
            join::accept(&request, caller.exporter, store.as_ref(), roster, introduce, now(), &mut SystemRandom)
        };
        let accepted = tokio::task::spawn_blocking(accept).await.map_err(|e| Status::internal(e.to_string()))?;
        let (answer, newcomer) = accepted.map_err(|e| {
            if let Some(more) = REFUSED.passes() {
                tracing::warn!(%address, "an attempt to join is refused: {}{more}", short(&e.to_string()));
            }
            Status::permission_denied(e.to_string())
        })?;
        attempt.was_good();
        tracing::info!(%address, cluster = newcomer.cluster, "a cluster joined");
        self.authority.introduced_here(&newcomer.cluster).map_err(internal)?;
        self.authority.attach_here(&newcomer.cluster).map_err(internal)?;
        self.authority.declare(Statement::Introduce(newcomer)).map_err(internal)?;
        drop(one);
        (self.changed)();
        // The newcomer's token is burned: if this pod were lost now, what it was burned for should not be.
        if !self.authority.store().is_safe(SAFE).await {
            tracing::warn!("a cluster joined, and the API server has not taken that yet");
        }
        Ok(answer)
    }
}

/// Of two replicas that are asked by two authorities under one name at once, only one lets its newcomer in.
fn hold_name(store: &Store, newcomer: &Member) -> Result<(), JoinRefused> {
    let root = newcomer.bundle.fingerprints().next();
    let authority = format!("{} {root:?} {:?}", newcomer.trust_domain(), newcomer.issuing_keys);
    match store.hold(Bucket::Names, &newcomer.cluster, &authority, NAME_HELD, now()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(JoinRefused::NameHeld(newcomer.cluster.clone())),
        Err(e) => Err(JoinRefused::Store(format!("{e:#}"))),
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
    if let Some(why) = authority.refuses_joins() {
        bail!("{why}");
    }
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
    let name = ServerName::try_from(dial::NAME)?;
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
        let (attempt, caller, request) = self.attempt(&request)?;
        let accepted = tokio::spawn(self.clone().accept(attempt, caller, request));
        let answer = accepted.await.map_err(|e| Status::internal(e.to_string()))??;
        let json = serde_json::to_vec(&answer).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(JsonMessage::new(ANSWER, json)))
    }

    async fn rehearse(&self, request: Request<JsonMessage>) -> Result<Response<JsonMessage>, Status> {
        let (attempt, caller, request) = self.attempt(&request)?;
        let shared = self.authority.is_shared();
        let (me, membership) = self.authority.with_membership(|me, membership| (me.clone(), membership.clone()));
        let store = self.authority.store().clone();
        let look = move || {
            let roster = Roster { me: &me, membership: &membership, shared };
            join::rehearse(&request, caller.exporter, store.as_ref(), roster, now())
        };
        let looked = tokio::task::spawn_blocking(look).await.map_err(|e| Status::internal(e.to_string()))?;
        if looked.is_ok() {
            attempt.was_good();
        }
        let answer = Rehearsal { refused: looked.err(), now: now().as_secs() };
        let json = serde_json::to_vec(&answer).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(JsonMessage::new(REHEARSED, json)))
    }
}
