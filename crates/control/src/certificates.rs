//! Certificates for this cluster's proxies: the first by a token, later ones by the current certificate alone.
//!
//! Invariant: the identity in a certificate is the token's or the caller's own, never one that was asked for.

use crate::authority::{Authority, now};
use crate::caller::{Caller, Who};
use fairlead_identity::WorkloadToken;
use fairlead_proto::certificates::{BundlesRequest, BundlesResponse, Certificates, SignRequest, SignResponse};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

pub struct Issuer {
    pub authority: Arc<Authority>,
}

impl Issuer {
    fn issue(&self, caller: Option<&Caller>, request: &SignRequest) -> Result<SignResponse, Status> {
        let authority = &self.authority;
        let (identity, workload) = if request.credential.is_empty() {
            let who = caller.map_or(Who::Nobody, |c| c.who(authority));
            match who {
                Who::Proxy { workload, identity } => (identity, workload.to_string()),
                _ => return Err(Status::unauthenticated("show a token, or the current certificate of this cluster")),
            }
        } else {
            let token = WorkloadToken::parse(&request.credential).map_err(|e| Status::unauthenticated(e.to_string()))?;
            let claim = authority
                .tokens()
                .redeem(&token, authority.store().as_ref(), now())
                .map_err(|e| Status::unauthenticated(e.to_string()))?;
            (claim.spiffe_id, claim.workload)
        };
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

    fn bundles_json(&self) -> Result<bytes::Bytes, Status> {
        self.authority.trust().to_json().map(Into::into).map_err(|e| Status::internal(e.to_string()))
    }
}

#[tonic::async_trait]
impl Certificates for Issuer {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.issue(caller.as_ref(), request.get_ref()).map(Response::new)
    }

    async fn bundles(&self, _: Request<BundlesRequest>) -> Result<Response<BundlesResponse>, Status> {
        Ok(Response::new(BundlesResponse { bundles_json: self.bundles_json()? }))
    }
}
