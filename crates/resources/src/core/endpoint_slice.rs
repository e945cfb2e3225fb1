//! `EndpointSlice` (discovery.k8s.io/v1).
//!
//! Never merges slices: that is resolving.

use crate::meta::Meta;
use fairlead_model::Text;

/// The label that names the Service a slice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

message! {
    /// A part of a Service's endpoints.
    pub struct EndpointSlice {
        /// Identity; the label `kubernetes.io/service-name` names the Service.
        metadata: Meta,
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type: String,
        /// The endpoints.
        endpoints: Vec<SliceEndpoint>,
        /// The ports they all have.
        ports: Vec<EndpointPort>,
    }
}

message! {
    /// One endpoint of a slice.
    pub struct SliceEndpoint {
        /// Addresses, all of one workload.
        addresses: Vec<String>,
        /// Readiness.
        conditions: EndpointConditions,
        /// Its host name in a headless service.
        hostname: Option<Text>,
        /// Its node.
        node_name: Option<Text>,
        /// Its zone.
        zone: Option<Text>,
        /// The Pod behind it.
        target_ref: Option<TargetRef>,
    }
}

message! {
    /// Readiness of an endpoint.
    pub struct EndpointConditions {
        /// Unset counts as ready.
        ready: Option<bool>,
        /// Ready or terminating but still serving; unset follows `ready`.
        serving: Option<bool>,
        /// Being stopped.
        terminating: Option<bool>,
    }
}

message! {
    /// What an endpoint's address belongs to.
    pub struct TargetRef {
        /// `Pod`, normally.
        kind: Text,
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: Text,
    }
}

message! {
    /// A port all endpoints of a slice have.
    pub struct EndpointPort {
        /// The Service port's name.
        name: Option<String>,
        /// The number; unset means all ports.
        port: Option<u16>,
        /// `TCP`, `UDP` or `SCTP`.
        protocol: Option<String>,
        /// The application protocol.
        app_protocol: Option<String>,
    }
}

impl EndpointSlice {
    /// The Service this slice belongs to.
    pub fn service_name(&self) -> Option<&str> {
        self.metadata.label(SERVICE_NAME_LABEL)
    }
}
