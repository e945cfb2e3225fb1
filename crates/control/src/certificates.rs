//! Certificates for this cluster's proxies: the first by a token, later ones by the current certificate alone.
//!
//! A token is one of our own, good once; or, on Kubernetes, the projected service-account token of a pod, which is bound to the pod and
//! to this cluster's audience, lives an hour at most, and may be shown again while it lives.
//!
//! Invariants: the identity in a certificate is the token's or the caller's own, never one that was asked for; a workload that is no
//! longer in the cluster's objects, or has another identity there now, gets none.

#[cfg(test)]
mod tests;

use crate::authority::{Authority, now};
use crate::caller::{Caller, Who, workload_ref};
use crate::event::Event;
use crate::kubernetes::{PodTokenError, Reviewer, is_jwt};
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
    reviewer: Option<Arc<Reviewer>>,
}

/// Whose pods alone get the reserved identity of gateways between clusters: a Gateway object in a user's namespace gives it to nobody.
pub const GATEWAY_ACCOUNT: (&str, &str) = ("fairlead-system", "fairlead-eastwest");

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
    /// `reviewer`: for the tokens of pods, where there are pods.
    pub fn new(
        authority: Arc<Authority>,
        events: mpsc::UnboundedSender<Event>,
        reviewer: Option<Arc<Reviewer>>,
    ) -> Self {
        let bad_tokens = Limiter::new(BAD_TOKENS, BAD_TOKENS);
        Self { authority, events, bad_tokens, redeemed: Mutex::default(), reviewer }
    }

    async fn issue(&self, caller: Option<&Caller>, request: &SignRequest) -> Result<SignResponse, Status> {
        let authority = &self.authority;
        let (identity, workload) = if request.credential.is_empty() {
            match caller.map_or(Who::Nobody, |c| c.who(authority)) {
                Who::Proxy { workload, identity } => (identity, workload.to_string()),
                _ => return Err(Status::unauthenticated("show a token, or the current certificate of this cluster")),
            }
        } else if let Some(reviewer) = self.reviewer.as_ref().filter(|_| is_jwt(&request.credential)) {
            self.review(reviewer, &request.credential).await?
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

    /// A token that is no good.
    fn refuse(&self, why: String) -> Status {
        match self.bad_tokens.take(Instant::now()) {
            true => Status::unauthenticated(why),
            false => too_many(),
        }
    }

    /// Who a pod is by its projected token.
    async fn review(&self, reviewer: &Reviewer, token: &str) -> Result<(SpiffeId, String), Status> {
        // Each question costs the API server something, so strangers are stopped before it.
        if !self.bad_tokens.has_room(Instant::now()) {
            return Err(too_many());
        }
        let claim = reviewer.pod(token, now().as_secs()).await.map_err(|e| match e {
            PodTokenError::Unavailable { .. } => Status::unavailable(e.to_string()),
            _ => {
                tracing::info!("a pod's token is refused: {e}");
                self.refuse(e.to_string())
            }
        })?;
        let ca = self.authority.ca();
        let workload = format!("{}/{claim}", ca.cluster());
        let domain = ca.trust_domain();
        let account = domain
            .service_account(&claim.namespace, &claim.service_account)
            .map_err(|e| Status::invalid_argument(format!("{workload}: {e}")))?;
        let is_gateway = matches!(self.known(&workload).await?, Known::Identity(id) if id == domain.gateway().as_str());
        if !is_gateway {
            return Ok((account, workload));
        }
        let (namespace, name) = GATEWAY_ACCOUNT;
        if (claim.namespace.as_str(), claim.service_account.as_str()) != GATEWAY_ACCOUNT {
            return Err(Status::permission_denied(format!(
                "pod {claim} is an east-west gateway by the objects, but its ServiceAccount is {}/{}; only {namespace}/{name} may be one: \
                 run it as that, or let the Gateway's selector not match it",
                claim.namespace, claim.service_account
            )));
        }
        Ok((domain.gateway(), workload))
    }

    fn redeem(&self, credential: &str, csr: &Bytes) -> Result<(SpiffeId, String), Status> {
        let refuse = |e: String| self.refuse(e);
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

    /// What the objects say of a workload.
    async fn known(&self, workload: &str) -> Result<Known, Status> {
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
        answer.await.map_err(|_| stopping())
    }

    async fn is_known(&self, identity: &SpiffeId, workload: &str) -> Result<(), Status> {
        match self.known(workload).await? {
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

fn too_many() -> Status {
    Status::resource_exhausted("too many tokens that are no good; try again in a second")
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
