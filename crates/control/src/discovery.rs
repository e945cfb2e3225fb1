//! Who may have a discovery stream, and which views it gets.
//!
//! Invariant: what a client sees follows from its certificate; what it says of itself chooses an encoding at most.

use crate::authority::Authority;
use crate::caller::{Caller, Who};
use crate::event::Event;
use fairlead_model::ClientKind;
use fairlead_xds::server::{self, Discovery, Ended, Hello, Refusal, StreamId, Views};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

pub struct Streams {
    pub authority: Arc<Authority>,
    pub events: mpsc::UnboundedSender<Event>,
}

#[tonic::async_trait]
impl Discovery<Caller> for Streams {
    async fn connect(&self, hello: Hello<Caller>) -> Result<Views, Refusal> {
        let gone = |_| Refusal::Unavailable("the control plane is stopping".into());
        match hello.client.who(&self.authority) {
            Who::Proxy { workload, identity } => {
                let (reply, answer) = oneshot::channel();
                let client = client_kind(&hello.node.user_agent_name);
                self.send(Event::ProxyConnected {
                    stream: hello.stream,
                    workload,
                    identity: identity.to_string(),
                    client,
                    version: hello.node.user_agent_name.clone(),
                    reply,
                });
                answer.await.map_err(gone)?.map_err(Refusal::Unavailable)
            }
            Who::Peer { cluster } => {
                let (reply, answer) = oneshot::channel();
                self.send(Event::PeerConnected { stream: hello.stream, cluster: cluster.into(), reply });
                answer.await.map_err(gone)
            }
            Who::Nobody => Err(Refusal::Denied("discovery needs a client certificate".into())),
            Who::Other { identity } => Err(Refusal::Denied(format!("{identity} is neither a proxy of this cluster nor a peer"))),
        }
    }

    fn event(&self, stream: StreamId, event: server::Event) {
        match event {
            server::Event::Settled { generation, rejected } => self.send(Event::Settled { stream, generation, rejected }),
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
