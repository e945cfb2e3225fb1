//! Route configurations: which request goes to which Envoy cluster.
//!
//! `plan_*` make inputs from route sets and services; [`route_configuration`] turns one into the resource. Invariants: rules
//! keep their written order and end with the first that takes everything; a domain stands in one virtual host only; a
//! known host without a matching rule is answered 404, an unknown one by `outboundTrafficPolicy`.

mod action;
mod domains;
mod gateway;
mod headers;
mod input;
mod matching;
mod resource;
mod retries;
mod rules;
mod sidecar;

pub use action::{FAULT_FILTER, no_fault};
pub use gateway::{GatewayServer, plan_gateway};
pub use input::RoutesInput;
pub use resource::{grpc_timeout, route_configuration};
pub use rules::{aggregated, backend, help_each_other};
pub use sidecar::{plan_host, plan_port};
