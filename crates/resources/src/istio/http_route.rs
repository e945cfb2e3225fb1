//! HTTP rules of a VirtualService.
//!
//! Never applies defaults. Source: Istio 1.30 `networking/v1alpha3/virtual_service.proto` as documented.

use std::collections::BTreeMap;

use super::{PortSelector, StringMatch};
use crate::field::{Double, Span};
use base64::Engine as _;

/// Words of gRPC statuses; the position is the number.
pub const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

message! {
    /// One HTTP rule.
    pub struct HttpRoute {
        /// Its name in logs.
        name: String,
        /// OR between blocks; empty matches everything.
        matches: Vec<HttpMatch> = "match",
        /// Destinations.
        route: Vec<HttpRouteDestination>,
        /// An answer with another address, instead of destinations.
        redirect: Option<HttpRedirect>,
        /// A literal answer, instead of destinations.
        direct_response: Option<HttpDirectResponse>,
        /// Another VirtualService continues this rule.
        delegate: Option<Delegate>,
        /// Changes of path and authority on the way to the destinations.
        rewrite: Option<HttpRewrite>,
        /// The whole request's limit; unset is the default, 0 disables.
        timeout: Option<Span>,
        /// Retries; unset is the mesh's default.
        retries: Option<HttpRetry>,
        /// Delays and failures for a share of the requests.
        fault: Option<HttpFaultInjection>,
        /// Not implemented.
        mirror: Option<Destination>,
        /// Not implemented.
        mirrors: Vec<HttpMirrorPolicy>,
        /// Removed from Istio; not implemented.
        mirror_percent: Option<u32>,
        /// Not implemented.
        mirror_percentage: Option<Percent>,
        /// Not implemented.
        cors_policy: Option<CorsPolicy>,
        /// Header operations.
        headers: Option<Headers>,
    } with {
        /// The rule is refused (a diagnostic says why): what it matches fails (HTTP 500, TCP reset) instead of falling
        /// through to a rule that was not meant for it.
        refused: bool,
    }
}

message! {
    /// AND of an HTTP rule's conditions.
    pub struct HttpMatch {
        /// Its name in logs.
        name: String,
        /// Path.
        uri: Option<StringMatch>,
        /// Scheme.
        scheme: Option<StringMatch>,
        /// Method.
        method: Option<StringMatch>,
        /// Host header or `:authority`.
        authority: Option<StringMatch>,
        /// Headers, lower-case keys.
        headers: BTreeMap<String, StringMatch>,
        /// Listener port; 0 is any.
        port: u32,
        /// Labels of the caller.
        source_labels: BTreeMap<String, String>,
        /// Overrides the VirtualService's gateways.
        gateways: Vec<String>,
        /// Query parameters.
        query_params: BTreeMap<String, StringMatch>,
        /// Exact and prefix `uri` without regard to case.
        ignore_uri_case: bool,
        /// Headers that must not match.
        without_headers: BTreeMap<String, StringMatch>,
        /// Namespace of the caller.
        source_namespace: String,
        /// Envoy statistics only.
        stat_prefix: String,
    }
}

message! {
    /// A weighted HTTP destination.
    pub struct HttpRouteDestination {
        /// Where to.
        destination: Option<Destination>,
        /// Relative; ignored for a single destination, 0 beside others takes nothing.
        weight: i32,
        /// Header operations of this destination, after the rule's.
        headers: Option<Headers>,
    }
}

message! {
    /// A service, subset and port.
    pub struct Destination {
        /// Service name; short names are in the rule's namespace.
        host: String,
        /// A subset of the DestinationRule.
        subset: String,
        /// Needed if the service has several ports and the listener's is not one of them.
        port: Option<PortSelector>,
    }
}

message! {
    /// Header operations in both directions.
    pub struct Headers {
        /// Before forwarding.
        request: Option<HeaderOperations>,
        /// Before answering.
        response: Option<HeaderOperations>,
    }
}

message! {
    /// Header operations in one direction, applied as remove, set, add.
    pub struct HeaderOperations {
        /// Overwrite.
        set: BTreeMap<String, String>,
        /// Append.
        add: BTreeMap<String, String>,
        /// Remove.
        remove: Vec<String>,
    }
}

