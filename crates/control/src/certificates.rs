//! Certificates for this cluster's proxies: the first by a token, later ones by the current certificate alone.
//!
//! A token is one of our own, good once; or, on Kubernetes, the projected service-account token of a pod, which is bound to the pod and
//! to this cluster's audience, lives an hour at most, and may be shown again while it lives.
//!
//! Invariants: the identity in a certificate is the token's or the caller's own, never one that was asked for; a workload that is no
//! longer in the cluster's objects, or has another identity there now, gets none; the certificate of a pod is renewed for that pod alone, not
//! for a later one of its name.

#[cfg(test)]
mod tests;

use crate::authority::{Authority, now};
use crate::caller::{Caller, Who, workload_ref};
use crate::event::Event;
use crate::kubernetes::{PodTokenError, Proven, Reviewer, is_jwt};
use crate::limiter::{Attempt, Limiter, Rate, Rates};
use crate::listing;
use crate::quiet::{Quiet, short};
use crate::world::World;
use bytes::Bytes;
use fairlead_identity::workload_token::WorkloadTokenError;
use fairlead_identity::{SpiffeId, WorkloadToken};
use fairlead_model::{ObjectKey, WorkloadRef};
use fairlead_proto::certificates::{BundlesRequest, BundlesResponse, Certificates, SignRequest, SignResponse};
use fairlead_resources::Object;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

/// Tokens that are no good, and how many are looked at at once: guessing is hopeless and costs us HMACs, and the API server questions.
const TOKENS: Rates = Rates {
    each: Rate { per_second: 5, burst: 64 },
    clean: Rate { per_second: 100, burst: 512 },
    failed: Rate { per_second: 25, burst: 64 },
};

static REFUSED: Quiet = Quiet::new();

/// How long an answer that was lost may be asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(300);

pub struct Issuer {
    authority: Arc<Authority>,
    events: mpsc::UnboundedSender<Event>,
    tokens: Arc<Limiter>,
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
    Present {
        identity: String,
        /// Of its pod, if it is one of an API server.
        pod_uid: Option<String>,
    },
}

/// What a caller has proven.
struct Claim {
    identity: SpiffeId,
    workload: String,
    by: Proof,
}

/// By what.
enum Proof {
    /// A token of ours, which names a workload and no pod.
    Token,
    /// The token of this pod.
    Pod { uid: String, proven: Proven },
    /// The current certificate, which says the pod that it was issued to.
    Certificate { pod_uid: Option<String> },
}

impl Issuer {
    /// `reviewer`: for the tokens of pods, where there are pods.
    pub fn new(
        authority: Arc<Authority>,
        events: mpsc::UnboundedSender<Event>,
        reviewer: Option<Arc<Reviewer>>,
    ) -> Self {
        Self { authority, events, tokens: Limiter::new(TOKENS), redeemed: Mutex::default(), reviewer }
    }

    async fn issue(&self, caller: Option<&Caller>, request: &SignRequest) -> Result<SignResponse, Status> {
        let authority = &self.authority;
        let source = caller.map_or(IpAddr::from([0, 0, 0, 0]), |caller| caller.address.ip()).into();
        let claim = if request.credential.is_empty() {
            match caller.map_or(Who::Nobody, |c| c.who(authority)) {
                Who::Proxy { workload, identity } => {
                    let pod_uid = caller.and_then(|caller| caller.peer.as_ref()?.pod_uid.clone());
                    Claim { identity, workload: workload.to_string(), by: Proof::Certificate { pod_uid } }
                }
                _ => return Err(Status::unauthenticated("show a token, or the current certificate of this cluster")),
            }
        } else {
            // Before anything is looked at: what costs something is bounded by what failed and what is under way.
            let attempt = self.tokens.take(source, Instant::now()).ok_or_else(too_many)?;
            if let Some(reviewer) = self.reviewer.as_ref().filter(|_| is_jwt(&request.credential)) {
                self.review(reviewer, &request.credential, attempt).await?
            } else {
                self.redeem(&request.credential, &request.csr_der, attempt)?
            }
        };
        let pod_uid = self.is_known(&claim).await?;
        let Claim { identity, workload, .. } = claim;
        let wanted = Duration::from_secs(request.lifetime_seconds);
        let chain = authority
            .issue(&request.csr_der, &identity, &workload, pod_uid.as_deref(), wanted)
            .map_err(|e| Status::invalid_argument(format!("{e:#}")))?;
        tracing::debug!(%identity, workload, "issued a certificate");
        Ok(SignResponse {
            chain_pem: chain.iter().map(|der| fairlead_identity::certificate::certificates_to_pem([der])).collect(),
            bundles_json: self.bundles_json()?,
        })
    }

