//! Certificates for this cluster's proxies: the first by a token, later ones by the current certificate alone.
//!
//! Invariants: the identity in a certificate is the token's or the caller's own, never one that was asked for; a workload that is no
//! longer in the cluster's objects, or has another identity there now, gets none.

use crate::authority::{Authority, now};
use crate::caller::{Caller, Who, workload_ref};
use crate::event::Event;
use crate::limiter::Limiter;
use crate::listing;
use bytes::Bytes;
use fairlead_identity::workload_token::WorkloadTokenError;
use fairlead_identity::{SpiffeId, WorkloadToken};
use fairlead_proto::certificates::{BundlesRequest, BundlesResponse, Certificates, SignRequest, SignResponse};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

/// Tokens that are no good, a second, before all callers with tokens must wait: guessing is hopeless and costs us HMACs.
const BAD_TOKENS: u32 = 50;

/// How long an answer that was lost may be asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(300);

pub struct Issuer {
    authority: Arc<Authority>,
    events: mpsc::UnboundedSender<Event>,
    bad_tokens: Limiter,
    redeemed: Mutex<Vec<Redeemed>>,
}

/// A token that this process has burned, and for which signing request: the very same may come again, since its answer can get lost.
/// Whoever replays it gets a certificate for a key that is not his.
struct Redeemed {
    token: WorkloadToken,
    csr: Bytes,
    identity: SpiffeId,
    workload: String,
    at: Instant,
}

/// What the objects say of a workload.
enum Known {
    /// They were not read yet.
    NotYet,
    Absent,
    Identity(String),
}

impl Issuer {
    pub fn new(authority: Arc<Authority>, events: mpsc::UnboundedSender<Event>) -> Self {
        Self { authority, events, bad_tokens: Limiter::new(BAD_TOKENS, BAD_TOKENS), redeemed: Mutex::default() }
    }

    async fn issue(&self, caller: Option<&Caller>, request: &SignRequest) -> Result<SignResponse, Status> {
        let authority = &self.authority;
        let (identity, workload) = if request.credential.is_empty() {
            match caller.map_or(Who::Nobody, |c| c.who(authority)) {
                Who::Proxy { workload, identity } => (identity, workload.to_string()),
                _ => return Err(Status::unauthenticated("show a token, or the current certificate of this cluster")),
            }
        } else {
            self.redeem(&request.credential, &request.csr_der)?
        };
        self.is_known(&identity, &workload).await?;
        let wanted = Duration::from_secs(request.lifetime_seconds);
        let chain = authority
            .issue(&request.csr_der, &identity, &workload, wanted)
            .map_err(|e| Status::invalid_argument(format!("{e:#}")))?;
        tracing::debug!(%identity, workload, "issued a certificate");
        Ok(SignResponse {
            chain_pem: chain.iter().map(|der| fairlead_identity::certificate::certificates_to_pem([der])).collect(),
            bundles_json: self.bundles_json()?,
        })
    }

    fn redeem(&self, credential: &str, csr: &Bytes) -> Result<(SpiffeId, String), Status> {
        let refuse = |e: String| {
            if self.bad_tokens.take(Instant::now()) {
                Status::unauthenticated(e)
            } else {
                Status::resource_exhausted("too many tokens that are no good; try again in a second")
            }
        };
        let token = WorkloadToken::parse(credential).map_err(|e| refuse(e.to_string()))?;
        match self.authority.tokens().redeem(&token, self.authority.store().as_ref(), now()) {
            Ok(claim) => {
                let (identity, workload) = (claim.spiffe_id, claim.workload);
                let mut redeemed = self.redeemed.lock();
                redeemed.retain(|known| known.at.elapsed() < ASK_AGAIN);
                let (csr, at) = (csr.clone(), Instant::now());
                redeemed.push(Redeemed { token, csr, identity: identity.clone(), workload: workload.clone(), at });
                Ok((identity, workload))
            }
            Err(e) => {
                let asked_again = matches!(e, WorkloadTokenError::Used { .. }).then(|| {
                    let redeemed = self.redeemed.lock();
                    let same = |known: &&Redeemed| known.token.as_str() == token.as_str() && known.csr == csr;
                    let found = redeemed.iter().find(same).filter(|known| known.at.elapsed() < ASK_AGAIN);
                    found.map(|known| (known.identity.clone(), known.workload.clone()))
                });
                asked_again.flatten().ok_or_else(|| refuse(e.to_string()))
            }
        }
    }

    async fn is_known(&self, identity: &SpiffeId, workload: &str) -> Result<(), Status> {
        let stopping = || Status::unavailable("the control plane is stopping");
        let key = workload_ref(workload)
            .ok_or_else(|| Status::invalid_argument(format!("`{workload}` names no workload")))?;
        let (reply, answer) = oneshot::channel();
        let question = move |world: &crate::world::World| {
            let known = match (world.resolved.is_some(), listing::identity(world, &key)) {
                (false, _) => Known::NotYet,
                (true, Some(identity)) => Known::Identity(identity),
                (true, None) => Known::Absent,
            };
            let _ = reply.send(known);
        };
        self.events.send(Event::Ask(Box::new(question))).map_err(|_| stopping())?;
        match answer.await.map_err(|_| stopping())? {
            Known::Identity(now) if now == identity.as_str() => Ok(()),
            Known::Identity(now) => Err(Status::permission_denied(format!(
                "{workload} is {now} by its cluster's objects now, no longer {identity}; start its proxy again with a new token"
            ))),
            Known::Absent => Err(Status::permission_denied(format!(
                "{workload} is no workload of this cluster with a proxy any more; put its object back, or end the proxy"
            ))),
            Known::NotYet => Err(Status::unavailable("the cluster's objects are not read yet")),
        }
    }

    fn bundles_json(&self) -> Result<bytes::Bytes, Status> {
        self.authority.trust().to_json().map(Into::into).map_err(|e| Status::internal(e.to_string()))
    }
}

#[tonic::async_trait]
impl Certificates for Issuer {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.issue(caller.as_ref(), request.get_ref()).await.map(Response::new)
    }

    async fn bundles(&self, _: Request<BundlesRequest>) -> Result<Response<BundlesResponse>, Status> {
        Ok(Response::new(BundlesResponse { bundles_json: self.bundles_json()? }))
    }
}
