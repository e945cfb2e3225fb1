//! `WorkloadGroup`: the template of automatically registered WorkloadEntries. Decoded and validated, not applied yet.

use std::collections::BTreeMap;

use super::WorkloadEntrySpec;
use crate::meta::Meta;

message! {
    /// Template of WorkloadEntries.
    pub struct WorkloadGroup {
        /// Identity.
        metadata: Meta,
        /// The template.
        spec: WorkloadGroupSpec,
    }
}

message! {
    /// `WorkloadGroup.spec`.
    pub struct WorkloadGroupSpec {
        /// Labels and annotations of its entries.
        metadata: Option<WorkloadGroupMeta>,
        /// Their spec, without address.
        template: Option<WorkloadEntrySpec>,
        /// Their readiness probe.
        probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Labels and annotations of entries.
    pub struct WorkloadGroupMeta {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
    }
}

message! {
    /// A readiness probe, as in Kubernetes.
    pub struct ReadinessProbe {
        /// Before the first.
        initial_delay_seconds: i32,
        /// Default 1.
        timeout_seconds: i32,
        /// Default 10.
        period_seconds: i32,
        /// Default 1.
        success_threshold: i32,
        /// Default 3.
        failure_threshold: i32,
        /// By HTTP.
        http_get: Option<HttpGetProbe>,
        /// By connecting.
        tcp_socket: Option<TcpSocketProbe>,
        /// By a command.
        exec: Option<ExecProbe>,
        /// By gRPC health checking.
        grpc: Option<GrpcProbe>,
    }
}

message! {
    /// An HTTP probe.
    pub struct HttpGetProbe {
        /// Path.
        path: String,
        /// Port.
        port: u32,
        /// Host header and address.
        host: String,
        /// `HTTP` or `HTTPS`.
        scheme: String,
        /// Headers.
        http_headers: Vec<ProbeHeader>,
    }
}

message! {
    /// A header of an HTTP probe.
    pub struct ProbeHeader {
        /// Name.
        name: String,
        /// Value.
        value: String,
    }
}

message! {
    /// A connecting probe.
    pub struct TcpSocketProbe {
        /// Address.
        host: String,
        /// Port.
        port: u32,
    }
}

message! {
    /// A command probe.
    pub struct ExecProbe {
        /// Command and arguments.
        command: Vec<String>,
    }
}

message! {
    /// A gRPC probe.
    pub struct GrpcProbe {
        /// Port.
        port: u32,
        /// Service.
        service: Option<String>,
    }
}
