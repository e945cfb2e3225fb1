//! The tonic shell of the client: keeps one stream open to one of several servers and drives the subscriber.
//!
//! No protocol here. Servers are tried in order, starting after the one that failed; only when all have failed in a
//! row is there a wait. Invariant: wishes are taken at any time, connected or not, and are never lost.

use super::connection::{ChannelOptions, Connect, channel};
use super::handler::Handler;
use super::saved::Saved;
use super::subscriber::{StreamEpoch, Subscriber};
use crate::Name;
use fairlead_proto::discovery::{AggregatedDiscoveryClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use fairlead_proto::envoy::core::Node;
use fairlead_runtime::Backoff;
use std::future::Future;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

/// Requests made and not yet sent.
const QUEUE: usize = 16;

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Servers, best first; each is handed to the connector as it stands here.
    pub servers: Vec<String>,
    /// How the client introduces itself. Servers of ours believe the certificate, not this.
    pub node: Node,
    /// What an earlier process kept.
    pub saved: Option<Saved>,
    /// Wait after all servers have failed in a row.
    pub backoff: Backoff,
    /// Timings of connections.
    pub channel: ChannelOptions,
    /// Bytes of one response above which it is refused.
    pub response_limit: usize,
}

/// How the client stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStatus {
    /// The server whose stream stands.
    pub server: Option<String>,
    /// Whether that stream has answered for every type that is wanted.
    pub synced: bool,
    /// Freshness of the newest state that a part was taken from.
    pub freshness: String,
    /// Grows whenever what [`Client::saved`] gives has changed.
    pub revision: u64,
    /// Responses taken from any stream so far: a sign of life for leases.
    pub responses: u64,
    /// Why the last stream ended or could not be opened; cleared when the next stream brings a response.
    pub last_error: Option<String>,
}

/// The handle to a running client. When the last clone is gone, the client ends.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<ClientStatus>,
}

/// Makes a client and the future that runs it. Spawn the future; dropping it closes the stream. It also ends when
/// every [`Client`] handle is gone.
pub fn client<H: Handler>(
    config: ClientConfig,
    connect: Connect,
    handler: H,
) -> (Client, impl Future<Output = ()> + Send + 'static) {
    let (commands, inbox) = mpsc::unbounded_channel();
    let (status, watched) = watch::channel(ClientStatus::default());
    let run = async move {
        let mut handler = handler;
        let (node, saved) = (config.node.clone(), config.saved.clone().unwrap_or_default());
        let subscriber = Subscriber::restore(node, saved, &mut handler);
        Task { config, connect, handler, subscriber, inbox, status, epoch: 0 }.run().await;
    };
    (Client { commands, status: watched }, run)
}

impl ClientConfig {
    /// Default settings for these servers.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        ClientConfig {
            servers: servers.into_iter().map(Into::into).collect(),
            node: Node::default(),
            saved: None,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
            channel: ChannelOptions::default(),
            response_limit: 64 * 1024 * 1024,
        }
    }

    /// Sets the node's id.
    pub fn node_id(mut self, id: impl Into<String>) -> Self {
        self.node.id = id.into();
        self
    }

    /// Starts from what an earlier process kept.
    pub fn saved(mut self, saved: Saved) -> Self {
        self.saved = Some(saved);
        self
    }
}

impl Client {
    /// Wants all resources of a type.
    pub fn subscribe_all(&self, type_url: &str) {
        self.send(Command::SubscribeAll(type_url.to_owned()));
    }

    /// Wants resources by name; their absence is told too, each time they are asked for.
    pub fn subscribe<N: Into<Name>>(&self, type_url: &str, names: impl IntoIterator<Item = N>) {
        self.send(Command::Subscribe(type_url.to_owned(), names.into_iter().map(Into::into).collect()));
    }

    /// No longer wants resources by name. The handler is not told of their going.
    pub fn unsubscribe<N: Into<Name>>(&self, type_url: &str, names: impl IntoIterator<Item = N>) {
        self.send(Command::Unsubscribe(type_url.to_owned(), names.into_iter().map(Into::into).collect()));
    }

