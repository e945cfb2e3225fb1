//! `fairlead.v1.Join`: the one exchange by which two control planes come to trust each other.
//!
//! The messages are JSON envelopes; proof and verification belong to the identity and peering crates. The caller
//! is a stranger until its proof holds, so the limits here are tight.

use crate::JsonMessage;
use crate::grpc::{self, HttpReply, Reply};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

const SERVICE: &str = "fairlead.v1.Join";
const JOIN: &str = "/fairlead.v1.Join/Join";
const REHEARSE: &str = "/fairlead.v1.Join/Rehearse";
/// A bundle, a cluster id, a nonce and a proof.
const REQUEST_LIMIT: usize = 256 * 1024;
/// The answer may introduce every other member.
const RESPONSE_LIMIT: usize = 4 * 1024 * 1024;

/// What the acceptor implements.
#[tonic::async_trait]
pub trait Join: Send + Sync + 'static {
    /// Answers a dialler's proof with its own, or refuses with `PERMISSION_DENIED` (bad or burned token),
    /// `ALREADY_EXISTS` (cluster id taken) or `INVALID_ARGUMENT`.
    async fn join(&self, request: Request<JsonMessage>) -> Result<Response<JsonMessage>, Status>;

    /// Says what [`Join::join`] would, and changes nothing.
    async fn rehearse(&self, request: Request<JsonMessage>) -> Result<Response<JsonMessage>, Status>;
}

/// The service, to be added to a `tonic` router.
#[derive(Clone)]
pub struct JoinServer(Arc<dyn Join>);

impl JoinServer {
    /// Serves `acceptor`.
    pub fn new(acceptor: Arc<dyn Join>) -> Self {
        JoinServer(acceptor)
    }
}

impl NamedService for JoinServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for JoinServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = HttpReply;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        grpc::always_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> HttpReply {
        let acceptor = self.0.clone();
        match request.uri().path() {
            JOIN => grpc::unary(request, REQUEST_LIMIT, move |r| -> Reply<JsonMessage> {
                let acceptor = acceptor.clone();
                Box::pin(async move { acceptor.join(r).await })
            }),
            REHEARSE => grpc::unary(request, REQUEST_LIMIT, move |r| -> Reply<JsonMessage> {
                let acceptor = acceptor.clone();
                Box::pin(async move { acceptor.rehearse(r).await })
            }),
            _ => grpc::unimplemented(),
        }
    }
}

/// Joins through an acceptor.
#[derive(Clone, Debug)]
pub struct JoinClient(Channel);

impl JoinClient {
    /// A client over any channel.
    pub fn new(channel: Channel) -> Self {
        JoinClient(channel)
    }

    /// Sends the proof and returns the acceptor's.
    ///
    /// # Errors
    /// The acceptor's refusal, or `UNAVAILABLE` when it cannot be reached.
    pub async fn join(&self, proof: JsonMessage) -> Result<JsonMessage, Status> {
        Ok(grpc::call_unary(self.0.clone(), RESPONSE_LIMIT, JOIN, Request::new(proof)).await?.into_inner())
    }

    /// Asks whether a join would succeed.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` from an older acceptor, `UNAVAILABLE` when it cannot be reached.
    pub async fn rehearse(&self, proof: JsonMessage) -> Result<JsonMessage, Status> {
        Ok(grpc::call_unary(self.0.clone(), RESPONSE_LIMIT, REHEARSE, Request::new(proof)).await?.into_inner())
    }
}
