//! `envoy.config.route.v3.RetryPolicy`, its words parsed into flags.

use crate::error::{DecodeError, Decoded};
use crate::matching::HeaderMatch;
use crate::wire;
use fairlead_proto::any;
use fairlead_proto::envoy::all::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use fairlead_proto::envoy::route as proto;
use std::time::Duration;

/// When and how a failed try is repeated; decided by [`crate::retry`].
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub on: RetryOn,
    /// Tries beyond the first. Envoy's default is 1.
    pub num_retries: u32,
    /// `None`: the route's time-out alone.
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub retriable_status_codes: Vec<u16>,
    /// Response headers that make a response retriable (with the word `retriable-headers`); any of them.
    pub retriable_headers: Vec<HeaderMatch>,
    /// Only requests that match one of these are retried; empty means all.
    pub retriable_request_headers: Vec<HeaderMatch>,
    /// Do not choose endpoints that were tried before (`envoy.retry_host_predicates.previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// How often choosing an endpoint is repeated for that, before any is taken. Envoy's default is 1.
    pub host_selection_attempts: u32,
    /// After so many tries go to priorities that were not tried (`envoy.retry_priorities.previous_priorities`); 0: never.
    pub avoid_previous_priorities: u32,
    /// Back-off n is random below `min(base × (2^n − 1), max)`. Envoy's defaults are 25 ms and ten times the base.
    pub back_off_base: Duration,
    pub back_off_max: Duration,
}

/// The words of `retry_on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// `5xx`
    pub server_error: bool,
    /// `gateway-error`: 502, 503, 504
    pub gateway_error: bool,
    pub reset: bool,
    /// `reset-before-request`: nothing of the request was sent
    pub reset_before_request: bool,
    pub connect_failure: bool,
    /// `envoy-ratelimited`: the response carries `x-envoy-ratelimited`
    pub envoy_ratelimited: bool,
    /// `retriable-4xx`: 409
    pub retriable_4xx: bool,
    pub refused_stream: bool,
    pub retriable_status_codes: bool,
    pub retriable_headers: bool,
    pub http3_post_connect_failure: bool,
    /// gRPC status words: `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`
    pub grpc_cancelled: bool,
    pub grpc_deadline_exceeded: bool,
    pub grpc_internal: bool,
    pub grpc_resource_exhausted: bool,
    pub grpc_unavailable: bool,
}

const BASE: Duration = Duration::from_millis(25);

impl RetryOn {
    /// Reads a comma-separated list; unknown words are errors.
    ///
    /// # Errors
    /// Names the unknown word.
    pub fn parse(words: &str) -> Decoded<Self> {
        let mut on = Self::default();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let flag = match word {
                "5xx" => &mut on.server_error,
                "gateway-error" => &mut on.gateway_error,
                "reset" => &mut on.reset,
                "reset-before-request" => &mut on.reset_before_request,
                "connect-failure" => &mut on.connect_failure,
                "envoy-ratelimited" => &mut on.envoy_ratelimited,
                "retriable-4xx" => &mut on.retriable_4xx,
                "refused-stream" => &mut on.refused_stream,
                "retriable-status-codes" => &mut on.retriable_status_codes,
                "retriable-headers" => &mut on.retriable_headers,
                "http3-post-connect-failure" => &mut on.http3_post_connect_failure,
                "cancelled" => &mut on.grpc_cancelled,
                "deadline-exceeded" => &mut on.grpc_deadline_exceeded,
                "internal" => &mut on.grpc_internal,
                "resource-exhausted" => &mut on.grpc_resource_exhausted,
                "unavailable" => &mut on.grpc_unavailable,
                other => return Err(DecodeError::new("retry_on", format!("unknown word {other:?}"))),
            };
            *flag = true;
        }
        Ok(on)
    }
}

impl RetryPolicy {
    pub(crate) fn decode(policy: &proto::RetryPolicy) -> Decoded<Self> {
        let matchers = |list: &[proto::HeaderMatcher], field: &str| -> Decoded<Vec<HeaderMatch>> {
            let decode =
                |(index, matcher)| HeaderMatch::decode(matcher).map_err(|e| e.inside(format!("{field}[{index}]")));
            list.iter().enumerate().map(decode).collect()
        };
        if !policy.retry_options_predicates.is_empty() {
            return Err(DecodeError::unsupported("retry_options_predicates"));
        }
        if policy.rate_limited_retry_back_off.is_some() {
            return Err(DecodeError::unsupported("rate_limited_retry_back_off"));
        }
        let mut avoid_previous_hosts = false;
        for (index, predicate) in policy.retry_host_predicate.iter().enumerate() {
            match predicate.name.as_str() {
                "envoy.retry_host_predicates.previous_hosts" => avoid_previous_hosts = true,
                other => {
                    let field = format!("retry_host_predicate[{index}].name");
                    return Err(DecodeError::new(field, format!("unknown predicate {other:?}")));
                }
            }
        }
        let avoid_previous_priorities = policy.retry_priority.as_ref().map(update_frequency).transpose()?.unwrap_or(0);
        let back_off = policy.retry_back_off.unwrap_or_default();
        let base = wire::nonzero_duration(&back_off.base_interval, "retry_back_off.base_interval")?.unwrap_or(BASE);
        let max = wire::nonzero_duration(&back_off.max_interval, "retry_back_off.max_interval")?;
        Ok(Self {
            on: RetryOn::parse(&policy.retry_on)?,
            num_retries: policy.num_retries.as_ref().map_or(1, |n| n.value),
            per_try_timeout: wire::nonzero_duration(&policy.per_try_timeout, "per_try_timeout")?,
            per_try_idle_timeout: wire::nonzero_duration(&policy.per_try_idle_timeout, "per_try_idle_timeout")?,
            retriable_status_codes: policy
                .retriable_status_codes
                .iter()
                .map(|code| wire::port_number(*code, "retriable_status_codes"))
                .collect::<Decoded<_>>()?,
            retriable_headers: matchers(&policy.retriable_headers, "retriable_headers")?,
            retriable_request_headers: matchers(&policy.retriable_request_headers, "retriable_request_headers")?,
            avoid_previous_hosts,
            host_selection_attempts: u32::try_from(policy.host_selection_retry_max_attempts).unwrap_or(0).clamp(1, 100),
            avoid_previous_priorities,
            back_off_base: base,
            back_off_max: max.unwrap_or(base * 10).max(base),
        })
    }
}

fn update_frequency(priority: &proto::retry_policy::RetryPriority) -> Decoded<u32> {
    if priority.name != "envoy.retry_priorities.previous_priorities" {
        return Err(DecodeError::new("retry_priority.name", format!("unknown priority {:?}", priority.name)));
    }
    let at = "retry_priority.typed_config";
    let Some(proto::retry_policy::retry_priority::ConfigType::TypedConfig(config)) = &priority.config_type else {
        return Err(DecodeError::new(at, "missing"));
    };
    let config: PreviousPrioritiesConfig = any::unpack(config).map_err(|e| DecodeError::new(at, e.to_string()))?;
    match u32::try_from(config.update_frequency) {
        Ok(frequency) if frequency > 0 => Ok(frequency),
        _ => Err(DecodeError::new(format!("{at}.update_frequency"), "must be above 0")),
    }
}