    /// Replaces the servers; a stream to one that is no longer listed is closed.
    pub fn set_servers(&self, servers: Vec<String>) {
        self.send(Command::Servers(servers));
    }

    /// Closes the stream, if one stands, and opens another, for example under a new certificate.
    pub fn reconnect(&self) {
        self.send(Command::Reconnect);
    }

    /// How the client stands, and every change of it.
    pub fn status(&self) -> watch::Receiver<ClientStatus> {
        self.status.clone()
    }

    /// Subscriptions and acked resources, to be stored. `None` when the client has ended.
    pub async fn saved(&self) -> Option<Saved> {
        let (reply, saved) = oneshot::channel();
        self.send(Command::Saved(reply));
        saved.await.ok()
    }

    fn send(&self, command: Command) {
        // A client that has ended wants nothing any more.
        let _ = self.commands.send(command);
    }
}

enum Command {
    SubscribeAll(String),
    Subscribe(String, Vec<Name>),
    Unsubscribe(String, Vec<Name>),
    Servers(Vec<String>),
    Reconnect,
    Saved(oneshot::Sender<Saved>),
}

struct Task<H> {
    config: ClientConfig,
    connect: Connect,
    handler: H,
    subscriber: Subscriber,
    inbox: mpsc::UnboundedReceiver<Command>,
    status: watch::Sender<ClientStatus>,
    epoch: u64,
}

/// Every handle is gone.
struct Abandoned;

/// What a command means for the stream that stands.
#[derive(PartialEq)]
enum Stream {
    Keep,
    Close,
}

impl<H: Handler> Task<H> {
    async fn run(mut self) {
        // Abandonment is the orderly end.
        let _ = self.streams().await;
    }

    async fn streams(&mut self) -> Result<(), Abandoned> {
        let (mut next, mut failures, mut rounds) = (0, 0, 0);
        loop {
            let Some(server) = self.server(next) else {
                self.until(std::future::pending::<()>()).await?;
                continue;
            };
            let responses = self.status.borrow().responses;
            let error = match self.open(&server).await? {
                Ok((requests, stream)) => self.follow(&server, requests, stream).await?,
                Err(status) => status,
            };
            self.subscriber.disconnected();
            let alive = self.status.borrow().responses > responses;
            let message = format!("{server}: {:?}: {}", error.code(), error.message());
            match alive {
                true => info!(server, error = message, "discovery stream ended"),
                false => warn!(server, error = message, "no discovery stream"),
            }
            self.status.send_modify(|status| {
                status.server = None;
                status.synced = false;
                status.last_error = Some(message);
            });
            next += 1;
            if alive {
                (failures, rounds) = (0, 0);
            }
            failures += 1;
            if failures >= self.config.servers.len() {
                let wait = tokio::time::sleep(self.config.backoff.sample(rounds));
                self.until(wait).await?;
                (failures, rounds) = (0, rounds + 1);
            }
        }
    }

    async fn open(
        &mut self,
        server: &str,
    ) -> Result<Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status>, Abandoned>
    {
        debug!(server, "opening a discovery stream");
        let (connect, options) = (self.connect.clone(), self.config.channel);
        let (limit, name) = (self.config.response_limit, server.to_owned());
        let (requests, outgoing) = mpsc::channel(QUEUE);
        // The first requests go out with the opening: some servers answer nothing before they have one.
        self.epoch += 1;
        self.subscriber.connected(StreamEpoch(self.epoch));
        while let Ok(room) = requests.try_reserve() {
            let Some(request) = self.subscriber.next_request() else {
                break;
            };
            room.send(request);
        }
        let opening = async move {
            let channel = channel(&name, connect, options).await.map_err(|e| Status::unavailable(reason(&e)))?;
            AggregatedDiscoveryClient::new(channel, limit).delta(ReceiverStream::new(outgoing)).await
        };
        // The connector is bounded by itself; this bounds a server that connects and then says nothing.
        let bound = options.connect_timeout * 2;
        let opened = self.until(tokio::time::timeout(bound, opening)).await?;
        let timed_out = || Err(Status::deadline_exceeded("no answer to opening a stream"));
        Ok(opened.map_or_else(timed_out, |opened| opened.unwrap_or_else(|_| timed_out())).map(|s| (requests, s)))
    }

