//! The asking side of discovery.
//!
//! [`Subscriber`] is the protocol as a state machine; [`client`] drives one over tonic, from server to server. What
//! was acked is kept, so that a new stream, on any server, or a new process that [`Subscriber::restore`]s it, is
//! sent differences only.

mod connection;
mod handler;
mod saved;
mod subscriber;
mod task;

pub use connection::{ChannelOptions, Connect, Io, Transport, channel, connector};
pub use handler::{Handler, Rejection, Unavailable, Update};
pub use saved::{Saved, SavedError, SavedType};
pub use subscriber::{Applied, StreamEpoch, Subscriber};
pub use task::{Client, ClientConfig, ClientStatus, client};
