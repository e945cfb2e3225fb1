//! Every decision of the data plane, each a pure function of a snapshot and what is known of a connection or request.
//!
//! Invariant: no clock, no randomness of its own, no state: what a decision needs is an argument.

mod authorize;
mod backend;
mod client_address;
mod filter_chain;
mod listener;
mod route;

pub use authorize::{Allowed, Denied, ShadowVerdict, authorize};
pub use backend::{
    backend_shares, choose_backend, choose_tcp_backend, connect_attempts, sibling_shares, tcp_backend_shares,
    tcp_sibling_shares,
};
pub use client_address::{client_address, forwarded_hop};
pub use filter_chain::filter_chain;
pub use listener::listener;
pub use route::{RouteOutcome, candidates, route};
