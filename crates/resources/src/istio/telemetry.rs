//! `Telemetry`: tracing, metrics, access logs. Decoded and validated, not applied yet.

use std::collections::BTreeMap;

use super::{PolicySelector, TargetReference};
use crate::field::{Double, Span};
use crate::meta::Meta;

message! {
    /// Telemetry of workloads.
    pub struct Telemetry {
        /// Identity.
        metadata: Meta,
        /// The settings.
        spec: TelemetrySpec,
    }
}

message! {
    /// `Telemetry.spec`.
    pub struct TelemetrySpec {
        /// Workloads.
        selector: Option<PolicySelector>,
        /// Deprecated single form of `target_refs`.
        target_ref: Option<TargetReference>,
        /// Objects it is attached to instead.
        target_refs: Vec<TargetReference>,
        /// Tracing.
        tracing: Vec<Tracing>,
        /// Metrics.
        metrics: Vec<Metrics>,
        /// Access logs.
        access_logging: Vec<AccessLogging>,
    }
}

words! {
    /// Which side of a call.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER",
        /// Caller.
        Client = "CLIENT",
        /// Callee.
        Server = "SERVER",
    }
}

message! {
    /// A provider of `MeshConfig.extensionProviders`.
    pub struct ProviderRef {
        /// Its name.
        name: String,
    }
}

message! {
    /// Tracing.
    pub struct Tracing {
        /// Side.
        selection: Option<TracingSelector> = "match",
        /// Providers; one at most.
        providers: Vec<ProviderRef>,
        /// 0 to 100.
        random_sampling_percentage: Option<Double>,
        /// Spans off, context still forwarded.
        disable_span_reporting: Option<bool>,
        /// Own tags.
        custom_tags: BTreeMap<String, CustomTag>,
        /// Istio's tags.
        enable_istio_tags: Option<bool>,
        /// Deprecated.
        use_request_id_for_trace_sampling: Option<bool>,
        /// Context not forwarded.
        disable_context_propagation: Option<bool>,
    }
}

message! {
    /// Side of tracing.
    pub struct TracingSelector {
        /// Side.
        mode: WorkloadMode,
    }
}

message! {
    /// One tag.
    pub struct CustomTag {
        /// A literal.
        literal: Option<LiteralTag>,
        /// From the environment.
        environment: Option<EnvironmentTag>,
        /// From a request header.
        header: Option<HeaderTag>,
        /// From an access-log format.
        formatter: Option<FormatterTag>,
    }
}

message! {
    /// A literal tag.
    pub struct LiteralTag {
        /// Value.
        value: String,
    }
}

message! {
    /// A tag from the environment.
    pub struct EnvironmentTag {
        /// Variable.
        name: String,
        /// Otherwise.
        default_value: String,
    }
}

message! {
    /// A tag from a header.
    pub struct HeaderTag {
        /// Header.
        name: String,
        /// Otherwise.
        default_value: String,
    }
}

message! {
    /// A tag from a format.
    pub struct FormatterTag {
        /// Format.
        value: String,
    }
}

message! {
    /// Metrics.
    pub struct Metrics {
        /// Providers.
        providers: Vec<ProviderRef>,
        /// Overrides in order.
        overrides: Vec<MetricsOverrides>,
        /// Of TCP metrics; default 5 s.
        reporting_interval: Option<Span>,
    }
}

message! {
    /// One override.
    pub struct MetricsOverrides {
        /// Which.
        selection: Option<MetricSelector> = "match",
        /// Off.
        disabled: Option<bool>,
        /// Tags.
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    /// Which metrics.
    pub struct MetricSelector {
        /// A standard metric.
        metric: Option<IstioMetric>,
        /// Another metric.
        custom_metric: Option<String>,
        /// Side.
        mode: WorkloadMode,
    }
}

words! {
    /// Standard metrics.
    pub enum IstioMetric {
        /// All.
        All = "ALL_METRICS",
        /// Requests.
        RequestCount = "REQUEST_COUNT",
        /// Duration.
        RequestDuration = "REQUEST_DURATION",
        /// Request bytes.
        RequestSize = "REQUEST_SIZE",
        /// Response bytes.
        ResponseSize = "RESPONSE_SIZE",
        /// Connections opened.
        TcpOpened = "TCP_OPENED_CONNECTIONS",
        /// Connections closed.
        TcpClosed = "TCP_CLOSED_CONNECTIONS",
        /// Bytes sent.
        TcpSent = "TCP_SENT_BYTES",
        /// Bytes received.
        TcpReceived = "TCP_RECEIVED_BYTES",
        /// gRPC request messages.
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES",
        /// gRPC response messages.
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES",
    }
}

message! {
    /// One tag's override.
    pub struct TagOverride {
        /// What.
        operation: TagOperation,
        /// CEL.
        value: String,
    }
}

words! {
    /// What is done to a tag.
    pub enum TagOperation {
        /// Set.
        Upsert = "UPSERT",
        /// Remove.
        Remove = "REMOVE",
    }
}

message! {
    /// Access logs.
    pub struct AccessLogging {
        /// Side.
        selection: Option<LogSelector> = "match",
        /// Providers.
        providers: Vec<ProviderRef>,
        /// Off.
        disabled: Option<bool>,
        /// CEL.
        filter: Option<LogFilter>,
    }
}

message! {
    /// Side of access logs.
    pub struct LogSelector {
        /// Side.
        mode: WorkloadMode,
    }
}

message! {
    /// Which calls are logged.
    pub struct LogFilter {
        /// CEL.
        expression: String,
    }
}
