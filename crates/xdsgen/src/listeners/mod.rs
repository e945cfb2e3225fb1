//! Listeners: which connection is served how.
//!
//! The plans of a role (`outbound`, `inbound`, `gateway`, `east_west`) say what is listened for; [`listener`] turns one
//! input into the resource. Invariant: a chain that guards access carries the workload's policies, DENY before ALLOW.

pub mod east_west;
pub mod gateway;
pub mod grpc;
mod http;
pub mod inbound;
mod input;
mod l4;
pub mod outbound;
mod resource;

pub use input::{ListenerInput, gateway_hop};
pub use resource::listener;
