//! `fairlead.v1.Certificates`: a certificate for a signing request, and the trust bundles to verify others with.
//!
//! Who may have which identity is decided by the implementation, from the connection's own certificate (the
//! connect info in the request's extensions) or from the credential; nothing here trusts what a caller claims.

use crate::grpc::{self, HttpReply, Reply};
use bytes::Bytes;
use prost::Message;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

const SERVICE: &str = "fairlead.v1.Certificates";
const SIGN: &str = "/fairlead.v1.Certificates/Sign";
const BUNDLES: &str = "/fairlead.v1.Certificates/Bundles";
/// A signing request is under 2 KB, a projected token under 4 KB; bundles of 100 members under 1 MB.
const REQUEST_LIMIT: usize = 64 * 1024;
const RESPONSE_LIMIT: usize = 4 * 1024 * 1024;

/// Asks for a certificate.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SignRequest {
    /// PKCS#10 certificate signing request, DER. The key never leaves the caller.
    #[prost(bytes = "bytes", tag = "1")]
    pub csr_der: Bytes,
    /// Join credential or bound service-account token of a first certificate; empty on renewal, which is
    /// authorised by the current certificate alone.
    #[prost(string, tag = "2")]
    pub credential: String,
    /// Lifetime wished for, in seconds; 0 = the issuer's default. The issuer may shorten it.
    #[prost(uint64, tag = "3")]
    pub lifetime_seconds: u64,
}

/// A certificate and what to verify others with.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SignResponse {
    /// PEM certificates, leaf first, each intermediate after what it signed; the root is not among them.
    #[prost(string, repeated, tag = "1")]
    pub chain_pem: Vec<String>,
    /// JSON of the trust bundle set.
    #[prost(bytes = "bytes", tag = "2")]
    pub bundles_json: Bytes,
}

/// Asks for the trust bundles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct BundlesRequest {}

/// The trust bundles as the issuer knows them now.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct BundlesResponse {
    /// JSON of the trust bundle set.
    #[prost(bytes = "bytes", tag = "1")]
    pub bundles_json: Bytes,
}

/// What an issuer implements.
#[tonic::async_trait]
pub trait Certificates: Send + Sync + 'static {
    /// Issues a certificate, or refuses: `PERMISSION_DENIED` for an identity the caller may not have,
    /// `UNAUTHENTICATED` for a bad credential, `INVALID_ARGUMENT` for a bad signing request.
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status>;

    /// The current trust bundles.
    async fn bundles(&self, request: Request<BundlesRequest>) -> Result<Response<BundlesResponse>, Status>;
}

/// The service, to be added to a `tonic` router.
#[derive(Clone)]
pub struct CertificatesServer(Arc<dyn Certificates>);

impl CertificatesServer {
    /// Serves `issuer`.
    pub fn new(issuer: Arc<dyn Certificates>) -> Self {
        CertificatesServer(issuer)
    }
}

impl NamedService for CertificatesServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for CertificatesServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = HttpReply;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        grpc::always_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> HttpReply {
        let issuer = self.0.clone();
        match request.uri().path() {
            SIGN => grpc::unary(request, REQUEST_LIMIT, move |r| -> Reply<SignResponse> {
                let issuer = issuer.clone();
                Box::pin(async move { issuer.sign(r).await })
            }),
            BUNDLES => grpc::unary(request, REQUEST_LIMIT, move |r| -> Reply<BundlesResponse> {
                let issuer = issuer.clone();
                Box::pin(async move { issuer.bundles(r).await })
            }),
            _ => grpc::unimplemented(),
        }
    }
}

/// Calls an issuer.
#[derive(Clone, Debug)]
pub struct CertificatesClient(Channel);

impl CertificatesClient {
    /// A client over any channel.
    pub fn new(channel: Channel) -> Self {
        CertificatesClient(channel)
    }

    /// Asks for a certificate.
    ///
    /// # Errors
    /// The issuer's refusal, or `UNAVAILABLE` when it cannot be reached.
    pub async fn sign(&self, request: SignRequest) -> Result<SignResponse, Status> {
        let reply = grpc::call_unary(self.0.clone(), RESPONSE_LIMIT, SIGN, Request::new(request)).await?;
        Ok(reply.into_inner())
    }

    /// Asks for the trust bundles.
    ///
    /// # Errors
    /// The issuer's refusal, or `UNAVAILABLE` when it cannot be reached.
    pub async fn bundles(&self) -> Result<BundlesResponse, Status> {
        let request = Request::new(BundlesRequest {});
        Ok(grpc::call_unary(self.0.clone(), RESPONSE_LIMIT, BUNDLES, request).await?.into_inner())
    }
}
