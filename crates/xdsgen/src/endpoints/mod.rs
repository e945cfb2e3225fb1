//! Endpoint resources: who serves a destination, in which order of preference, and how each is reached.
//!
//! Split horizon: an endpoint in a network the caller does not reach is dialled through that network's gateways, as an
//! `envoy_internal_address` of its own (stock Envoy keeps only the first of two endpoints with one socket address).
//! Invariants: an endpoint keeps its own locality, labels and health whichever way it is reached; one that could only be
//! reached in plaintext through a gateway is left out; equal callers share one input.

mod assignment;
mod input;
pub mod locality;
mod priority;
pub mod reach;
mod weights;

pub use assignment::load_assignment;
pub use input::{Caller, Encryption, EndpointsInput, Target};
pub use locality::{self as topology, LocalityRule, of_caller as locality_rule};
