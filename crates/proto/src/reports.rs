//! `fairlead.v1.Reports`: what a proxy tells its control plane, and what it is told back, on one stream.
//!
//! Up: readiness of the program, state of paths, acked generation. Down: acknowledgements and commands such as
//! `drain`. Messages are [`JsonMessage`]s; their content belongs to the crates that own it. The stream's life is
//! itself a report: a program counts as ready only while it lives, or for a grace period after.

use crate::JsonMessage;
use crate::grpc::{self, BoxStream, HttpReply, Reply};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

const SERVICE: &str = "fairlead.v1.Reports";
const STREAM: &str = "/fairlead.v1.Reports/Stream";
/// One report covers one proxy's programs and paths; 1 MiB is thousands of them.
const LIMIT: usize = 1024 * 1024;

/// What a control plane implements.
#[tonic::async_trait]
pub trait Reports: Send + Sync + 'static {
    /// Takes a proxy's reports and answers with acknowledgements and commands until either side ends.
    async fn stream(
        &self,
        request: Request<Streaming<JsonMessage>>,
    ) -> Result<Response<BoxStream<JsonMessage>>, Status>;
}

/// The service, to be added to a `tonic` router.
#[derive(Clone)]
pub struct ReportsServer(Arc<dyn Reports>);

impl ReportsServer {
    /// Serves `sink`.
    pub fn new(sink: Arc<dyn Reports>) -> Self {
        ReportsServer(sink)
    }
}

impl NamedService for ReportsServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for ReportsServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = HttpReply;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        grpc::always_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> HttpReply {
        let sink = self.0.clone();
        match request.uri().path() {
            STREAM => grpc::streaming(request, LIMIT, move |r| -> Reply<BoxStream<JsonMessage>> {
                let sink = sink.clone();
                Box::pin(async move { sink.stream(r).await })
            }),
            _ => grpc::unimplemented(),
        }
    }
}

/// Reports to a control plane.
#[derive(Clone, Debug)]
pub struct ReportsClient(Channel);

impl ReportsClient {
    /// A client over any channel.
    pub fn new(channel: Channel) -> Self {
        ReportsClient(channel)
    }

    /// Opens the stream: `reports` go up, the result comes down. The call returns when the server has answered
    /// the headers; dropping `reports` ends the stream cleanly.
    ///
    /// # Errors
    /// The server's refusal, or `UNAVAILABLE` when it cannot be reached.
    pub async fn stream<S>(&self, reports: S) -> Result<Streaming<JsonMessage>, Status>
    where
        S: tokio_stream::Stream<Item = JsonMessage> + Send + 'static,
    {
        Ok(grpc::call_streaming(self.0.clone(), LIMIT, STREAM, reports).await?.into_inner())
    }
}
