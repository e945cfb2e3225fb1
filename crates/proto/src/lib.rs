//! The protobuf messages Fairlead speaks: Envoy's v3 types under tidy names, and the few messages that are ours.
//!
//! This crate holds shapes only: it must never decide anything, read a clock or open a socket. What it keeps
//! true: a message written here is byte-compatible with the `.proto` it stands for (our discovery messages are
//! Envoy's, with `bytes` where Envoy nests an `Any`, so that a resource is encoded once and copied never).
//!
//! ```
//! use fairlead_proto::{any, envoy, ResourceType};
//!
//! // Envoy messages travel in `Any`s; the type url comes from the message itself.
//! let listener = envoy::listener::Listener { name: "15006".into(), ..Default::default() };
//! let packed = any::pack(&listener);
//! assert_eq!(packed.type_url, ResourceType::Listener.url());
//! assert_eq!(any::unpack::<envoy::listener::Listener>(&packed)?.name, "15006");
//!
//! // Our own resources share one envelope: JSON of a model type, and the revision of its shape.
//! let body = fairlead_proto::JsonResource::new(1, br#"{"cluster":"east"}"#.to_vec());
//! let encoded = body.to_any_bytes(ResourceType::PeerMember);
//! let (kind, again) = fairlead_proto::JsonResource::from_any_bytes(&encoded)?;
//! assert_eq!((kind, again), (ResourceType::PeerMember, body));
//! # Ok::<(), any::AnyError>(())
//! ```

pub mod any;
pub mod certificates;
pub mod discovery;
pub mod envoy;
pub mod join;
pub mod reports;

mod grpc;
mod json;
mod outgoing;
mod resource_type;

pub use grpc::{BoxStream, Reply};
pub use json::{JsonMessage, JsonResource};
pub use resource_type::{ResourceType, UnknownResourceType};
