//! Envoy clusters at run time: members, counters, paths, and connections to them.
//!
//! The [`Conductor`] on the control thread turns snapshots and what workers notice into [`World`]s; workers only read.
//! Invariant: what must outlive a push (connections, counters, ejections, paths) is kept by the conductor, by key.

mod conductor;
mod connect;
mod member;
mod memory;
mod names;
mod paths;
mod probe;
mod simple_tls;
mod stats;
mod trouble;
mod world;

pub use conductor::{Command, Conductor};
pub use connect::{Call, ConnectFailure, Connected, Purpose, connect, is_http1, is_http2, passthrough, way};
pub use member::Member;
pub use paths::Paths;
pub use simple_tls::{SimpleTls, unverified};
pub use stats::{Admitted, ClusterStats, InUse, Resource};
pub use trouble::Trouble;
pub use world::{Upstream, World};
