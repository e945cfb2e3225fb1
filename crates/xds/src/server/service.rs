//! The tonic shell of the server: one task for each stream, moving messages between the wire and its session.
//!
//! No protocol here. Invariant: requests are read whether or not the client reads its responses; responses are made
//! only when there is room for them, so a client that acks without reading costs a bounded queue.

use super::event::{Discovery, Ended, Event, Hello, StreamId, Views};
use super::session::{Encoding, Session, Violation};
use crate::{FRESHNESS_KEY, Limits, TypeRules};
use fairlead_proto::BoxStream;
use fairlead_proto::discovery::{
    AggregatedDiscovery, AggregatedDiscoveryServer, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
    DiscoveryResponse,
};
use fairlead_proto::envoy::core::Node;
use fairlead_proto::envoy::protobuf::value::Kind;
use fairlead_runtime::Drain;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

/// A client that opens a stream must say something within this time.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// How long a silent client may take to ask for what follows from what it was sent, before the rest is sent anyway.
const FOLLOW_UP: Duration = Duration::from_secs(1);

/// Responses made and not yet sent; with one unanswered response of a type an honest client never fills it.
const QUEUE: usize = 64;

/// Settings of the service.
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    /// Order and form of types.
    pub rules: TypeRules,
    /// Bounds on each stream.
    pub limits: Limits,
    /// When the server drains, its streams end with `UNAVAILABLE`, and clients go to another server.
    pub drain: Drain,
}

/// Discovery over tonic, for clients described by `C`: the connect info of the incoming connections.
pub struct DiscoveryService<C> {
    inner: Arc<Inner<C>>,
}

impl<C: Clone + Send + Sync + 'static> DiscoveryService<C> {
    /// Serves what `discovery` offers.
    pub fn new(discovery: Arc<dyn Discovery<C>>, config: ServiceConfig) -> Self {
        let rules = Arc::new(config.rules);
        let (limits, drain) = (config.limits, config.drain);
        DiscoveryService { inner: Arc::new(Inner { discovery, rules, limits, drain, streams: AtomicU64::new(0) }) }
    }

    /// The service to be added to a tonic router.
    pub fn into_server(self) -> AggregatedDiscoveryServer {
        let limit = self.inner.limits.request_bytes;
        AggregatedDiscoveryServer::new(Arc::new(self), limit)
    }

    fn open<W: Wire>(&self, request: Request<Streaming<W::In>>) -> Result<Response<BoxStream<W::Out>>, Status> {
        if self.inner.drain.phase() != fairlead_runtime::Phase::Running {
            return Err(Status::unavailable("server is draining"));
        }
        let Some(client) = request.extensions().get::<C>().cloned() else {
            return Err(Status::internal("connection without client description: serve Identified connections"));
        };
        let (out, responses) = mpsc::channel(QUEUE);
        let stream = Stream::<W, C> { inner: self.inner.clone(), requests: request.into_inner(), out };
        tokio::spawn(stream.run(client));
        let responses = ReceiverStream::new(responses).map(|response| response.map(|boxed| *boxed));
        Ok(Response::new(Box::pin(responses)))
    }
}

