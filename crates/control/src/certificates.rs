//! Certificates for this cluster's proxies: the first by a token, later ones by the current certificate alone.
//!
//! Invariants: the identity in a certificate is the token's or the caller's own, never one that was asked for; a workload that is no
//! longer in the cluster's objects, or has another identity there now, gets none.

use crate::authority::{Authority, now};
use crate::caller::{Caller, Who, workload_ref};
use crate::event::Event;
use crate::limiter::Limiter;
use crate::listing;
use fairlead_identity::{SpiffeId, WorkloadToken};
use fairlead_proto::certificates::{BundlesRequest, BundlesResponse, Certificates, SignRequest, SignResponse};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

/// Tokens that are no good, a second, before all callers with tokens must wait: guessing is hopeless and costs us HMACs.
const BAD_TOKENS: u32 = 50;

pub struct Issuer {
    authority: Arc<Authority>,
    events: mpsc::UnboundedSender<Event>,
    bad_tokens: Limiter,
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
        Self { authority, events, bad_tokens: Limiter::new(BAD_TOKENS, BAD_TOKENS) }
    }

    async fn issue(&self, caller: Option<&Caller>, request: &SignRequest) -> Result<SignResponse, Status> {
        let authority = &self.authority;
        let (identity, workload) = if request.credential.is_empty() {
            match caller.map_or(Who::Nobody, |c| c.who(authority)) {
                Who::Proxy { workload, identity } => (identity, workload.to_string()),
                _ => return Err(Status::unauthenticated("show a token, or the current certificate of this cluster")),
            }
        } else {
            self.redeem(&request.credential)?
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

    fn redeem(&self, credential: &str) -> Result<(SpiffeId, String), Status> {
        let refuse = |e: String| {
            if self.bad_tokens.take(Instant::now()) {
                Status::unauthenticated(e)
            } else {
                Status::resource_exhausted("too many tokens that are no good; try again in a second")
            }
        };
        let token = WorkloadToken::parse(credential).map_err(|e| refuse(e.to_string()))?;
        let claim = self
            .authority
            .tokens()
            .redeem(&token, self.authority.store().as_ref(), now())
            .map_err(|e| refuse(e.to_string()))?;
        Ok((claim.spiffe_id, claim.workload))
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