message! {
    /// Retries of an HTTP rule.
    pub struct HttpRetry {
        /// Tries beyond the first; 0 disables.
        attempts: i32,
        /// Limit of each try; unset is the rule's timeout.
        per_try_timeout: Option<Span>,
        /// Envoy's retry conditions, separated by commas; integers are status codes.
        retry_on: String,
        /// Whether other localities may be tried.
        retry_remote_localities: Option<bool>,
        /// Whether hosts already tried are avoided; default true.
        retry_ignore_previous_hosts: Option<bool>,
        /// Base of the back-off; default 25 ms.
        backoff: Option<Span>,
    }
}

message! {
    /// A redirect answer.
    pub struct HttpRedirect {
        /// The new path.
        uri: String,
        /// The new authority.
        authority: String,
        /// The new port.
        port: Option<u32>,
        /// How the port is derived.
        derive_port: Option<RedirectPort>,
        /// The new scheme.
        scheme: String,
        /// The status; 301 by default.
        redirect_code: u32,
    }
}

words! {
    /// How a redirect's port is derived.
    pub enum RedirectPort {
        /// By the protocol.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        /// As requested.
        FromRequestPort = "FROM_REQUEST_PORT",
    }
}

message! {
    /// An answer without a destination.
    pub struct HttpDirectResponse {
        /// Its status.
        status: u32,
        /// Its body.
        body: Option<HttpBody>,
    }
}

message! {
    /// A literal body.
    pub struct HttpBody {
        /// Text.
        string: Option<String>,
        /// Bytes, base64.
        bytes: Option<String>,
    }
}

impl HttpBody {
    /// The body's bytes; `None` if `bytes` is not base64.
    pub fn content(&self) -> Option<Vec<u8>> {
        match (&self.string, &self.bytes) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(encoded)) => base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok(),
            (None, None) => Some(Vec::new()),
        }
    }
}

message! {
    /// A VirtualService that continues this rule.
    pub struct Delegate {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    }
}

message! {
    /// Changes of path and authority.
    pub struct HttpRewrite {
        /// The new path or prefix.
        uri: String,
        /// The new authority.
        authority: String,
        /// By regular expression.
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// A path rewritten by regular expression.
    pub struct RegexRewrite {
        /// RE2.
        matches: String = "match",
        /// With `\1` groups.
        rewrite: String,
    }
}

message! {
    /// A percentage with a fraction.
    pub struct Percent {
        /// 0 to 100.
        value: Double,
    }
}

message! {
    /// One mirror.
    pub struct HttpMirrorPolicy {
        /// Where to.
        destination: Option<Destination>,
        /// How many; 100 % if unset.
        percentage: Option<Percent>,
    }
}

message! {
    /// Injected faults.
    pub struct HttpFaultInjection {
        /// Delays.
        delay: Option<FaultDelay>,
        /// Aborts.
        abort: Option<FaultAbort>,
    }
}

message! {
    /// An injected delay.
    pub struct FaultDelay {
        /// Deprecated whole percentage.
        percent: Option<i32>,
        /// How long.
        fixed_delay: Option<Span>,
        /// Never implemented by Istio.
        exponential_delay: Option<Span>,
        /// How many; none if unset.
        percentage: Option<Percent>,
    }
}

message! {
    /// An injected failure.
    pub struct FaultAbort {
        /// HTTP status.
        http_status: Option<i32>,
        /// gRPC status name.
        grpc_status: Option<String>,
        /// Never implemented by Istio.
        http2_error: Option<String>,
        /// How many; none if unset.
        percentage: Option<Percent>,
    }
}

message! {
    /// Cross-origin rules.
    pub struct CorsPolicy {
        /// Deprecated list of exact origins.
        allow_origin: Vec<String>,
        /// Origins.
        allow_origins: Vec<StringMatch>,
        /// Methods.
        allow_methods: Vec<String>,
        /// Headers a caller may send.
        allow_headers: Vec<String>,
        /// Headers a caller may read.
        expose_headers: Vec<String>,
        /// How long a preflight answer holds.
        max_age: Option<Span>,
        /// Whether credentials may be sent.
        allow_credentials: Option<bool>,
        /// What happens to preflights that match no origin.
        unmatched_preflights: UnmatchedPreflights,
    }
}

words! {
    /// What happens to preflights that match no origin.
    pub enum UnmatchedPreflights {
        /// The default: forward.
        Unspecified = "UNSPECIFIED",
        /// Forward to the destination.
        Forward = "FORWARD",
        /// Answer without headers.
        Ignore = "IGNORE",
    }
}
