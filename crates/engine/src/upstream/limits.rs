//! Circuit breakers and outlier detection settings, with Envoy's defaults applied.

use crate::error::Decoded;
use crate::wire;
use fairlead_proto::envoy::cluster::{CircuitBreakers as Proto, OutlierDetection};
use std::time::Duration;

/// Limits per Envoy cluster and proxy, routing priority DEFAULT (`envoy.config.cluster.v3.CircuitBreakers`).
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreakers {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// Replaces `max_retries` when set: retries in flight may be this percentage of requests in flight…
    pub retry_budget_percent: Option<f64>,
    /// …and at least this many. Envoy's default is 3.
    pub min_retry_concurrency: u32,
}

/// `envoy.config.cluster.v3.OutlierDetection`, as far as it is decided by consecutive errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierConfig {
    pub consecutive_5xx: u32,
    pub enforcing_consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub split_local_origin: bool,
    pub consecutive_local_origin_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    /// Percent of the endpoints of the Envoy cluster.
    pub max_ejection_percent: u32,
    pub always_eject_one: bool,
}

/// Envoy's default for each of the four limits.
const DEFAULT_LIMIT: u32 = 1024;
const DEFAULT_RETRIES: u32 = 3;

impl Default for CircuitBreakers {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_LIMIT,
            max_pending_requests: DEFAULT_LIMIT,
            max_requests: DEFAULT_LIMIT,
            max_retries: DEFAULT_RETRIES,
            retry_budget_percent: None,
            min_retry_concurrency: 3,
        }
    }
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            enforcing_consecutive_5xx: 100,
            consecutive_gateway_failure: 5,
            enforcing_consecutive_gateway_failure: 0,
            split_local_origin: false,
            consecutive_local_origin_failure: 5,
            enforcing_consecutive_local_origin_failure: 100,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            always_eject_one: false,
        }
    }
}

impl CircuitBreakers {
    pub(crate) fn decode(proto: Option<&Proto>) -> Self {
        let mut limits = Self::default();
        // 0 is RoutingPriority::DEFAULT; nothing here sends requests of priority HIGH.
        let Some(own) = proto.and_then(|p| p.thresholds.iter().find(|t| t.priority == 0)) else { return limits };
        let set = |field: &mut u32, value: &Option<fairlead_proto::envoy::protobuf::UInt32Value>| {
            if let Some(value) = value {
                *field = value.value;
            }
        };
        set(&mut limits.max_connections, &own.max_connections);
        set(&mut limits.max_pending_requests, &own.max_pending_requests);
        set(&mut limits.max_requests, &own.max_requests);
        set(&mut limits.max_retries, &own.max_retries);
        if let Some(budget) = &own.retry_budget {
            // Envoy's default budget is 20 %.
            limits.retry_budget_percent = Some(budget.budget_percent.as_ref().map_or(20.0, |p| p.value));
            set(&mut limits.min_retry_concurrency, &budget.min_retry_concurrency);
        }
        limits
    }
}

impl OutlierConfig {
    pub(crate) fn decode(proto: &OutlierDetection) -> Decoded<Self> {
        let mut config = Self::default();
        let set = |field: &mut u32, value: &Option<fairlead_proto::envoy::protobuf::UInt32Value>| {
            if let Some(value) = value {
                *field = value.value;
            }
        };
        set(&mut config.consecutive_5xx, &proto.consecutive_5xx);
        set(&mut config.enforcing_consecutive_5xx, &proto.enforcing_consecutive_5xx);
        set(&mut config.consecutive_gateway_failure, &proto.consecutive_gateway_failure);
        set(&mut config.enforcing_consecutive_gateway_failure, &proto.enforcing_consecutive_gateway_failure);
        set(&mut config.consecutive_local_origin_failure, &proto.consecutive_local_origin_failure);
        set(&mut config.enforcing_consecutive_local_origin_failure, &proto.enforcing_consecutive_local_origin_failure);
        set(&mut config.max_ejection_percent, &proto.max_ejection_percent);
        config.split_local_origin = proto.split_external_local_origin_errors;
        config.always_eject_one = proto.always_eject_one_host.as_ref().is_some_and(|v| v.value);
        if let Some(interval) = wire::nonzero_duration(&proto.interval, "interval")? {
            config.interval = interval;
        }
        if let Some(time) = wire::nonzero_duration(&proto.base_ejection_time, "base_ejection_time")? {
            config.base_ejection_time = time;
        }
        // Envoy: never below the base time.
        let longest = wire::nonzero_duration(&proto.max_ejection_time, "max_ejection_time")?;
        config.max_ejection_time = longest.unwrap_or(config.max_ejection_time).max(config.base_ejection_time);
        Ok(config)
    }
}
