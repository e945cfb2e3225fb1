//! Which retries a rule asks for, and their form in Envoy.
//!
//! Sources: Istio's documentation and code; docs/failure-modes.md.

use super::input::Retries;
use crate::scope::Scope;
use crate::wire::{duration, extension, u32_value};
use fairlead_model::route::RetryPolicy;
use fairlead_model::settings::Profile;
use fairlead_proto::any::pack;
use fairlead_proto::envoy::all::envoy::extensions::retry;
use fairlead_proto::envoy::{matcher, route};

/// Istio's default list.
const ISTIO_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const ISTIO_ATTEMPTS: u32 = 2;
const SAFE_RETRY_ON: &str = "connect-failure,refused-stream,reset";
const SAFE_ATTEMPTS: u32 = 3;
const SAFE_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
/// How often another endpoint is chosen when the balancer picks one that was tried.
const RESELECTIONS: i64 = 5;

/// A rule's own policy, else MeshConfig's, else the profile's.
pub fn of(scope: &Scope<'_>, written: Option<&RetryPolicy>) -> Retries {
    let settings = &scope.mesh.settings;
    match written.or(settings.default_retries.as_ref()) {
        Some(policy) if policy.attempts == 0 => Retries::None,
        Some(policy) => Retries::Policy(policy.clone()),
        None if settings.profile == Profile::Fairlead => Retries::Safe,
        None => Retries::Policy(RetryPolicy {
            attempts: ISTIO_ATTEMPTS,
            per_try_timeout: None,
            retry_on: String::new(),
            backoff: None,
            retry_remote_localities: false,
            ignore_previous_hosts: true,
        }),
    }
}

pub fn envoy(retries: &Retries) -> Option<route::RetryPolicy> {
    match retries {
        Retries::None => None,
        Retries::Safe => Some(route::RetryPolicy {
            retry_on: SAFE_RETRY_ON.to_owned(),
            num_retries: u32_value(SAFE_ATTEMPTS),
            retry_host_predicate: vec![previous_hosts()],
            host_selection_retry_max_attempts: RESELECTIONS,
            retriable_request_headers: SAFE_METHODS.map(method).into(),
            ..Default::default()
        }),
        Retries::Policy(policy) => Some(explicit(policy)),
    }
}

fn explicit(policy: &RetryPolicy) -> route::RetryPolicy {
    let (retry_on, retriable_status_codes) = conditions(&policy.retry_on);
    let other_hosts = policy.ignore_previous_hosts;
    route::RetryPolicy {
        retry_on,
        retriable_status_codes,
        num_retries: u32_value(policy.attempts),
        per_try_timeout: policy.per_try_timeout.and_then(duration),
        retry_host_predicate: if other_hosts { vec![previous_hosts()] } else { Vec::new() },
        host_selection_retry_max_attempts: if other_hosts { RESELECTIONS } else { 0 },
        retry_back_off: policy
            .backoff
            .map(|base| route::retry_policy::RetryBackOff { base_interval: duration(base), max_interval: None }),
        retry_priority: policy.retry_remote_localities.then(other_priorities),
        ..Default::default()
    }
}

/// Envoy's words, and the integers among them, which are status codes.
fn conditions(written: &str) -> (String, Vec<u32>) {
    const STATUS_CODES: &str = "retriable-status-codes";
    let written = if written.trim().is_empty() { ISTIO_RETRY_ON } else { written };
    let (mut words, mut codes) = (Vec::new(), Vec::new());
    for part in written.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => words.push(part),
        }
    }
    if !codes.is_empty() && !words.contains(&STATUS_CODES) {
        words.push(STATUS_CODES);
    }
    (words.join(","), codes)
}

fn previous_hosts() -> route::retry_policy::RetryHostPredicate {
    let config = pack(&retry::host::previous_hosts::v3::PreviousHostsPredicate::default());
    let named = extension("envoy.retry_host_predicates.previous_hosts", config);
    route::retry_policy::RetryHostPredicate {
        name: named.name,
        config_type: named.typed_config.map(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig),
    }
}

/// Istio's `retryRemoteLocalities`: after two tries another priority.
fn other_priorities() -> route::retry_policy::RetryPriority {
    let config = pack(&retry::priority::previous_priorities::v3::PreviousPrioritiesConfig { update_frequency: 2 });
    route::retry_policy::RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(route::retry_policy::retry_priority::ConfigType::TypedConfig(config)),
    }
}

fn method(name: &str) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(
            matcher::StringMatcher {
                match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(name.to_owned())),
                ignore_case: false,
            },
        )),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_become_status_codes() {
        assert_eq!(conditions("5xx,409"), ("5xx,retriable-status-codes".to_owned(), vec![409]));
        assert_eq!(conditions("503, retriable-status-codes"), ("retriable-status-codes".to_owned(), vec![503]));
        assert_eq!(conditions(""), (ISTIO_RETRY_ON.to_owned(), vec![]));
    }
}