#[tonic::async_trait]
impl<C: Clone + Send + Sync + 'static> AggregatedDiscovery for DiscoveryService<C> {
    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DiscoveryResponse>>, Status> {
        self.open::<Sotw>(request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DeltaDiscoveryResponse>>, Status> {
        self.open::<Delta>(request)
    }
}

struct Inner<C> {
    discovery: Arc<dyn Discovery<C>>,
    rules: Arc<TypeRules>,
    limits: Limits,
    drain: Drain,
    streams: AtomicU64,
}

struct Stream<W: Wire, C> {
    inner: Arc<Inner<C>>,
    requests: Streaming<W::In>,
    /// Boxed: the channel has room for many from the start.
    out: mpsc::Sender<Result<Box<W::Out>, Status>>,
}

impl<W: Wire, C: Clone + Send + Sync + 'static> Stream<W, C> {
    async fn run(mut self, client: C) {
        let _guard = self.inner.drain.guard();
        let first = match tokio::time::timeout(FIRST_REQUEST, self.requests.message()).await {
            Ok(Ok(Some(first))) => first,
            Ok(_) => return,
            Err(_) => return self.end(Status::deadline_exceeded("no request came")),
        };
        let id = StreamId(self.inner.streams.fetch_add(1, Ordering::Relaxed));
        let node = W::node(&first).cloned().unwrap_or_default();
        let freshness = freshness(&node);
        let hello = Hello { stream: id, client, node, encoding: W::ENCODING, freshness };
        let views = match self.inner.discovery.connect(hello).await {
            Ok(views) => views,
            Err(refusal) => return self.end(refusal.into_status()),
        };
        let (ended, status) = self.serve(id, first, views).await;
        debug!(stream = %id, ?ended, "discovery stream ended");
        self.inner.discovery.disconnected(id, ended);
        if let Some(status) = status {
            self.end(status);
        }
    }

    async fn serve(&mut self, id: StreamId, first: W::In, mut views: Views) -> (Ended, Option<Status>) {
        let view = views.borrow_and_update().clone();
        let (rules, limits) = (self.inner.rules.clone(), self.inner.limits);
        let mut session = Session::new(id, W::ENCODING, rules, limits, view);
        let mut request = Some(first);
        let drain = self.inner.drain.clone();
        let mut draining = std::pin::pin!(drain.draining());
        loop {
            if let Some(request) = request.take() {
                match W::take(&mut session, request) {
                    Ok(events) => self.tell(id, events),
                    Err(violation) => {
                        return (Ended::Violation(violation.to_string()), Some(refuse(&violation)));
                    }
                }
            }
            let full = loop {
                match self.out.try_reserve() {
                    Ok(room) => match W::next(&mut session) {
                        Some(response) => room.send(Ok(Box::new(response))),
                        None => break false,
                    },
                    Err(TrySendError::Full(())) => break true,
                    Err(TrySendError::Closed(())) => {
                        return (Ended::Client("connection lost".to_owned()), None);
                    }
                }
            };
            self.tell(id, session.settlement());
            tokio::select! {
                _ = self.out.reserve(), if full => {}
                message = self.requests.message() => match message {
                    Ok(Some(message)) => request = Some(message),
                    Ok(None) => return (Ended::Client("closed".to_owned()), None),
                    Err(status) => return (Ended::Client(status.message().to_owned()), None),
                },
                changed = views.changed() => match changed {
                    Ok(()) => session.publish(views.borrow_and_update().clone()),
                    Err(_) => return (Ended::Dismissed, Some(Status::unavailable("stream dismissed"))),
                },
                () = tokio::time::sleep(FOLLOW_UP), if session.is_waiting() => session.stop_waiting(),
                () = &mut draining => return (Ended::Draining, Some(Status::unavailable("server is draining"))),
            }
        }
    }

    fn tell(&self, id: StreamId, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.inner.discovery.event(id, event);
        }
    }

    fn end(&self, status: Status) {
        // If the client has gone already, or reads nothing, there is nobody to tell.
        let _ = self.out.try_send(Err(status));
    }
}

/// The two encodings, as far as a stream's task must tell them apart.
trait Wire: Send + 'static {
    type In: Send + 'static;
    type Out: Send + 'static;
    const ENCODING: Encoding;
    fn node(request: &Self::In) -> Option<&Node>;
    fn take(session: &mut Session, request: Self::In) -> Result<Vec<Event>, Violation>;
    fn next(session: &mut Session) -> Option<Self::Out>;
}

struct Delta;

impl Wire for Delta {
    type In = DeltaDiscoveryRequest;
    type Out = DeltaDiscoveryResponse;
    const ENCODING: Encoding = Encoding::Delta;

    fn node(request: &Self::In) -> Option<&Node> {
        request.node.as_ref()
    }

    fn take(session: &mut Session, request: Self::In) -> Result<Vec<Event>, Violation> {
        session.delta_request(request)
    }

    fn next(session: &mut Session) -> Option<Self::Out> {
        session.next_delta()
    }
}

struct Sotw;

impl Wire for Sotw {
    type In = DiscoveryRequest;
    type Out = DiscoveryResponse;
    const ENCODING: Encoding = Encoding::StateOfTheWorld;

    fn node(request: &Self::In) -> Option<&Node> {
        request.node.as_ref()
    }

    fn take(session: &mut Session, request: Self::In) -> Result<Vec<Event>, Violation> {
        session.sotw_request(request)
    }

    fn next(session: &mut Session) -> Option<Self::Out> {
        session.next_sotw()
    }
}

fn freshness(node: &Node) -> String {
    let value = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(FRESHNESS_KEY));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(token)) => token.clone(),
        _ => String::new(),
    }
}

fn refuse(violation: &Violation) -> Status {
    match violation {
        Violation::NoType => Status::invalid_argument(violation.to_string()),
        _ => Status::resource_exhausted(violation.to_string()),
    }
}
