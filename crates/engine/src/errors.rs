//! Every way an exchange can fail, and what each means to the caller, the log, the metrics and the retry decision.
//!
//! Invariant: one exhaustive match; adding a kind does not compile until all of its columns are written. Flags and details
//! are Envoy's.

use crate::retry::RetryKind;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyError {
    /// No filter chain for the connection: closed before a byte.
    FilterChainNotFound,
    /// No virtual host or route for the request.
    RouteNotFound,
    /// The route configuration has not come.
    RoutesMissing,
    /// The route's Envoy cluster is not known (yet, or its name could not be asked for).
    ClusterNotFound,
    /// No endpoint that may be chosen.
    NoHealthyUpstream,
    /// The upstream refused the connection, or could not be reached.
    ConnectFailed,
    ConnectTimeout,
    /// The TLS handshake with the upstream failed, its certificate or identity included.
    UpstreamTls,
    /// A limit of the Envoy cluster's circuit breakers.
    Overflow,
    /// The upstream refused the stream without looking at it (REFUSED_STREAM, GOAWAY before it).
    RefusedStream,
    /// The upstream reset the stream before the response head.
    UpstreamReset,
    /// The upstream's connection ended before the response head.
    UpstreamClosed,
    /// The response broke off after its head.
    UpstreamClosedAfterHead,
    /// The upstream does not speak HTTP properly.
    UpstreamProtocol,
    /// The path to the upstream was shown dead while waiting for the head.
    PathDead,
    /// This proxy reset the upstream stream.
    LocalReset,
    /// The route's time-out.
    RouteTimeout,
    PerTryTimeout,
    /// Nothing moved on the stream for too long.
    StreamIdle,
    /// The request took too long to come.
    RequestTimeout,
    RequestHeadTimeout,
    /// An authorisation policy denied it.
    Denied,
    RateLimited,
    /// The caller went away.
    DownstreamGone,
    /// The caller does not speak HTTP properly, smuggling attempts included.
    DownstreamProtocol,
    DownstreamHeadTooLarge,
    PathRejected,
    MissingHost,
    /// HTTP/1.0 where it is not accepted.
    LowVersion,
    UpgradeRefused,
    BodyTooLarge,
    /// This proxy is overloaded or draining and takes nothing new.
    Overloaded,
    /// This proxy's own readiness check failed.
    LocalUnhealthy,
    /// The route could not be decoded: it answers for what it matches.
    RouteBroken,
}

/// What a kind of failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// HTTP status of the answer; 0 when there is nobody or no way to answer.
    pub status: u16,
    /// gRPC status of the answer.
    pub grpc_status: u32,
    /// Envoy's short response flag; `-` for none.
    pub flag: &'static str,
    /// Envoy's response code details.
    pub details: &'static str,
    /// Value of metric labels that tell failures apart.
    pub label: &'static str,
    /// What the retry decision takes it for; `None` is never retried.
    pub retry: Option<RetryKind>,
}