    /// Who a pod is by its projected token.
    async fn review(&self, reviewer: &Reviewer, token: &str, attempt: Attempt) -> Result<Claim, Status> {
        let (claim, proven) = reviewer.pod(token, now().as_secs()).await.map_err(|e| match e {
            PodTokenError::Unavailable { .. } => Status::unavailable(short(&e.to_string())),
            _ => {
                let why = short(&e.to_string());
                if let Some(more) = REFUSED.passes() {
                    tracing::info!("a pod's token is refused: {why}{more}");
                }
                Status::unauthenticated(why)
            }
        })?;
        attempt.was_good();
        let by = Proof::Pod { uid: claim.uid.clone(), proven };
        let ca = self.authority.ca();
        let workload = format!("{}/{claim}", ca.cluster());
        let domain = ca.trust_domain();
        let account = domain
            .service_account(&claim.namespace, &claim.service_account)
            .map_err(|e| Status::invalid_argument(format!("{workload}: {e}")))?;
        let gateway = domain.gateway();
        let known = self.known(&workload).await?;
        if !matches!(known, Known::Present { identity, .. } if identity == gateway.as_str()) {
            return Ok(Claim { identity: account, workload, by });
        }
        let (namespace, name) = GATEWAY_ACCOUNT;
        if (claim.namespace.as_str(), claim.service_account.as_str()) != GATEWAY_ACCOUNT {
            return Err(Status::permission_denied(format!(
                "pod {claim} is an east-west gateway by the objects, but its ServiceAccount is {}/{}; only {namespace}/{name} may be one: \
                 run it as that, or let the Gateway's selector not match it",
                claim.namespace, claim.service_account
            )));
        }
        Ok(Claim { identity: gateway, workload, by })
    }

    fn redeem(&self, credential: &str, csr: &Bytes, attempt: Attempt) -> Result<Claim, Status> {
        let refuse = |e: String| Status::unauthenticated(short(&e));
        let token = WorkloadToken::parse(credential).map_err(|e| refuse(e.to_string()))?;
        let (identity, workload) = match self.authority.tokens().redeem(&token, self.authority.store().as_ref(), now())
        {
            Ok(claim) => {
                let (identity, workload) = (claim.spiffe_id, claim.workload);
                let mut redeemed = self.redeemed.lock();
                redeemed.retain(|known| known.at.elapsed() < ASK_AGAIN);
                let (csr, at) = (csr.clone(), Instant::now());
                redeemed.push(Redeemed { token, csr, identity: identity.clone(), workload: workload.clone(), at });
                (identity, workload)
            }
            Err(e) => {
                let asked_again = matches!(e, WorkloadTokenError::Used { .. }).then(|| {
                    let redeemed = self.redeemed.lock();
                    let same = |known: &&Redeemed| known.token.as_str() == token.as_str() && known.csr == csr;
                    let found = redeemed.iter().find(same).filter(|known| known.at.elapsed() < ASK_AGAIN);
                    found.map(|known| (known.identity.clone(), known.workload.clone()))
                });
                asked_again.flatten().ok_or_else(|| refuse(e.to_string()))?
            }
        };
        attempt.was_good();
        Ok(Claim { identity, workload, by: Proof::Token })
    }

