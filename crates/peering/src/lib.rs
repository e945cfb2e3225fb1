//! What control planes tell each other: a cluster's summary as discovery resources, and back.
//!
//! One delta stream from each control plane to each peer, over the `xds` crate. Never sees Envoy types and never decides what may
//! be told (the sender's `export` did). Invariants: a resource's version is a digest of its content, so a reconnect sends
//! differences only; what cannot be read is refused by name and the last good version stays.

mod lease;
mod progress;
mod receive;
mod send;

use fairlead_proto::ResourceType;

pub use lease::Lease;
pub use progress::{Content, Heard, Told};
pub use receive::{PeerUpdate, Receiver};
pub use send::{PeerView, Sender};

/// What a peering stream carries, in the order in which it is told.
pub const KINDS: [ResourceType; 3] =
    [ResourceType::PeerMember, ResourceType::PeerServiceSummary, ResourceType::PeerEndpoint];

/// Name of the resource in which a member describes itself.
const SELF: &str = "self";
/// Name of the resource that says how many services and endpoints are told, so that the receiver knows when it has them all.
const COUNTS: &str = "counts";
/// Name of the resource that tells the sender's wall clock when its stream began, in Unix seconds.
const CLOCK: &str = "clock";
/// Name of the resource that says how far the sender has come, see [`progress`].
const PROGRESS: &str = "progress";
/// Prefix of resources that carry signed statements about members.
const STATEMENT: &str = "statement/";
/// Revision of the JSON shapes; a receiver refuses a later one.
const REVISION: u32 = 1;

/// See [`COUNTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Counts {
    services: usize,
    endpoints: usize,
}

#[cfg(test)]
mod tests;
