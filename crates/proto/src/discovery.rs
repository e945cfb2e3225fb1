//! Envoy's aggregated discovery service, with resources as encoded bytes.
//!
//! The messages are those of `envoy.service.discovery.v3`, field by field, except that a resource's `Any` is
//! `bytes` (the same on the wire): a resource is encoded once, shared by every stream, and copied only into the
//! socket. Maps are ordered, so equal messages have equal encodings. Fields nobody here reads (locators, aliases,
//! TTLs) are left out and skipped when they come.

use crate::envoy::core::{ControlPlane, Node};
use crate::envoy::rpc;
use crate::grpc::{self, BoxStream, HttpReply, Reply};
use bytes::Bytes;
use prost::Message;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; on the first request of a stream only.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Type of the resources.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to add to the subscription; `*` for all.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to take out of it.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// Versions the client has from an earlier stream, a map by name; on the first request of a type. As it stands on the wire: thousands
    /// of clients may come back at once with thousands each.
    #[prost(message, repeated, tag = "5")]
    pub initial_resource_versions: Vec<HeldVersion>,
    /// The response this acks or nacks; empty when it does neither.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Set when it nacks.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<rpc::Status>,
}

/// An entry of `initial_resource_versions`, in the encoding of maps; of two of one name the later counts.
#[derive(Clone, PartialEq, Message)]
pub struct HeldVersion {
    /// Name of the resource, as UTF-8.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Its version, likewise.
    #[prost(bytes = "bytes", tag = "2")]
    pub version: Bytes,
}

impl HeldVersion {
    /// A version of a resource.
    pub fn new(name: &str, version: &str) -> Self {
        Self { name: Bytes::copy_from_slice(name.as_bytes()), version: Bytes::copy_from_slice(version.as_bytes()) }
    }
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryResponse {
    /// Version of the whole, opaque.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New and changed resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Type of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be named by the ack.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that do not exist (any more).
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Who answers.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
    /// Why named resources cannot be had.
    #[prost(message, repeated, tag = "9")]
    pub resource_errors: Vec<ResourceError>,
}

/// `envoy.service.discovery.v3.DiscoveryRequest`
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// Version last applied; empty at first.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Who asks; on the first request of a stream only.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// The whole subscription; `*` for all.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// Type of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// The response this acks or nacks; empty at first.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Set when it nacks.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<rpc::Status>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryResponse {
    /// Version of the state of this type.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Encoded `google.protobuf.Any`s.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// Type of the resources.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be named by the ack.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Who answers.
    #[prost(message, optional, tag = "6")]
    pub control_plane: Option<ControlPlane>,
    /// Why named resources cannot be had.
    #[prost(message, repeated, tag = "7")]
    pub resource_errors: Vec<ResourceError>,
}

/// `envoy.service.discovery.v3.Resource`
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Resource {
    /// Version of this resource.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Encoded `google.protobuf.Any`; empty where Envoy leaves the field unset.
    #[prost(bytes = "bytes", tag = "2")]
    pub resource: Bytes,
    /// Name of this resource.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `envoy.service.discovery.v3.ResourceError`
#[derive(Clone, PartialEq, Message)]
pub struct ResourceError {
    /// The resource that cannot be had.
    #[prost(message, optional, tag = "1")]
    pub resource_name: Option<ResourceName>,
    /// Why.
    #[prost(message, optional, tag = "2")]
    pub error_detail: Option<rpc::Status>,
}

/// `envoy.service.discovery.v3.ResourceName`
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ResourceName {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// What a discovery server implements.
#[tonic::async_trait]
pub trait AggregatedDiscovery: Send + Sync + 'static {
    /// State of the world: each response carries all resources of its type (clusters, listeners) or the changed
    /// ones (endpoints, routes).
    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DiscoveryResponse>>, Status>;

    /// Delta: each response carries changes.
    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DeltaDiscoveryResponse>>, Status>;
}

/// The service, to be added to a `tonic` router.
#[derive(Clone)]
pub struct AggregatedDiscoveryServer {
    discovery: Arc<dyn AggregatedDiscovery>,
    request_limit: usize,
}

impl AggregatedDiscoveryServer {
    /// Serves `discovery`; a request above `request_limit` bytes ends its stream.
    pub fn new(discovery: Arc<dyn AggregatedDiscovery>, request_limit: usize) -> Self {
        AggregatedDiscoveryServer { discovery, request_limit }
    }
}

impl NamedService for AggregatedDiscoveryServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for AggregatedDiscoveryServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = HttpReply;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        grpc::always_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> HttpReply {
        let discovery = self.discovery.clone();
        match request.uri().path() {
            DELTA => grpc::streaming(request, self.request_limit, move |r| -> Reply<BoxStream<_>> {
                let discovery = discovery.clone();
                Box::pin(async move { discovery.delta_aggregated_resources(r).await })
            }),
            SOTW => grpc::streaming(request, self.request_limit, move |r| -> Reply<BoxStream<_>> {
                let discovery = discovery.clone();
                Box::pin(async move { discovery.stream_aggregated_resources(r).await })
            }),
            _ => grpc::unimplemented(),
        }
    }
}

