//! Istio's standard metrics.
//!
//! Label values are put together once per distinct (source, destination, outcome) and worker; after that a request costs a
//! few counter increments. Invariant: no label is ever empty; what is unknown is `unknown`, and clusters are always known.

use super::flags::Flags;
use super::peer::PeerInfo;
use fairlead_runtime::metrics::{Counter, Family, Histogram, Registry};

/// Which side reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Source,
    Destination,
}

/// The families of one proxy.
#[derive(Clone, Debug)]
pub struct Families {
    requests: Family<Counter>,
    duration: Family<Histogram>,
    request_bytes: Family<Histogram>,
    response_bytes: Family<Histogram>,
    request_messages: Family<Counter>,
    response_messages: Family<Counter>,
    opened: Family<Counter>,
    closed: Family<Counter>,
    sent: Family<Counter>,
    received: Family<Counter>,
}

/// Handles of one outcome of HTTP requests.
#[derive(Debug)]
pub struct HttpSeries {
    pub requests: Counter,
    pub duration: Histogram,
    pub request_bytes: Histogram,
    pub response_bytes: Histogram,
    pub request_messages: Counter,
    pub response_messages: Counter,
}

/// Handles of one outcome of TCP connections.
#[derive(Clone, Debug)]
pub struct TcpSeries {
    pub opened: Counter,
    pub closed: Counter,
    /// Istio's "sent" is the response direction.
    pub sent: Counter,
    pub received: Counter,
}

/// Who called whom.
#[derive(Clone, Debug)]
pub struct Ends<'a> {
    pub reporter: Reporter,
    pub source: &'a PeerInfo,
    pub destination: &'a PeerInfo,
    pub service: &'a str,
    pub service_name: &'a str,
    pub service_namespace: &'a str,
    pub mutual_tls: bool,
}

const COMMON: [&str; 20] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
];
const TAIL: [&str; 3] = ["request_protocol", "response_flags", "connection_security_policy"];
const HTTP_TAIL: [&str; 2] = ["response_code", "grpc_response_status"];

/// Istio's buckets (Envoy's default histogram buckets).
const MILLISECONDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
const BYTES: [f64; 10] =
    [64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

impl Families {
    pub fn new(registry: &Registry) -> Self {
        let tcp: Vec<&str> = COMMON.iter().chain(&TAIL).copied().collect();
        let http: Vec<&str> = tcp.iter().chain(&HTTP_TAIL).copied().collect();
        Self {
            requests: registry.counter("istio_requests_total", "HTTP and gRPC requests", &http),
            duration: registry.histogram(
                "istio_request_duration_milliseconds",
                "Duration of requests",
                &http,
                &MILLISECONDS,
            ),
            request_bytes: registry.histogram("istio_request_bytes", "Size of request bodies", &http, &BYTES),
            response_bytes: registry.histogram("istio_response_bytes", "Size of response bodies", &http, &BYTES),
            request_messages: registry.counter("istio_request_messages_total", "gRPC messages sent by callers", &http),
            response_messages: registry.counter("istio_response_messages_total", "gRPC messages sent back", &http),
            opened: registry.counter("istio_tcp_connections_opened_total", "TCP connections opened", &tcp),
            closed: registry.counter("istio_tcp_connections_closed_total", "TCP connections closed", &tcp),
            sent: registry.counter("istio_tcp_sent_bytes_total", "Bytes sent in the response direction", &tcp),
            received: registry.counter("istio_tcp_received_bytes_total", "Bytes received from callers", &tcp),
        }
    }

    /// Handles for one outcome of HTTP requests.
    pub fn http(&self, ends: &Ends<'_>, protocol: &str, flags: Flags, code: u16, grpc: Option<i32>) -> HttpSeries {
        let flags = flags.to_string();
        let code = code.to_string();
        let grpc = grpc.map(|status| status.to_string()).unwrap_or_default();
        let mut labels = common(ends, protocol, &flags);
        labels.push(&code);
        labels.push(&grpc);
        HttpSeries {
            requests: self.requests.with(&labels),
            duration: self.duration.with(&labels),
            request_bytes: self.request_bytes.with(&labels),
            response_bytes: self.response_bytes.with(&labels),
            request_messages: self.request_messages.with(&labels),
            response_messages: self.response_messages.with(&labels),
        }
    }

    /// Handles for one outcome of TCP connections.
    pub fn tcp(&self, ends: &Ends<'_>, flags: Flags) -> TcpSeries {
        let flags = flags.to_string();
        let labels = common(ends, "tcp", &flags);
        TcpSeries {
            opened: self.opened.with(&labels),
            closed: self.closed.with(&labels),
            sent: self.sent.with(&labels),
            received: self.received.with(&labels),
        }
    }
}

impl Reporter {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

fn common<'a>(ends: &Ends<'a>, protocol: &'a str, flags: &'a str) -> Vec<&'a str> {
    fn known(text: &str) -> &str {
        if text.is_empty() { "unknown" } else { text }
    }
    let (s, d) = (ends.source, ends.destination);
    // Istio reports the security policy on the callee's side only.
    let security = match (ends.reporter, ends.mutual_tls) {
        (Reporter::Source, _) => "unknown",
        (Reporter::Destination, true) => "mutual_tls",
        (Reporter::Destination, false) => "none",
    };
    vec![
        ends.reporter.name(),
        known(&s.workload),
        known(&s.canonical_service),
        known(&s.canonical_revision),
        known(&s.namespace),
        known(&s.principal),
        known(&s.canonical_service),
        known(&s.canonical_revision),
        known(&s.cluster),
        known(&d.workload),
        known(&d.namespace),
        known(&d.principal),
        known(&d.canonical_service),
        known(&d.canonical_revision),
        known(ends.service),
        known(ends.service_name),
        known(ends.service_namespace),
        known(&d.canonical_service),
        known(&d.canonical_revision),
        known(&d.cluster),
        protocol,
        flags,
        security,
    ]
}
