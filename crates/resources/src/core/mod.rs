//! Kubernetes' core kinds, as far as a mesh needs them.
//!
//! Never refuses a field it does not know: these kinds are Kubernetes', and most of them does not concern a mesh.

pub mod config_map;
pub mod endpoint_slice;
pub mod node;
pub mod pod;
pub mod secret;
pub mod service;

pub use config_map::ConfigMap;
pub use endpoint_slice::{EndpointConditions, EndpointPort, EndpointSlice, SliceEndpoint, TargetRef};
pub use node::{Namespace, Node, ServiceAccount};
pub use pod::{Container, ContainerPort, Pod, PodCondition, PodIp, PodSpec, PodStatus};
pub use secret::{Secret, SecretBytes};
pub use service::{LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus};
