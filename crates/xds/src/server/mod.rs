//! The serving side of discovery.
//!
//! [`Session`] is the protocol of one stream as a state machine: requests and views in, responses and events out.
//! Both encodings share its one subscription core. [`DiscoveryService`] drives sessions over tonic and knows nothing
//! of the protocol.

mod delta;
mod event;
mod holdings;
mod incoming;
mod service;
mod session;
mod sotw;
mod subscription;
mod wish;

pub use event::{Discovery, Ended, Event, Hello, Refusal, StreamId, Views};
pub use incoming::{Identified, builder};
pub use service::{DiscoveryService, ServiceConfig};
pub use session::{Encoding, Session, Standing, Violation};