    /// Drives the stream to its end; returns why it ended.
    async fn follow(
        &mut self,
        server: &str,
        requests: mpsc::Sender<DeltaDiscoveryRequest>,
        mut stream: Streaming<DeltaDiscoveryResponse>,
    ) -> Result<Status, Abandoned> {
        let epoch = StreamEpoch(self.epoch);
        self.status.send_modify(|status| status.server = Some(server.to_owned()));
        let mut waiting = None;
        loop {
            if waiting.is_none() {
                waiting = self.subscriber.next_request();
            }
            tokio::select! {
                room = requests.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                    (Ok(room), Some(request)) => room.send(request),
                    _ => return Ok(Status::unavailable("request stream closed")),
                },
                response = stream.message() => match response {
                    Ok(Some(response)) => self.response(epoch, response),
                    Ok(None) => return Ok(Status::unavailable("closed by the server")),
                    Err(status) => return Ok(status),
                },
                command = self.inbox.recv() => {
                    if self.command(command.ok_or(Abandoned)?) == Stream::Close {
                        return Ok(Status::cancelled("closed by this side"));
                    }
                }
            }
        }
    }

    fn response(&mut self, epoch: StreamEpoch, response: DeltaDiscoveryResponse) {
        let type_url = response.type_url.clone();
        let Some(applied) = self.subscriber.response(epoch, response, &mut self.handler) else {
            warn!(type_url, "a response of a type nobody asked for");
            return;
        };
        if applied.refused > 0 {
            warn!(type_url, refused = applied.refused, taken = applied.taken, "resources refused");
        }
        let subscriber = &self.subscriber;
        self.status.send_modify(|status| {
            status.synced = subscriber.is_synced();
            status.freshness = subscriber.freshness().to_owned();
            status.revision = subscriber.revision();
            status.responses += 1;
            status.last_error = None;
        });
    }

    /// Waits for something while taking commands. `None` when a command asks for another stream.
    async fn until<F: Future>(&mut self, future: F) -> Result<Option<F::Output>, Abandoned> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Ok(Some(output)),
                command = self.inbox.recv() => {
                    if self.command(command.ok_or(Abandoned)?) == Stream::Close {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn command(&mut self, command: Command) -> Stream {
        let subscriber = &mut self.subscriber;
        match command {
            Command::SubscribeAll(type_url) => subscriber.subscribe_all(&type_url),
            Command::Subscribe(type_url, names) => {
                names.into_iter().for_each(|name| subscriber.subscribe(&type_url, name));
            }
            Command::Unsubscribe(type_url, names) => {
                names.iter().for_each(|name| subscriber.unsubscribe(&type_url, name));
            }
            Command::Servers(servers) => {
                let current = self.status.borrow().server.clone();
                let keep = current.is_some_and(|current| servers.contains(&current));
                self.config.servers = servers;
                return if keep { Stream::Keep } else { Stream::Close };
            }
            Command::Reconnect => return Stream::Close,
            // Whoever asked may have gone.
            Command::Saved(reply) => drop(reply.send(subscriber.saved())),
        }
        let (synced, revision) = (self.subscriber.is_synced(), self.subscriber.revision());
        self.status.send_if_modified(|status| {
            let modified = (status.synced, status.revision) != (synced, revision);
            (status.synced, status.revision) = (synced, revision);
            modified
        });
        Stream::Keep
    }

    fn server(&self, next: usize) -> Option<String> {
        let servers = &self.config.servers;
        (!servers.is_empty()).then(|| servers[next % servers.len()].clone())
    }
}

/// The innermost cause says more than tonic's "transport error".
fn reason(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
