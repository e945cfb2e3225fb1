//! `Workload`: a process to run in stand-alone mode.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::field::IntOrString;
use crate::meta::Meta;

message! {
    /// A process; replica N of `w` is the workload `w-N`.
    pub struct Workload {
        /// Identity; its labels are the workloads' labels.
        metadata: Meta,
        /// The process.
        spec: WorkloadSpec,
    }
}

message! {
    /// `Workload.spec`.
    pub struct WorkloadSpec {
        /// Program and arguments; empty runs `fairlead echo` on the ports.
        command: Vec<String>,
        /// Further arguments.
        args: Vec<String>,
        /// How many; default 1.
        replicas: Option<u32>,
        /// Ports it listens on.
        ports: Vec<WorkloadPort>,
        /// Labels, beside those of the metadata.
        labels: BTreeMap<String, String>,
        /// Its account; default `default`.
        service_account: Option<String>,
        /// `region/zone/subzone`.
        locality: Option<String>,
        /// Its network.
        network: Option<String>,
        /// Environment.
        env: Vec<EnvVar>,
        /// Default: the first port accepts.
        readiness_probe: Option<Probe>,
        /// Default true.
        sidecar: Option<bool>,
        /// Load-balancing weight; default 1.
        weight: Option<u32>,
    }
}

message! {
    /// A port of a process; also `8080` alone.
    pub struct PortFields {
        /// Name.
        name: String,
        /// Number.
        port: u16,
        /// TCP or UDP.
        protocol: String,
    }
}

/// A port of a process: a number, or name and number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct WorkloadPort {
    /// Name; may be empty.
    pub name: String,
    /// Number.
    pub port: u16,
    /// `TCP` (default when empty) or `UDP`.
    pub protocol: String,
}

message! {
    /// A variable.
    pub struct EnvVar {
        /// Name.
        name: String,
        /// Value.
        value: String,
    }
}

message! {
    /// A probe, as in Kubernetes.
    pub struct Probe {
        /// By HTTP.
        http_get: Option<HttpGetAction>,
        /// By connecting.
        tcp_socket: Option<TcpSocketAction>,
        /// By a command.
        exec: Option<ExecAction>,
        /// By gRPC health checking.
        grpc: Option<GrpcAction>,
        /// Before the first.
        initial_delay_seconds: Option<u32>,
        /// Default 1.
        timeout_seconds: Option<u32>,
        /// Default 1: a dead program leaves rotation within seconds.
        period_seconds: Option<u32>,
        /// Default 1.
        success_threshold: Option<u32>,
        /// Default 2.
        failure_threshold: Option<u32>,
    }
}

message! {
    /// An HTTP probe.
    pub struct HttpGetAction {
        /// Path; default `/`.
        path: String,
        /// Port, by number or name.
        port: IntOrString,
        /// Host header and address: this machine by default; a loopback address or `localhost`.
        host: String,
        /// HTTP or HTTPS; a certificate is not verified.
        scheme: String,
        /// Request headers; `Host` takes the place of `host`.
        http_headers: Vec<HttpHeader>,
    }
}

message! {
    /// A header of an HTTP probe.
    pub struct HttpHeader {
        /// Name.
        name: String,
        /// Value.
        value: String,
    }
}

message! {
    /// A connecting probe.
    pub struct TcpSocketAction {
        /// Port, by number or name.
        port: IntOrString,
        /// Address: this machine by default; a loopback address or `localhost`.
        host: String,
    }
}

message! {
    /// A command probe.
    pub struct ExecAction {
        /// Command and arguments.
        command: Vec<String>,
    }
}

message! {
    /// A gRPC probe.
    pub struct GrpcAction {
        /// Port.
        port: u16,
        /// Service.
        service: String,
    }
}

/// Where a probe with this `host` asks: `Some(None)` where its own default says, None on a host that is not this machine, which is
/// not implemented.
#[must_use]
pub fn probe_address(host: &str) -> Option<Option<Ipv4Addr>> {
    match host {
        "" => Some(None),
        "localhost" => Some(Some(Ipv4Addr::LOCALHOST)),
        other => other.parse::<Ipv4Addr>().ok().filter(Ipv4Addr::is_loopback).map(Some),
    }
}

impl crate::field::FromNode for WorkloadPort {
    fn from_node(node: &crate::yaml::Node, reading: &mut crate::field::Reading) -> Self {
        if matches!(node.value, crate::yaml::Value::Int(_)) {
            let port = u16::from_node(node, reading);
            return Self { port, ..Self::default() };
        }
        let fields = PortFields::from_node(node, reading);
        Self { name: fields.name, port: fields.port, protocol: fields.protocol }
    }

    fn shape() -> crate::field::Shape {
        PortFields::shape()
    }
}

impl Workload {
    /// All labels: the spec's over the metadata's.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = (*self.metadata.labels).clone();
        labels.extend(self.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        labels
    }
}
