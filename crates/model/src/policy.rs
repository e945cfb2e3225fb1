//! How a caller treats a destination: Istio's DestinationRule after lookup, merge and defaults.
//!
//! Invariant: everything is settled here (lookup path, same-host merge, per-block override of subsets, replacement by
//! port-level settings); a reader asks `blocks(subset, port)` and applies what it gets.

use crate::matching::Labels;
use crate::origin::Origin;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A destination policy and the callers it applies to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScopedPolicy {
    /// Only callers of these namespaces; `None`: any.
    pub namespaces: Option<std::collections::BTreeSet<String>>,
    /// Only callers that carry these labels (DestinationRule workloadSelector).
    pub labels: Labels,
    pub policy: Arc<DestinationPolicy>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DestinationPolicy {
    /// Of the service as a whole.
    pub policy: TrafficPolicy,
    pub subsets: BTreeMap<String, Subset>,
    pub origins: Vec<Origin>,
}

/// `policy` is the subset's own, already merged over the service's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subset {
    pub labels: Labels,
    pub policy: TrafficPolicy,
    pub origin: Option<Origin>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrafficPolicy {
    pub default: PolicyBlocks,
    /// Replaces all of `default` for that service port.
    pub ports: BTreeMap<u16, PolicyBlocks>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyBlocks {
    pub balancing: Balancing,
    /// `None`: the mesh's locality rule (`MeshSettings.locality`, MeshConfig.localityLbSetting).
    pub locality: Option<LocalityPolicy>,
    pub pool: ConnectionPool,
    pub outlier: Option<OutlierDetection>,
    /// `None`: automatic mutual TLS.
    pub tls: Option<ClientTls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Balancing {
    #[default]
    LeastRequest,
    RoundRobin,
    Random,
}

/// Istio LocalityLoadBalancerSetting.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalityPolicy {
    pub enabled: bool,
    pub distribute: Vec<Distribute>,
    /// (from region, to region)
    pub failover: Vec<(String, String)>,
    /// Ordered labels: `key` (compared with the caller's) or `key=value`.
    pub failover_priority: Vec<String>,
}

/// Weights (percent, sum 100) by destination locality pattern for callers whose locality matches `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Distribute {
    pub from: String,
    pub to: BTreeMap<String, u32>,
}

/// Limits per proxy. `None`: Envoy's default as Istio sets it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionPool {
    pub max_connections: Option<u32>,
    pub connect_timeout: Option<Duration>,
    /// probes, time, interval
    pub tcp_keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
    pub max_connection_duration: Option<Duration>,
    pub tcp_idle_timeout: Option<Duration>,
    pub http1_max_pending_requests: Option<u32>,
    pub http2_max_requests: Option<u32>,
    pub max_requests_per_connection: Option<u32>,
    pub max_retries: Option<u32>,
    pub http_idle_timeout: Option<Duration>,
    pub max_concurrent_streams: Option<u32>,
    pub h2_upgrade: H2Upgrade,
    pub use_client_protocol: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum H2Upgrade {
    #[default]
    Default,
    Upgrade,
    DoNotUpgrade,
}

/// Istio OutlierDetection with defaults applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// 0 disables.
    pub consecutive_5xx: u32,
    /// 0 disables.
    pub consecutive_gateway_errors: u32,
    pub split_local_origin_errors: bool,
    pub consecutive_local_origin_failures: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_percent: u32,
    pub min_health_percent: u32,
}

impl Default for OutlierDetection {
    /// Istio's defaults: 5 errors, 10 s, 30 s, 10 %, no panic.
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_errors: 0,
            split_local_origin_errors: false,
            consecutive_local_origin_failures: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientTls {
    Disable,
    Simple { sni: Option<String>, subject_alt_names: Vec<String>, insecure_skip_verify: bool },
    IstioMutual { sni: Option<String>, subject_alt_names: Vec<String> },
}

impl DestinationPolicy {
    /// The blocks that hold for a subset (`None`: the service as a whole) and a service port. An unknown subset has none.
    pub fn blocks(&self, subset: Option<&str>, port: u16) -> Option<&PolicyBlocks> {
        let policy = match subset {
            None => &self.policy,
            Some(name) => &self.subsets.get(name)?.policy,
        };
        Some(policy.ports.get(&port).unwrap_or(&policy.default))
    }
}
