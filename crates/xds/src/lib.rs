//! Discovery, both sides: how resources get from those who make them to those who use them, and stay in step.
//!
//! Envoy's xDS over one aggregated stream, delta or state of the world. The same code serves proxies (ours, Envoy,
//! gRPC) and carries what control planes tell each other. It must never see what it carries: a resource is a name,
//! a version and bytes, under a type url that is only compared. [`server::Session`] and [`client::Subscriber`] are
//! state machines without I/O, clock or task; [`server::DiscoveryService`] and [`client::client`] are the thin
//! shells that drive them over tonic.
//!
//! What the crate promises, tested with lost, reordered, duplicated and cut streams (`convergence`): once edits
//! stop and a stream stands, the client holds exactly what the server offers it of what it asked for, and the
//! server's books of what the client took are right.
//!
//! # Serving
//!
//! Implement [`server::Discovery`]: it says who may have a stream and gives each one a channel of views; every view
//! sent into the channel is a new state of everything that client may see.
//!
//! ```
//! use fairlead_xds::server::{Discovery, DiscoveryService, Ended, Event, Hello, Refusal, StreamId, Views};
//! use fairlead_xds::{Resource, ResourceView, Snapshot};
//! use std::sync::Arc;
//! use tokio::sync::watch;
//!
//! /// What the TLS layer knows of a client.
//! #[derive(Clone)]
//! struct Peer { identity: String }
//!
//! struct Everything(watch::Sender<Arc<dyn ResourceView>>);
//!
//! #[tonic::async_trait]
//! impl Discovery<Peer> for Everything {
//!     async fn connect(&self, hello: Hello<Peer>) -> Result<Views, Refusal> {
//!         if hello.client.identity.is_empty() {
//!             return Err(Refusal::Denied("no identity".to_owned()));
//!         }
//!         Ok(self.0.subscribe())
//!     }
//!     fn event(&self, _: StreamId, event: Event) { println!("{event:?}"); }
//!     fn disconnected(&self, _: StreamId, _: Ended) {}
//! }
//!
//! let first = Snapshot::new(1).with("example/Greeting", [Resource::new("hello", "v1", &b"world"[..])]);
//! let (views, _) = watch::channel(Arc::new(first) as Arc<dyn ResourceView>);
//! let service = DiscoveryService::new(Arc::new(Everything(views)), Default::default());
//! let router = fairlead_xds::server::builder().add_service(service.into_server());
//! # drop(router); // .serve_with_incoming(stream of fairlead_xds::server::Identified<Peer>)
//! ```
//!
//! # Subscribing
//!
//! Implement [`client::Handler`], give [`client::client`] a way to connect, and spawn the future it returns.
//!
//! ```
//! use fairlead_xds::client::{self, ClientConfig, Handler, Rejection, Update};
//!
//! struct Print;
//!
//! impl Handler for Print {
//!     fn apply(&mut self, update: Update<'_>) -> Vec<Rejection> {
//!         for resource in update.upserts {
//!             println!("{} {} is now {}", update.type_url, resource.name, resource.version);
//!         }
//!         Vec::new() // nothing refused: everything is acked
//!     }
//! }
//!
//! let connect = client::connector(|server: String| async move { tokio::net::TcpStream::connect(server).await });
//! let config = ClientConfig::new(["192.0.2.1:15012", "192.0.2.2:15012"]).node_id("east/shop/cart-0");
//! let (handle, run) = client::client(config, connect, Print);
//! handle.subscribe_all("example/Greeting");
//! handle.subscribe("example/OnDemand", ["one", "two"]);
//! // tasks.spawn("discovery", run);
//! # drop(run);
//! ```

pub mod client;
pub mod server;

#[cfg(test)]
mod convergence;
mod faults;
mod nack;
mod resource;
mod rules;
mod view;

pub use resource::{Name, Resource, Resources, Version};
pub use rules::{Limits, TypeRules};
pub use view::{Absence, ResourceView, Snapshot};

/// The name that stands for every resource of a type.
pub const WILDCARD: &str = "*";

/// Key of the node's metadata under which a client says how new its last acked state was.
pub const FRESHNESS_KEY: &str = "fairlead.freshness";
