//! Istio 1.30's kinds, all fields, hand-written from the documented API.
//!
//! Never interprets: defaults, precedence and meaning belong to `resolve`. Invariant: an unknown field of these kinds
//! refuses the object.

pub mod authorization_policy;
pub mod destination_rule;
pub mod gateway;
pub mod http_route;
pub mod mesh_config;
pub mod mesh_networks;
pub mod peer_authentication;
pub mod proxy_config;
pub mod request_authentication;
pub mod selector;
pub mod service_entry;
pub mod sidecar;
pub mod string_match;
pub mod telemetry;
pub mod traffic_policy;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;

pub use authorization_policy::*;
pub use destination_rule::*;
pub use gateway::*;
pub use http_route::*;
pub use mesh_config::*;
pub use mesh_networks::*;
pub use peer_authentication::*;
pub use proxy_config::*;
pub use request_authentication::*;
pub use selector::*;
pub use service_entry::*;
pub use sidecar::*;
pub use string_match::*;
pub use telemetry::*;
pub use traffic_policy::*;
pub use virtual_service::*;
pub use workload_entry::*;
pub use workload_group::*;
