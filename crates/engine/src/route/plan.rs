//! What a matched route leads to: everything an exchange needs, resolved when the route was decoded.
//!
//! Invariant: nothing in a plan depends on the request; the share of a backend is its weight over `total_weight`.

use super::{Fault, HeaderOps, PathRewrite, RetryPolicy};
use fairlead_model::Origin;
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// Where requests of a route go and how.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    /// Route name, empty when it has none.
    pub route_name: Arc<str>,
    /// Name of the virtual host (`reviews.shop.svc.cluster.local:9080`).
    pub virtual_host: Arc<str>,
    /// At least one.
    pub backends: Vec<Backend>,
    /// Sum of the weights, above 0.
    pub total_weight: u64,
    /// From the end of the request to the end of the response, all tries; `None` is for ever. Envoy's default is 15 s.
    pub timeout: Option<Duration>,
    /// Most that a caller's `grpc-timeout` may ask for; `None` ignores the header, zero accepts any.
    pub grpc_timeout_cap: Option<Duration>,
    /// Overrides the stream idle timeout of the connection manager; zero disables.
    pub idle_timeout: Option<Duration>,
    pub retry: Option<Arc<RetryPolicy>>,
    /// Fairlead's default retries (`fairlead.default_retry`): GET, HEAD and OPTIONS on any undelivered try, other methods
    /// only where the request was never sent or is marked as not delivered.
    pub default_retry: bool,
    /// A backend that is wholly down gives its share to its siblings of the same host (`fairlead.sibling_failover`).
    pub sibling_failover: bool,
    /// Replaces the authority towards the backend.
    pub host_rewrite: Option<HeaderValue>,
    /// Replaces the path towards the backend.
    pub path_rewrite: Option<PathRewrite>,
    /// Delays and failures for a share of the requests.
    pub fault: Option<Arc<Fault>>,
    /// Header operations of route, virtual host and route configuration, in the order to apply them; the backend's own
    /// ([`Backend::request_headers`]) come before.
    pub request_headers: Vec<Arc<HeaderOps>>,
    pub response_headers: Vec<Arc<HeaderOps>>,
    /// Upgrades this route allows or forbids, against what the connection manager says; names in lower case.
    pub upgrades: Vec<(Arc<str>, bool)>,
    /// The Envoy cluster is unknown to the proxy: answer with this instead of 503.
    pub cluster_not_found_status: u16,
    pub origin: Option<Origin>,
}

/// One Envoy cluster of a route.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Name of the Envoy cluster; look it up with [`crate::Snapshot::cluster`].
    pub cluster: Arc<str>,
    /// Host in Istio's naming `outbound|PORT|SUBSET|HOST`, empty for others: backends with the same are siblings.
    pub host: Arc<str>,
    /// Subset in Istio's naming, empty for none.
    pub subset: Arc<str>,
    pub weight: u32,
    pub request_headers: Option<Arc<HeaderOps>>,
    pub response_headers: Option<Arc<HeaderOps>>,
    pub host_rewrite: Option<HeaderValue>,
}

/// An answer the proxy gives itself.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    pub route_name: Arc<str>,
    pub virtual_host: Arc<str>,
    pub status: u16,
    pub body: Arc<[u8]>,
    pub response_headers: Vec<Arc<HeaderOps>>,
    /// Why the route could not be decoded, when this is the answer of a broken route.
    pub broken: Option<Arc<str>>,
    pub fault: Option<Arc<Fault>>,
    pub origin: Option<Origin>,
}

/// Parts of `DIRECTION|PORT|SUBSET|HOST`; `None` for any other name.
pub(crate) fn istio_name(cluster: &str) -> Option<(&str, &str, &str, &str)> {
    let mut parts = cluster.splitn(4, '|');
    Some((parts.next()?, parts.next()?, parts.next()?, parts.next()?))
}

impl RoutePlan {
    /// Time-out of a request: the route's, or the caller's `grpc-timeout` where the route lets it count (Envoy's
    /// `max_stream_duration.grpc_timeout_header_max`, `max_grpc_timeout`).
    pub fn timeout_for(&self, head: &crate::RequestHead<'_>) -> Option<Duration> {
        let (Some(cap), true) = (self.grpc_timeout_cap, head.is_grpc()) else { return self.timeout };
        let asked = head.headers.get("grpc-timeout").and_then(|value| grpc_timeout(value.as_bytes()));
        match asked {
            None => self.timeout,
            Some(asked) if cap.is_zero() => Some(asked),
            Some(asked) => Some(asked.min(cap)),
        }
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_names() {
        assert_eq!(istio_name("outbound|80|v1|a.b"), Some(("outbound", "80", "v1", "a.b")));
        assert_eq!(istio_name("inbound|80||"), Some(("inbound", "80", "", "")));
        assert_eq!(istio_name("PassthroughCluster"), None);
    }

    #[test]
    fn grpc_timeouts() {
        assert_eq!(grpc_timeout(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(grpc_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(grpc_timeout(b"123456789S"), None);
        assert_eq!(grpc_timeout(b"S"), None);
        assert_eq!(grpc_timeout(b""), None);
    }
}
