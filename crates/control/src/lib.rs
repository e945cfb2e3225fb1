//! The control plane of one cluster: objects in, discovery out; certificates; peers; what operators ask.
//!
//! One task ([`owner`]) owns all state and a closed set of events; everything else is I/O around it. Never touches a request.
//! Invariants: local traffic never waits for a peer; a restart changes no version; what was revoked stays revoked.

pub mod codes;
pub mod scale;

mod admin;
mod authority;
mod caller;
mod certificates;
mod connections;
mod dial;
mod discovery;
mod event;
mod freshness;
mod joining;
mod keeper;
mod kubernetes;
mod last_good;
mod limiter;
mod lines;
mod listen;
mod listing;
mod load_balancers;
mod mesh_file;
mod metrics;
mod offer;
mod options;
mod owner;
mod peers;
mod places;
mod publisher;
mod quiet;
mod replicas;
mod reports;
mod run;
mod source;
mod status;
mod store;
mod streams;
mod webhook;
mod world;

pub use options::{ControlOptions, ControlTimings, HomeOptions, KubernetesOptions, Source};
pub use run::{Listeners, run, serve};
