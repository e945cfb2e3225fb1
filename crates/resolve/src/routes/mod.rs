//! VirtualServices with names expanded and defaults applied.
//!
//! Never drops or reorders a rule. Precedence (Istio): route sets are sorted oldest first, then by name, then by
//! namespace; objects without a creation time are the youngest. For a sidecar the first that covers a host takes it whole;
//! on a gateway the rules of several follow each other.

mod action;
mod backends;
mod delegate;
pub(crate) mod host;
mod http;
mod l4;
mod route_set;

pub(crate) use delegate::{Delegates, Undelivered};
pub(crate) use route_set::route_set;
