//! The control plane of one cluster: objects in, discovery out; certificates; peers; what operators ask.
//!
//! One task ([`owner`]) owns all state and a closed set of events; everything else is I/O around it. Never touches a request.
//! Invariants: local traffic never waits for a peer; a restart changes no version; what was revoked stays revoked.

pub mod admin;
mod authority;
mod caller;
mod certificates;
mod discovery;
mod event;
mod joining;
mod options;
mod owner;
mod peers;
mod proxies;
mod reports;
mod run;
mod store;
mod world;

pub use options::ControlOptions;
pub use run::run;