/// Opens discovery streams.
#[derive(Clone, Debug)]
pub struct AggregatedDiscoveryClient {
    channel: Channel,
    response_limit: usize,
}

impl AggregatedDiscoveryClient {
    /// A client over any channel; a response above `response_limit` bytes ends its stream.
    pub fn new(channel: Channel, response_limit: usize) -> Self {
        AggregatedDiscoveryClient { channel, response_limit }
    }

    /// Opens a delta stream.
    ///
    /// # Errors
    /// The server's refusal, or `UNAVAILABLE` when it cannot be reached.
    pub async fn delta<S>(&self, requests: S) -> Result<Streaming<DeltaDiscoveryResponse>, Status>
    where
        S: tokio_stream::Stream<Item = DeltaDiscoveryRequest> + Send + 'static,
    {
        let stream = grpc::call_streaming(self.channel.clone(), self.response_limit, DELTA, requests).await?;
        Ok(stream.into_inner())
    }

    /// Opens a state-of-the-world stream.
    ///
    /// # Errors
    /// The server's refusal, or `UNAVAILABLE` when it cannot be reached.
    pub async fn state_of_the_world<S>(&self, requests: S) -> Result<Streaming<DiscoveryResponse>, Status>
    where
        S: tokio_stream::Stream<Item = DiscoveryRequest> + Send + 'static,
    {
        let stream = grpc::call_streaming(self.channel.clone(), self.response_limit, SOTW, requests).await?;
        Ok(stream.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::any;
    use crate::envoy::all::envoy::service::discovery::v3 as generated;
    use crate::envoy::listener::Listener;

    #[test]
    fn messages_are_envoys_on_the_wire() {
        let listener = Listener { name: "15006".into(), ..Default::default() };
        let ours = DeltaDiscoveryResponse {
            system_version_info: "7".into(),
            type_url: "t".into(),
            nonce: "n".into(),
            removed_resources: vec!["gone".into()],
            resources: vec![Resource {
                name: "15006".into(),
                version: "v".into(),
                resource: any::pack_bytes(&listener),
            }],
            resource_errors: vec![ResourceError {
                resource_name: Some(ResourceName { name: "x".into() }),
                error_detail: Some(rpc::Status { code: 5, message: "none".into(), ..Default::default() }),
            }],
            ..Default::default()
        };
        let bytes = ours.encode_to_vec();
        let theirs = generated::DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(theirs.resources[0].resource.as_ref().unwrap(), &any::pack(&listener));
        assert_eq!(theirs.resource_errors[0].resource_name.as_ref().unwrap().name, "x");
        assert_eq!(DeltaDiscoveryResponse::decode(theirs.encode_to_vec().as_slice()).unwrap(), ours);

        let request = DeltaDiscoveryRequest {
            type_url: "t".into(),
            resource_names_subscribe: vec!["*".into()],
            initial_resource_versions: vec![HeldVersion::new("a", "1")],
            response_nonce: "n".into(),
            ..Default::default()
        };
        let theirs = generated::DeltaDiscoveryRequest::decode(request.encode_to_vec().as_slice()).unwrap();
        assert_eq!(theirs.initial_resource_versions["a"], "1");
        assert_eq!(DeltaDiscoveryRequest::decode(theirs.encode_to_vec().as_slice()).unwrap(), request);

        let sotw = DiscoveryResponse {
            version_info: "1".into(),
            type_url: "t".into(),
            nonce: "n".into(),
            resources: vec![any::pack_bytes(&listener)],
            ..Default::default()
        };
        let theirs = generated::DiscoveryResponse::decode(sotw.encode_to_vec().as_slice()).unwrap();
        assert_eq!(theirs.resources, [any::pack(&listener)]);
    }
}
