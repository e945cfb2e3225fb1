//! A data-plane worker: one thread, one runtime, its own connections, pools and caches.
//!
//! Nothing of a request is shared between workers but counters and the published world. Invariant: a request pins one
//! [`crate::upstream::World`] for each try and never sees half of an update.

mod accept;
mod connection;
mod drain;
mod in_flight;
mod listeners;
mod live;
mod pools;
mod run;

pub use connection::Connection;
pub use drain::Stage;
pub use in_flight::Departed;
pub use pools::{PoolKey, PoolKind};
pub use run::{BoundAddresses, Busy, Worker, WorkerEvent, WorkerHandle, spawn};
