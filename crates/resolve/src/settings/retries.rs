//! Istio's HTTPRetry as a model policy.
//!
//! Never applies a default where Istio has none: an empty `retryOn` stays empty and means Istio's list.

use fairlead_model::route::RetryPolicy;
use fairlead_resources::istio::HttpRetry;

/// A negative number of attempts counts as none.
pub(crate) fn retry_policy(written: &HttpRetry) -> RetryPolicy {
    RetryPolicy {
        attempts: u32::try_from(written.attempts).unwrap_or(0),
        per_try_timeout: written.per_try_timeout.map(|span| span.duration()),
        retry_on: written.retry_on.clone(),
        backoff: written.backoff.map(|span| span.duration()),
        retry_remote_localities: written.retry_remote_localities.unwrap_or(false),
        ignore_previous_hosts: written.retry_ignore_previous_hosts.unwrap_or(true),
    }
}