impl ProxyError {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::FilterChainNotFound,
        Self::RouteNotFound,
        Self::RoutesMissing,
        Self::ClusterNotFound,
        Self::NoHealthyUpstream,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamTls,
        Self::Overflow,
        Self::RefusedStream,
        Self::UpstreamReset,
        Self::UpstreamClosed,
        Self::UpstreamClosedAfterHead,
        Self::UpstreamProtocol,
        Self::PathDead,
        Self::LocalReset,
        Self::RouteTimeout,
        Self::PerTryTimeout,
        Self::StreamIdle,
        Self::RequestTimeout,
        Self::RequestHeadTimeout,
        Self::Denied,
        Self::RateLimited,
        Self::DownstreamGone,
        Self::DownstreamProtocol,
        Self::DownstreamHeadTooLarge,
        Self::PathRejected,
        Self::MissingHost,
        Self::LowVersion,
        Self::UpgradeRefused,
        Self::BodyTooLarge,
        Self::Overloaded,
        Self::LocalUnhealthy,
        Self::RouteBroken,
    ];

    /// Status, flag, details, label and retry kind.
    pub const fn meaning(self) -> Meaning {
        use RetryKind as R;
        let (status, flag, details, label, retry) = match self {
            Self::FilterChainNotFound => (0, "NR", "filter_chain_not_found", "filter_chain_not_found", None),
            Self::RouteNotFound => (404, "NR", "route_not_found", "route_not_found", None),
            Self::RoutesMissing => (404, "NR", "route_configuration_not_found", "routes_missing", None),
            Self::ClusterNotFound => (503, "NC", "cluster_not_found", "cluster_not_found", None),
            Self::NoHealthyUpstream => (503, "UH", "no_healthy_upstream", "no_healthy_upstream", None),
            Self::ConnectFailed => (
                503,
                "UF",
                "upstream_reset_before_response_started{remote_connection_failure}",
                "connect_failed",
                Some(R::ConnectFailure),
            ),
            Self::ConnectTimeout => (
                503,
                "UF",
                "upstream_reset_before_response_started{connection_timeout}",
                "connect_timeout",
                Some(R::ConnectFailure),
            ),
            Self::UpstreamTls => (
                503,
                "UF",
                "upstream_reset_before_response_started{remote_connection_failure|TLS_error}",
                "upstream_tls",
                Some(R::ConnectFailure),
            ),
            Self::Overflow => (503, "UO", "upstream_reset_before_response_started{overflow}", "overflow", None),
            Self::RefusedStream => (
                503,
                "UR",
                "upstream_reset_before_response_started{remote_refused_stream_reset}",
                "refused_stream",
                Some(R::RefusedStream),
            ),
            Self::UpstreamReset => (
                503,
                "UR",
                "upstream_reset_before_response_started{remote_reset}",
                "upstream_reset",
                Some(R::ResetBeforeHead),
            ),
            Self::UpstreamClosed => (
                503,
                "UC",
                "upstream_reset_before_response_started{connection_termination}",
                "upstream_closed",
                Some(R::ResetBeforeHead),
            ),
            Self::UpstreamClosedAfterHead => (
                0,
                "UC",
                "upstream_reset_after_response_started{connection_termination}",
                "upstream_closed_after_head",
                Some(R::ResetAfterHead),
            ),
            Self::UpstreamProtocol => (
                502,
                "UPE",
                "upstream_reset_before_response_started{protocol_error}",
                "upstream_protocol",
                Some(R::ResetBeforeHead),
            ),
            Self::PathDead => {
                (503, "UC", "upstream_reset_before_response_started{path_dead}", "path_dead", Some(R::PathDead))
            }
            Self::LocalReset => (503, "LR", "upstream_reset_before_response_started{local_reset}", "local_reset", None),
            Self::RouteTimeout => (504, "UT", "response_timeout", "route_timeout", None),
            Self::PerTryTimeout => (504, "UT", "upstream_per_try_timeout", "per_try_timeout", Some(R::PerTryTimeout)),
            Self::StreamIdle => (504, "SI", "stream_idle_timeout", "stream_idle", None),
            Self::RequestTimeout => (408, "-", "request_overall_timeout", "request_timeout", None),
            Self::RequestHeadTimeout => (408, "-", "request_header_timeout", "request_head_timeout", None),
            Self::Denied => (403, "-", "rbac_access_denied_matched_policy[none]", "denied", None),
            Self::RateLimited => (429, "RL", "request_rate_limited", "rate_limited", None),
            Self::DownstreamGone => (0, "DC", "downstream_remote_disconnect", "downstream_gone", None),
            Self::DownstreamProtocol => (400, "DPE", "http1.codec_error", "downstream_protocol", None),
            Self::DownstreamHeadTooLarge => {
                (431, "DPE", "request_headers_too_large", "downstream_head_too_large", None)
            }
            Self::PathRejected => (400, "-", "path_normalization_failed", "path_rejected", None),
            Self::MissingHost => (400, "-", "missing_host_header", "missing_host", None),
            Self::LowVersion => (426, "-", "low_version", "low_version", None),
            Self::UpgradeRefused => (403, "-", "upgrade_failed", "upgrade_refused", None),
            Self::BodyTooLarge => (413, "-", "request_payload_too_large", "body_too_large", None),
            Self::Overloaded => (503, "OM", "overload", "overloaded", None),
            Self::LocalUnhealthy => (503, "LH", "health_check_failed", "local_unhealthy", None),
            Self::RouteBroken => (500, "-", "direct_response", "route_broken", None),
        };
        Meaning { status, grpc_status: grpc_status_of(status), flag, details, label, retry }
    }
}

/// gRPC status for an HTTP status a proxy answers with (Envoy's `Grpc::Utility::httpToGrpcStatus`).
pub const fn grpc_status_of(http_status: u16) -> u32 {
    match http_status {
        // INTERNAL
        400 => 13,
        // UNAUTHENTICATED
        401 => 16,
        // PERMISSION_DENIED
        403 => 7,
        // UNIMPLEMENTED
        404 => 12,
        // UNAVAILABLE
        429 | 502 | 503 | 504 => 14,
        // UNKNOWN
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn kinds_are_all_listed_and_told_apart() {
        let labels: BTreeSet<_> = ProxyError::ALL.iter().map(|kind| kind.meaning().label).collect();
        assert_eq!(labels.len(), ProxyError::ALL.len());
        // The last variant is in the list, so the list is as long as the enum.
        assert_eq!(ProxyError::ALL.len(), ProxyError::RouteBroken as usize + 1);
    }

    #[test]
    fn grpc_answers() {
        assert_eq!(ProxyError::Denied.meaning().grpc_status, 7);
        assert_eq!(ProxyError::NoHealthyUpstream.meaning().grpc_status, 14);
        assert_eq!(ProxyError::RouteNotFound.meaning().grpc_status, 12);
    }
}
