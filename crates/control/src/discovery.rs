//! Who may have a discovery stream, and which views it gets.
//!
//! Invariant: what a client sees follows from its certificate; what it says of itself chooses an encoding at most.

use crate::authority::Authority;
use crate::caller::{Caller, Who};
use crate::event::{Client, Event};
use fairlead_model::ClientKind;
use fairlead_xds::server::{self, Discovery, Ended, Hello, Refusal, StreamId, Views};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Bytes of a client's own name that are kept.
const NAME: usize = 128;

pub struct Streams {
    pub authority: Arc<Authority>,
    pub events: mpsc::UnboundedSender<Event>,
}

#[tonic::async_trait]
impl Discovery<Caller> for Streams {
    async fn connect(&self, hello: Hello<Caller>) -> Result<Views, Refusal> {
        let who = hello.client.who(&self.authority);
        let Some(peer) = hello.client.peer else {
            return Err(Refusal::Denied("discovery needs a client certificate".into()));
        };
        let client = match who {
            Who::Proxy { workload, identity } => Client::Proxy {
                workload,
                identity: identity.to_string(),
                kind: client_kind(&hello.node.user_agent_name),
                version: hello.node.user_agent_name.chars().take(NAME).collect(),
            },
            Who::Peer { cluster } => Client::Peer { cluster: cluster.into() },
            Who::Nobody => return Err(Refusal::Denied(format!("{} is not believed here", peer.spiffe_id))),
            Who::Replica => return Err(Refusal::Denied("replicas of one control plane discover by themselves".into())),
            Who::Other { identity } => {
                return Err(Refusal::Denied(format!("{identity} is neither a proxy of this cluster nor a peer")));
            }
        };
        let (reply, answer) = oneshot::channel();
        self.send(Event::Connected { stream: hello.stream, peer, client, freshness: hello.freshness, reply });
        // No answer: it was dismissed before its first view, or the control plane stops.
        let views = answer.await.unwrap_or_else(|_| Err("this stream was ended before it was served".into()));
        if views.is_err() {
            // Nobody else tells the owner of the end of a stream that was never let in.
            self.send(Event::Disconnected { stream: hello.stream });
        }
        views.map_err(Refusal::Unavailable)
    }

    fn event(&self, stream: StreamId, event: server::Event) {
        match event {
            server::Event::Settled { generation, rejected } => {
                self.send(Event::Settled { stream, generation, rejected })
            }
            server::Event::Nacked { names, detail, .. } => self.send(Event::Nacked { stream, names, detail }),
            _ => {}
        }
    }

    fn disconnected(&self, stream: StreamId, why: Ended) {
        tracing::debug!(%stream, ?why, "stream ended");
        self.send(Event::Disconnected { stream });
    }
}

impl Streams {
    fn send(&self, event: Event) {
        // Fails only when the owner has stopped, and then the process ends.
        let _ = self.events.send(event);
    }
}

/// Stock Envoy calls itself `envoy`, gRPC clients `gRPC C-core` and the like; ours `fairlead`.
fn client_kind(user_agent: &str) -> ClientKind {
    if user_agent.eq_ignore_ascii_case("envoy") {
        ClientKind::Envoy
    } else if user_agent.to_ascii_lowercase().contains("grpc") {
        ClientKind::Grpc
    } else {
        ClientKind::Fairlead
    }
}
