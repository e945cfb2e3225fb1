//! The hand-written services over a real HTTP/2 connection: every method reaches its implementation and back.

// clippy.toml allows these in test functions; here everything is a test, helpers too.
#![allow(clippy::unwrap_used)]

use fairlead_proto::certificates::{
    BundlesRequest, BundlesResponse, Certificates, CertificatesClient, CertificatesServer, SignRequest, SignResponse,
};
use fairlead_proto::join::{Join, JoinClient, JoinServer};
use fairlead_proto::reports::{Reports, ReportsClient, ReportsServer};
use fairlead_proto::{BoxStream, JsonMessage};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request, Response, Status, Streaming};

struct Echo;

#[tonic::async_trait]
impl Certificates for Echo {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let request = request.into_inner();
        if request.credential.is_empty() {
            return Err(Status::unauthenticated("no credential"));
        }
        let chain_pem = vec![request.credential, request.lifetime_seconds.to_string()];
        Ok(Response::new(SignResponse { chain_pem, bundles_json: request.csr_der }))
    }

    async fn bundles(&self, _: Request<BundlesRequest>) -> Result<Response<BundlesResponse>, Status> {
        Ok(Response::new(BundlesResponse { bundles_json: "{}".into() }))
    }
}

#[tonic::async_trait]
impl Join for Echo {
    async fn join(&self, request: Request<JsonMessage>) -> Result<Response<JsonMessage>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn rehearse(&self, request: Request<JsonMessage>) -> Result<Response<JsonMessage>, Status> {
        Ok(Response::new(JsonMessage::new("rehearsed", request.into_inner().json)))
    }
}

#[tonic::async_trait]
impl Reports for Echo {
    async fn stream(
        &self,
        request: Request<Streaming<JsonMessage>>,
    ) -> Result<Response<BoxStream<JsonMessage>>, Status> {
        let answers = request
            .into_inner()
            .map(|report| report.map(|report| JsonMessage::new(format!("ack-{}", report.kind), report.json)));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A server of all three, and a channel to it.
async fn connected() -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = Arc::new(Echo);
    let router = Server::builder()
        .add_service(CertificatesServer::new(echo.clone()))
        .add_service(JoinServer::new(echo.clone()))
        .add_service(ReportsServer::new(echo));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    let dial = move |_: Uri| async move { TcpStream::connect(address).await.map(TokioIo::new) };
    let endpoint = Endpoint::from_static("http://fairlead.invalid");
    endpoint.connect_with_connector(tower::service_fn(dial)).await.unwrap()
}

#[tokio::test]
async fn certificates() {
    let client = CertificatesClient::new(connected().await);
    let request = SignRequest { csr_der: "csr".into(), credential: "token".into(), lifetime_seconds: 60 };
    let answer = client.sign(request.clone()).await.unwrap();
    assert_eq!((answer.chain_pem, &answer.bundles_json[..]), (vec!["token".into(), "60".into()], &b"csr"[..]));
    assert_eq!(client.bundles().await.unwrap().bundles_json, "{}");
    let refusal = client.sign(SignRequest { credential: String::new(), ..request.clone() }).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::Unauthenticated, "no credential"));
    let huge = SignRequest { csr_der: vec![0; 100 * 1024].into(), ..request };
    let refusal = client.sign(huge).await.unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal}");
}

#[tokio::test]
async fn join() {
    let message = JsonMessage::new("introduce", "{\"cluster\":\"east\"}");
    let client = JoinClient::new(connected().await);
    assert_eq!(client.join(message.clone()).await.unwrap(), message);
    assert_eq!(client.rehearse(message).await.unwrap().kind, "rehearsed");
}

#[tokio::test]
async fn reports() {
    let reports = ["readiness", "path"].map(|kind| JsonMessage::new(kind, "{}"));
    let client = ReportsClient::new(connected().await);
    let mut answers = client.stream(tokio_stream::iter(reports)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().kind, "ack-readiness");
    assert_eq!(answers.message().await.unwrap().unwrap().kind, "ack-path");
    assert!(answers.message().await.unwrap().is_none());
}
