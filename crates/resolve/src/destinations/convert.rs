//! Istio's policy blocks as model types.
//!
//! Never falls back to a weaker TLS mode: a block that cannot be honoured becomes one whose handshake must fail.

use fairlead_model::policy::{
    Balancing, ClientTls, ConnectionPool, Distribute, H2Upgrade, LocalityPolicy, OutlierDetection,
};
use fairlead_resources::field::Span;
use fairlead_resources::istio as written;
use std::time::Duration;

/// A name that no certificate can carry (RFC 2606 `.invalid`): what stands for a TLS block that was refused.
const NOBODY: &str = "refused.fairlead.invalid";

pub(super) fn balancing(block: &written::LoadBalancerSettings) -> (Balancing, Option<LocalityPolicy>) {
    let simple = match block.simple {
        Some(written::SimpleLb::RoundRobin) => Balancing::RoundRobin,
        Some(written::SimpleLb::Random) => Balancing::Random,
        // Istio: UNSPECIFIED and LEAST_CONN are LEAST_REQUEST. PASSTHROUGH is refused where the object is read.
        Some(
            written::SimpleLb::Unspecified
            | written::SimpleLb::LeastConn
            | written::SimpleLb::LeastRequest
            | written::SimpleLb::Passthrough,
        )
        | None => Balancing::LeastRequest,
    };
    (simple, block.locality_lb_setting.as_ref().map(locality_policy))
}

/// `enabled` unset is true (Istio).
pub(crate) fn locality_policy(written: &written::LocalityLbSetting) -> LocalityPolicy {
    LocalityPolicy {
        enabled: written.enabled.unwrap_or(true),
        distribute: written
            .distribute
            .iter()
            .map(|entry| Distribute { from: entry.from.clone(), to: entry.to.clone() })
            .collect(),
        failover: written.failover.iter().map(|entry| (entry.from.clone(), entry.to.clone())).collect(),
        failover_priority: written.failover_priority.clone(),
    }
}

pub(super) fn pool(block: &written::ConnectionPoolSettings) -> ConnectionPool {
    let tcp = block.tcp.clone().unwrap_or_default();
    let http = block.http.clone().unwrap_or_default();
    ConnectionPool {
        max_connections: set(tcp.max_connections),
        connect_timeout: tcp.connect_timeout.map(Span::duration),
        tcp_keepalive: tcp.tcp_keepalive.as_ref().map(keepalive),
        max_connection_duration: tcp.max_connection_duration.map(Span::duration),
        tcp_idle_timeout: tcp.idle_timeout.map(Span::duration),
        http1_max_pending_requests: set(http.http1_max_pending_requests),
        http2_max_requests: set(http.http2_max_requests),
        max_requests_per_connection: set(http.max_requests_per_connection),
        max_retries: set(http.max_retries),
        http_idle_timeout: http.idle_timeout.map(Span::duration),
        max_concurrent_streams: set(http.max_concurrent_streams),
        h2_upgrade: match http.h2_upgrade_policy {
            written::H2UpgradePolicy::Default => H2Upgrade::Default,
            written::H2UpgradePolicy::DoNotUpgrade => H2Upgrade::DoNotUpgrade,
            written::H2UpgradePolicy::Upgrade => H2Upgrade::Upgrade,
        },
        use_client_protocol: http.use_client_protocol,
    }
}

pub(super) fn keepalive(block: &written::TcpKeepalive) -> (Option<u32>, Option<Duration>, Option<Duration>) {
    (
        Some(block.probes).filter(|probes| *probes > 0),
        block.time.map(Span::duration),
        block.interval.map(Span::duration),
    )
}

pub(super) fn outlier(block: &written::OutlierDetection) -> OutlierDetection {
    let defaults = OutlierDetection::default();
    OutlierDetection {
        consecutive_5xx: block.consecutive_5xx_errors.unwrap_or(defaults.consecutive_5xx),
        consecutive_gateway_errors: block.consecutive_gateway_errors.unwrap_or(defaults.consecutive_gateway_errors),
        split_local_origin_errors: block.split_external_local_origin_errors,
        consecutive_local_origin_failures: block
            .consecutive_local_origin_failures
            .unwrap_or(defaults.consecutive_local_origin_failures),
        interval: block.interval.map_or(defaults.interval, Span::duration),
        base_ejection_time: block.base_ejection_time.map_or(defaults.base_ejection_time, Span::duration),
        max_ejection_percent: set(block.max_ejection_percent).unwrap_or(defaults.max_ejection_percent),
        min_health_percent: set(block.min_health_percent).unwrap_or(0),
    }
}

pub(super) fn tls(block: &written::ClientTlsSettings) -> ClientTls {
    let sni = Some(block.sni.clone()).filter(|sni| !sni.is_empty());
    let refused =
        ClientTls::Simple { sni: sni.clone(), subject_alt_names: vec![NOBODY.to_owned()], insecure_skip_verify: false };
    if block.refused {
        return refused;
    }
    match block.mode {
        written::ClientTlsMode::Disable => ClientTls::Disable,
        written::ClientTlsMode::Simple => ClientTls::Simple {
            sni,
            subject_alt_names: block.subject_alt_names.clone(),
            insecure_skip_verify: block.insecure_skip_verify.unwrap_or(false),
        },
        written::ClientTlsMode::Mutual => refused,
        written::ClientTlsMode::IstioMutual => {
            ClientTls::IstioMutual { sni, subject_alt_names: block.subject_alt_names.clone() }
        }
    }
}

/// Protobuf integers cannot tell 0 from unset; Istio takes both as unset.
fn set(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_tls_block_can_never_succeed() {
        let block = written::ClientTlsSettings { mode: written::ClientTlsMode::Mutual, ..Default::default() };
        let ClientTls::Simple { subject_alt_names, insecure_skip_verify, .. } = tls(&block) else { panic!("not TLS") };
        assert_eq!((subject_alt_names.as_slice(), insecure_skip_verify), ([NOBODY.to_owned()].as_slice(), false));
    }

    #[test]
    fn zero_is_unset_and_outlier_defaults_are_istios() {
        let block = written::OutlierDetection { consecutive_5xx_errors: Some(0), ..Default::default() };
        let settled = outlier(&block);
        assert_eq!((settled.consecutive_5xx, settled.max_ejection_percent), (0, 10));
        assert_eq!(settled.interval, Duration::from_secs(10));
    }
}
