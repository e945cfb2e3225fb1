//! Which workloads or objects a policy is for: label selectors, `targetRefs`, ports by number.

use std::collections::BTreeMap;

message! {
    /// `selector` of the security and telemetry kinds (`type.v1beta1.WorkloadSelector`).
    pub struct PolicySelector {
        /// All must match; empty selects the whole namespace.
        match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// `workloadSelector` of the networking kinds (`networking.WorkloadSelector`).
    pub struct LabelSelector {
        /// All must match.
        labels: BTreeMap<String, String>,
    }
}

message! {
    /// A reference to the object a policy is attached to.
    pub struct TargetReference {
        /// API group; empty is core.
        group: String,
        /// `Gateway`, `GatewayClass`, `Service` or `ServiceEntry`.
        kind: String,
        /// Its name.
        name: String,
        /// Must be empty or the policy's own.
        namespace: String,
    }
}

message! {
    /// A port by number.
    pub struct PortSelector {
        /// The number.
        number: u32,
    }
}

message! {
    /// A port of a Gateway, ServiceEntry or Sidecar.
    pub struct Port {
        /// 1 to 65535; 0 where a Unix socket is bound.
        number: u32,
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS, ...
        protocol: String,
        /// Its name.
        name: String,
        /// ServiceEntry and Gateway only, deprecated on Gateways.
        target_port: u32,
    }
}
