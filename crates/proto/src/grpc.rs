//! What every hand-written gRPC service shares: a unary or a bidirectional method as a function, on both sides.
//!
//! It stands in for generated code, so it knows tonic and nothing else. Invariant: every message that comes in
//! is bounded by the limit its service states.

use crate::outgoing::{Answer, Outgoing};
use prost::Message;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::client::Grpc as ClientGrpc;
use tonic::codec::{BufferSettings, Codec};
use tonic::codegen::http::{self, uri::PathAndQuery};
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc as ServerGrpc, StreamingService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// A stream of answers, as a streaming method returns it.
pub type BoxStream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send + 'static>>;

/// What a method of a service resolves to.
pub type Reply<T> = BoxFuture<Response<T>, Status>;

/// What a service's `call` resolves to: gRPC errors travel inside the response.
pub(crate) type HttpReply = BoxFuture<http::Response<Body>, Infallible>;

/// Serves one unary method.
pub(crate) fn unary<Req, Res, F>(request: http::Request<Body>, limit: usize, call: F) -> HttpReply
where
    Req: Message + Default + Send + 'static,
    Res: Message + Send + 'static,
    F: FnMut(Request<Req>) -> Reply<Res> + Send + 'static,
{
    Box::pin(async move {
        let mut grpc = ServerGrpc::new(ProstCodec::<Res, Req>::default()).max_decoding_message_size(limit);
        Ok(grpc.unary(Unary(call), request).await)
    })
}

/// Serves one method that takes and gives a stream.
pub(crate) fn streaming<Req, Res, F>(request: http::Request<Body>, limit: usize, call: F) -> HttpReply
where
    Req: Message + Default + Send + 'static,
    Res: Message + Outgoing,
    F: FnMut(Request<Streaming<Req>>) -> Reply<BoxStream<Res>> + Send + 'static,
{
    Box::pin(async move {
        let mut grpc = ServerGrpc::new(Small::<Res, Req>(PhantomData)).max_decoding_message_size(limit);
        let answers = Arc::default();
        let service = Bidirectional { call, answers: Arc::clone(&answers) };
        let response = grpc.streaming(service, request).await;
        // tonic's own body keeps a buffer as long as the longest message for as long as the stream stands.
        let taken = answers.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(match taken {
            Some(messages) => response.map(|_| Body::new(Answer::new(messages))),
            None => response,
        })
    })
}

/// The answer to a method the service does not have.
pub(crate) fn unimplemented() -> HttpReply {
    Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) })
}

/// Calls a unary method.
pub(crate) async fn call_unary<Req, Res>(
    channel: Channel,
    limit: usize,
    path: &'static str,
    request: Request<Req>,
) -> Result<Response<Res>, Status>
where
    Req: Message + Send + Sync + 'static,
    Res: Message + Default + Send + Sync + 'static,
{
    let mut grpc = ready(channel, limit).await?;
    grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::<Req, Res>::default()).await
}

/// Opens a method that takes and gives a stream.
pub(crate) async fn call_streaming<Req, Res, S>(
    channel: Channel,
    limit: usize,
    path: &'static str,
    requests: S,
) -> Result<Response<Streaming<Res>>, Status>
where
    Req: Message + Send + Sync + 'static,
    Res: Message + Default + Send + Sync + 'static,
    S: tokio_stream::Stream<Item = Req> + Send + 'static,
{
    let mut grpc = ready(channel, limit).await?;
    let path = PathAndQuery::from_static(path);
    grpc.streaming(Request::new(requests), path, ProstCodec::<Req, Res>::default()).await
}

/// `poll_ready` of every service: they hold no queue.
pub(crate) fn always_ready(_: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
    Poll::Ready(Ok(()))
}

async fn ready(channel: Channel, limit: usize) -> Result<ClientGrpc<Channel>, Status> {
    let mut grpc = ClientGrpc::new(channel).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|e| {
        let e: StdError = e.into();
        Status::unavailable(format!("service was not ready: {e}"))
    })?;
    Ok(grpc)
}

/// Begins with small buffers: of streams there are thousands, and most messages that come in are acks.
struct Small<Res, Req>(PhantomData<(Res, Req)>);

const BUFFER: usize = 512;

impl<Res, Req> Codec for Small<Res, Req>
where
    Res: Message + 'static,
    Req: Message + Default + 'static,
{
    type Encode = Res;
    type Decode = Req;
    type Encoder = <ProstCodec<Res, Req> as Codec>::Encoder;
    type Decoder = <ProstCodec<Res, Req> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Res, Req>::raw_encoder(BufferSettings::new(BUFFER, BUFFER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Res, Req>::raw_decoder(BufferSettings::new(BUFFER, BUFFER))
    }
}

struct Unary<F>(F);

impl<Req, Res, F> UnaryService<Req> for Unary<F>
where
    F: FnMut(Request<Req>) -> Reply<Res>,
{
    type Response = Res;
    type Future = Reply<Res>;

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        (self.0)(request)
    }
}

/// Its answers are put aside, to be written by [`Answer`].
struct Bidirectional<F, Res> {
    call: F,
    answers: Arc<Mutex<Option<BoxStream<Res>>>>,
}

impl<Req, Res, F> StreamingService<Req> for Bidirectional<F, Res>
where
    Res: Send + 'static,
    F: FnMut(Request<Streaming<Req>>) -> Reply<BoxStream<Res>>,
{
    type Response = Res;
    type ResponseStream = BoxStream<Res>;
    type Future = Reply<BoxStream<Res>>;

    fn call(&mut self, request: Request<Streaming<Req>>) -> Self::Future {
        let (reply, answers) = ((self.call)(request), self.answers.clone());
        Box::pin(async move {
            let aside = |messages| -> BoxStream<Res> {
                *answers.lock().unwrap_or_else(PoisonError::into_inner) = Some(messages);
                Box::pin(tokio_stream::empty())
            };
            Ok(reply.await?.map(aside))
        })
    }
}
