//! Whether a failed try is repeated, and after how long.
//!
//! Two rules. With an explicit policy, and in profile `istio`, Envoy's `RetryStateImpl` word for word. With Fairlead's
//! default (`RoutePlan::default_retry`): GET, HEAD and OPTIONS on every try that brought no response head, other methods
//! only where the request was never sent or the callee's proxy says its program never got it.
//! Invariant: nothing is retried once a response head has been passed on, or when the request body cannot be sent again.

use crate::request::RequestHead;
use crate::route::{RetryPolicy, RoutePlan};
use http::{HeaderMap, Method};
use std::time::Duration;

/// A try that failed, seen from the request it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Tries made so far, this one included: 1 after the first.
    pub number: u32,
    pub failure: Failure<'a>,
    pub head: &'a RequestHead<'a>,
    /// Whether anything of the request was written to an upstream in this try.
    pub request_sent: bool,
    /// Whether the whole request can be sent again: it has no body, or all that was sent of it is kept.
    pub replayable: bool,
    /// The caller's own retries of this Envoy cluster in flight are at their limit (circuit breaker `max_retries`).
    pub retries_overflow: bool,
}

/// How a try failed.
#[derive(Clone, Copy, Debug)]
pub enum Failure<'a> {
    Kind(RetryKind),
    /// A response head came.
    Response {
        status: u16,
        /// `grpc-status` in the head (a response of trailers only).
        grpc_status: Option<u32>,
        headers: &'a HeaderMap,
        /// The callee's Fairlead proxy marked it: its program never got the request.
        not_delivered: bool,
    },
}

/// Failures without a response head, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryKind {
    ConnectFailure,
    RefusedStream,
    ResetBeforeHead,
    /// The path to the endpoint was shown dead while waiting for the head.
    PathDead,
    PerTryTimeout,
    ResetAfterHead,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this long, elsewhere as [`crate::balance::Avoid::of`] says.
    Retry {
        back_off: Duration,
    },
    Stop(Stop),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This failure is none that is retried.
    NotRetriable,
    /// It is, but the tries are used up: response flag `URX`.
    LimitExceeded,
    /// It is, but the request cannot be sent again.
    BodyGone,
    /// It is, but too many retries are in flight: response flag `UO`.
    Overflow,
}

/// Decides about one failed try. `random` is uniform over `u64`.
pub fn decide(plan: &RoutePlan, attempt: &Attempt<'_>, random: u64) -> Decision {
    let Some(policy) = plan.retry.as_deref() else { return Decision::Stop(Stop::NotRetriable) };
    let retriable = if plan.default_retry { by_default(attempt) } else { by_policy(policy, attempt) };
    if !retriable {
        return Decision::Stop(Stop::NotRetriable);
    }
    if attempt.number > policy.num_retries {
        return Decision::Stop(Stop::LimitExceeded);
    }
    if !attempt.replayable {
        return Decision::Stop(Stop::BodyGone);
    }
    if attempt.retries_overflow {
        return Decision::Stop(Stop::Overflow);
    }
    Decision::Retry { back_off: back_off(policy, attempt.number, random) }
}

/// Back-off before retry `number` (1 for the first): full jitter below `base × 2^(number-1)`, at most the maximum.
pub fn back_off(policy: &RetryPolicy, number: u32, random: u64) -> Duration {
    let bound = policy.back_off_base.saturating_mul(1u32.checked_shl(number.saturating_sub(1)).unwrap_or(u32::MAX));
    let bound = bound.min(policy.back_off_max).as_nanos().min(u128::from(u64::MAX)) as u64;
    Duration::from_nanos(random % bound.max(1))
}

/// Whether a method may be repeated without asking: GET, HEAD, OPTIONS.
pub fn is_safe(method: &str) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].iter().any(|safe| safe.as_str() == method)
}

fn by_default(attempt: &Attempt<'_>) -> bool {
    match attempt.failure {
        Failure::Response { not_delivered, .. } => not_delivered,
        Failure::Kind(RetryKind::ConnectFailure | RetryKind::RefusedStream) => true,
        Failure::Kind(RetryKind::ResetBeforeHead | RetryKind::PathDead) => {
            !attempt.request_sent || is_safe(attempt.head.method)
        }
        Failure::Kind(RetryKind::PerTryTimeout | RetryKind::ResetAfterHead) => false,
    }
}

fn by_policy(policy: &RetryPolicy, attempt: &Attempt<'_>) -> bool {
    let wanted = &policy.retriable_request_headers;
    if !wanted.is_empty() && !wanted.iter().any(|matcher| matcher.is_match(attempt.head)) {
        return false;
    }
    match attempt.failure {
        Failure::Kind(kind) => kind_retriable(policy, kind, attempt.request_sent),
        Failure::Response { status, grpc_status, headers, .. } => {
            response_retriable(policy, attempt.head, status, grpc_status, headers)
        }
    }
}

/// Envoy's `wouldRetryFromReset`: `5xx` and `gateway-error` count every reset, for it would become a 503.
fn kind_retriable(policy: &RetryPolicy, kind: RetryKind, request_sent: bool) -> bool {
    let on = &policy.on;
    if kind == RetryKind::ResetAfterHead {
        return false;
    }
    on.reset
        || on.server_error
        || on.gateway_error
        || (on.reset_before_request && !request_sent)
        || (on.refused_stream && kind == RetryKind::RefusedStream)
        || (on.connect_failure && kind == RetryKind::ConnectFailure)
}

/// Envoy's `wouldRetryFromHeaders`.
fn response_retriable(
    policy: &RetryPolicy,
    head: &RequestHead<'_>,
    status: u16,
    grpc_status: Option<u32>,
    headers: &HeaderMap,
) -> bool {
    let on = &policy.on;
    if headers.contains_key("x-envoy-ratelimited") {
        return on.envoy_ratelimited;
    }
    let by_header = || {
        // Matchers read a request head; a response's headers are looked at through one.
        let response = RequestHead { headers, ..*head };
        policy.retriable_headers.iter().any(|matcher| matcher.is_match(&response))
    };
    let by_grpc = match grpc_status {
        Some(1) => on.grpc_cancelled,
        Some(4) => on.grpc_deadline_exceeded,
        Some(8) => on.grpc_resource_exhausted,
        Some(13) => on.grpc_internal,
        Some(14) => on.grpc_unavailable,
        _ => false,
    };
    (on.server_error && (500..600).contains(&status))
        || (on.gateway_error && matches!(status, 502..=504))
        || (on.retriable_4xx && status == 409)
        || (on.retriable_status_codes && policy.retriable_status_codes.contains(&status))
        || (on.retriable_headers && by_header())
        || by_grpc
}
