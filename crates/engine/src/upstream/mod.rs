//! Envoy clusters, their endpoints, and how to reach one.
//!
//! Invariant: an endpoint knows everything its connection needs (address or gateway hop, server name, identity to demand);
//! nothing is looked up by name again on the request path but the Envoy cluster itself.

mod cluster;
mod decode;
mod endpoint;
mod limits;

pub use cluster::{ClusterKind, EnvoyCluster, LbPolicy, TransportMatch, UpstreamProtocol, UpstreamTransport};
pub use endpoint::{
    Endpoint, EndpointAddress, EndpointHealth, EndpointKey, Endpoints, FairleadEndpoint, LocalityGroup, WorkloadLabel,
};
pub use limits::{CircuitBreakers, OutlierConfig};