    /// What the objects say of a workload.
    async fn known(&self, workload: &str) -> Result<Known, Status> {
        let stopping = || Status::unavailable("the control plane is stopping");
        let key = workload_ref(workload)
            .ok_or_else(|| Status::invalid_argument(format!("`{workload}` names no workload")))?;
        let (reply, answer) = oneshot::channel();
        let question = move |world: &World| {
            let known = match (world.resolved.is_some(), listing::identity(world, &key)) {
                (false, _) => Known::NotYet,
                (true, Some(identity)) => Known::Present { identity, pod_uid: pod_uid(world, &key) },
                (true, None) => Known::Absent,
            };
            let _ = reply.send(known);
        };
        self.events.send(Event::Ask(Box::new(question))).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// The pod that a certificate is to be bound to, if the workload is one, or why it gets none.
    async fn is_known(&self, claim: &Claim) -> Result<Option<String>, Status> {
        let Claim { identity, workload, by } = claim;
        let pod_uid = match self.known(workload).await? {
            Known::Present { identity: now, pod_uid } if now == identity.as_str() => pod_uid,
            Known::Present { identity: now, .. } => {
                return Err(Status::permission_denied(format!(
                    "{workload} is {now} by its cluster's objects now, no longer {identity}; start its proxy again with a new token"
                )));
            }
            Known::Absent => {
                return Err(Status::permission_denied(format!(
                    "{workload} is no workload of this cluster with a proxy any more; put its object back, or end the proxy"
                )));
            }
            Known::NotYet => return Err(Status::unavailable("the cluster's objects are not read yet")),
        };
        match by {
            Proof::Token => Ok(pod_uid),
            Proof::Pod { uid, .. } if pod_uid.as_ref() == Some(uid) => Ok(pod_uid),
            // The API server knows this pod, so its watch tells of it soon.
            Proof::Pod { proven: Proven::Reviewed, .. } => Err(Status::unavailable(format!(
                "the control plane has not heard yet of this pod {workload}, only of another of its name; it is tried again"
            ))),
            Proof::Pod { proven: Proven::ByKeys, .. } => Err(Status::permission_denied(format!(
                "the token is of another pod {workload} than the one that was there when the API server last answered"
            ))),
            Proof::Certificate { pod_uid: issued_to } if *issued_to == pod_uid => Ok(pod_uid),
            Proof::Certificate { .. } => Err(Status::permission_denied(format!(
                "the certificate was not issued to the pod that is {workload} now; show that pod's token, or restart the pod"
            ))),
        }
    }

    fn bundles_json(&self) -> Result<bytes::Bytes, Status> {
        self.authority.trust().to_json().map(Into::into).map_err(|e| Status::internal(e.to_string()))
    }
}

fn too_many() -> Status {
    Status::resource_exhausted("too many tokens that are no good; try again in a second")
}

/// The API server's id of a workload's pod; a pod in a file has none.
fn pod_uid(world: &World, workload: &WorkloadRef) -> Option<String> {
    let key = ObjectKey::new(workload.cluster.clone(), "Pod", workload.namespace.as_str(), workload.name.as_str());
    let objects = &world.objects.objects;
    let at = objects.binary_search_by(|object| object.key().cmp(&key)).ok()?;
    match &objects.get(at)?.decoded.object {
        Object::Pod(pod) => Some(pod.metadata.uid.clone()).filter(|uid| !uid.is_empty()),
        _ => None,
    }
}

#[tonic::async_trait]
impl Certificates for Issuer {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.issue(caller.as_ref(), request.get_ref()).await.map(Response::new)
    }

    async fn bundles(&self, request: Request<BundlesRequest>) -> Result<Response<BundlesResponse>, Status> {
        // Roots are no secret, but who the members are is nobody's business; a first certificate brings its bundles along.
        let who = request.extensions().get::<Caller>().map_or(Who::Nobody, |caller| caller.who(&self.authority));
        if who == Who::Nobody {
            return Err(Status::unauthenticated("show a certificate of the mesh; bundles come with the first one"));
        }
        Ok(Response::new(BundlesResponse { bundles_json: self.bundles_json()? }))
    }
}
