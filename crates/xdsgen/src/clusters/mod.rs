//! Envoy clusters: how a proxy treats one destination.
//!
//! [`plan`] makes inputs from the scope, [`cluster`] turns one into the resource. Invariant: endpoints are no part of an
//! input, so that a change of endpoints touches endpoint resources only; the one exception are the identities that stock
//! Envoy must be told (a `BTreeSet`, which does not change when a replica does).

mod input;
mod outbound;
pub mod plan;
mod protocol;

pub use input::{Certified, ClusterInput, Upstream};
pub use outbound::cluster;
