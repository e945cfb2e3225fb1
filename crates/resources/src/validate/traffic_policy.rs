//! The blocks of a traffic policy.

use std::collections::HashSet;

use super::check::Check;
use super::http_action::whole_percent;
use super::{durations, names, ports};
use crate::field::FieldPath;
use crate::istio::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, H2UpgradePolicy, LoadBalancerSettings,
    LocalityLbSetting, OutlierDetection, TrafficPolicy, TunnelSettings,
};

/// Checks a policy.
pub(super) fn check(policy: &TrafficPolicy, at: &FieldPath, check: &mut Check<'_>) {
    let empty = policy.load_balancer.is_none()
        && policy.connection_pool.is_none()
        && policy.outlier_detection.is_none()
        && policy.tls.is_none()
        && policy.port_level_settings.is_empty()
        && policy.tunnel.is_none()
        && policy.proxy_protocol.is_none()
        && policy.retry_budget.is_none();
    if empty {
        check.error(at, "a traffic policy must have at least one field");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        check.error(at, "only one of tunnel and proxyProtocol may be set");
    }
    blocks(
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        at,
        check,
    );
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let at = at.key("portLevelSettings").index(index);
        match &port.port {
            Some(selector) => ports::number(selector.number, &at.key("port").key("number"), check),
            None => check.error(&at.key("port"), "port level settings must have a port"),
        }
        let (balancer, pool) = (port.load_balancer.as_ref(), port.connection_pool.as_ref());
        blocks(balancer, pool, port.outlier_detection.as_ref(), port.tls.as_ref(), &at, check);
    }
    if let Some(tunnel) = &policy.tunnel {
        tunnel_settings(tunnel, &at.key("tunnel"), check);
    }
    if let Some(budget) = &policy.retry_budget {
        super::http_route::percent(budget.percent.as_ref(), &at.key("retryBudget").key("percent"), check);
    }
}

/// Connection limits, also of Sidecars.
pub(super) fn connection_pool(pool: &ConnectionPoolSettings, at: &FieldPath, check: &mut Check<'_>) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(at, "a connection pool must have at least one field");
    }
    if let Some(tcp) = &pool.tcp {
        let at = at.key("tcp");
        not_negative(tcp.max_connections, &at.key("maxConnections"), check);
        durations::positive(tcp.connect_timeout, &at.key("connectTimeout"), check);
        durations::positive(tcp.max_connection_duration, &at.key("maxConnectionDuration"), check);
        durations::positive_or_off(tcp.idle_timeout, &at.key("idleTimeout"), check);
        if let Some(keepalive) = &tcp.tcp_keepalive {
            durations::positive(keepalive.time, &at.key("tcpKeepalive").key("time"), check);
            durations::positive(keepalive.interval, &at.key("tcpKeepalive").key("interval"), check);
        }
    }
    if let Some(http) = &pool.http {
        let at = at.key("http");
        not_negative(http.http1_max_pending_requests, &at.key("http1MaxPendingRequests"), check);
        not_negative(http.http2_max_requests, &at.key("http2MaxRequests"), check);
        not_negative(http.max_requests_per_connection, &at.key("maxRequestsPerConnection"), check);
        not_negative(http.max_retries, &at.key("maxRetries"), check);
        not_negative(http.max_concurrent_streams, &at.key("maxConcurrentStreams"), check);
        durations::positive_or_off(http.idle_timeout, &at.key("idleTimeout"), check);
        if http.use_client_protocol && http.h2_upgrade_policy == H2UpgradePolicy::Upgrade {
            check.error(&at.key("useClientProtocol"), "useClientProtocol cannot go with h2UpgradePolicy UPGRADE");
        }
    }
}

/// Locality load balancing, also of MeshConfig.
pub(super) fn locality(setting: &LocalityLbSetting, at: &FieldPath, check: &mut Check<'_>) {
    // Istio refuses distribute together with failover; here weights and failover together are a feature.
    for (index, entry) in setting.distribute.iter().enumerate() {
        let at = at.key("distribute").index(index);
        check.problem(&at.key("from"), locality_pattern(&entry.from));
        let mut total: u64 = 0;
        for (to, weight) in &entry.to {
            check.problem(&at.key("to").key(to), locality_pattern(to));
            if *weight == 0 {
                check.error(&at.key("to").key(to), "a locality's weight must be at least 1");
            }
            total += u64::from(*weight);
        }
        if total != 100 {
            check.error(&at.key("to"), format!("the weights of a locality must sum to 100, not {total}"));
        }
        let keys: Vec<&str> = entry.to.keys().map(String::as_str).collect();
        overlapping(&keys, &at.key("to"), check);
    }
    let from: Vec<&str> = setting.distribute.iter().map(|entry| entry.from.as_str()).collect();
    // The first that covers the caller holds, so a last `*` is for the rest; Istio takes that too.
    let specific = from.strip_suffix(&["*"]).unwrap_or(&from);
    overlapping(specific, &at.key("distribute"), check);
    for (index, entry) in setting.failover.iter().enumerate() {
        let at = at.key("failover").index(index);
        if entry.from.is_empty() || entry.to.is_empty() {
            check.error(&at, "a failover needs the regions `from` and `to`");
        } else if entry.from == entry.to {
            check.error(&at, format!("a region cannot fail over to itself (`{}`)", entry.to));
        }
        for (field, region) in [("from", &entry.from), ("to", &entry.to)] {
            if region.contains(['/', '*']) {
                check.error(&at.key(field), "failover goes from region to region, without zones or `*`");
            }
        }
    }
}

fn blocks(
    balancer: Option<&LoadBalancerSettings>,
    pool: Option<&ConnectionPoolSettings>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTlsSettings>,
    at: &FieldPath,
    check: &mut Check<'_>,
) {
    if let Some(balancer) = balancer {
        load_balancer(balancer, &at.key("loadBalancer"), check);
    }
    if let Some(pool) = pool {
        connection_pool(pool, &at.key("connectionPool"), check);
    }
    if let Some(outlier) = outlier {
        outlier_detection(outlier, &at.key("outlierDetection"), check);
    }
    if let Some(tls) = tls {
        client_tls(tls, &at.key("tls"), check);
    }
}

fn load_balancer(settings: &LoadBalancerSettings, at: &FieldPath, check: &mut Check<'_>) {
    if settings.simple.is_some() && settings.consistent_hash.is_some() {
        check.error(at, "only one of simple and consistentHash may be set");
    }
    if let Some(hash) = &settings.consistent_hash {
        consistent_hash(hash, &at.key("consistentHash"), check);
    }
    if let Some(setting) = &settings.locality_lb_setting {
        locality(setting, &at.key("localityLbSetting"), check);
    }
    durations::positive(settings.warmup_duration_secs, &at.key("warmupDurationSecs"), check);
    if let Some(warmup) = &settings.warmup {
        let at = at.key("warmup");
        match warmup.duration {
            None => check.error(&at.key("duration"), "the warm-up's duration is required"),
            duration => durations::positive(duration, &at.key("duration"), check),
        }
        if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent.0)) {
            check.error(&at.key("minimumPercent"), "minimumPercent must be in the range 0 to 100");
        }
        if warmup.aggression.is_some_and(|aggression| aggression.0 < 1.0) {
            check.error(&at.key("aggression"), "aggression must be at least 1");
        }
    }
}

fn consistent_hash(hash: &ConsistentHashLb, at: &FieldPath, check: &mut Check<'_>) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|key| **key).count() > 1 {
        check.error(at, "only one hash key may be set");
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        check.error(at, "only one of ringHash and maglev may be set");
    }
    if hash.minimum_ring_size.is_some() {
        check.warning(&at.key("minimumRingSize"), "minimumRingSize is deprecated; use ringHash.minimumRingSize");
    }
    if let Some(cookie) = &hash.http_cookie {
        let at = at.key("httpCookie");
        if cookie.name.is_empty() {
            check.error(&at.key("name"), "the cookie's name is required");
        }
        let mut seen = HashSet::new();
        for (index, attribute) in cookie.attributes.iter().enumerate() {
            let at = at.key("attributes").index(index).key("name");
            if attribute.name.is_empty() {
                check.error(&at, "a cookie attribute's name cannot be empty");
            } else if !seen.insert(attribute.name.to_ascii_lowercase()) {
                check.error(&at, format!("duplicate cookie attribute `{}`", attribute.name));
            }
        }
    }
    if let Some(size) = hash.maglev.as_ref().and_then(|maglev| maglev.table_size) {
        let at = at.key("maglev").key("tableSize");
        if size >= 5_000_011 {
            check.error(&at, "tableSize must be less than 5000011");
        } else if !is_prime(size) {
            check.error(&at, "tableSize must be a prime number");
        }
    }
}

fn outlier_detection(outlier: &OutlierDetection, at: &FieldPath, check: &mut Check<'_>) {
    durations::positive(outlier.interval, &at.key("interval"), check);
    durations::positive(outlier.base_ejection_time, &at.key("baseEjectionTime"), check);
    if outlier.consecutive_errors != 0 {
        let hint = "consecutiveErrors is deprecated; use consecutiveGatewayErrors or consecutive5xxErrors";
        check.warning(&at.key("consecutiveErrors"), hint);
    }
    if outlier.consecutive_local_origin_failures.is_some_and(|n| n > 0) && !outlier.split_external_local_origin_errors {
        let message = "consecutiveLocalOriginFailures needs splitExternalLocalOriginErrors: true";
        check.error(&at.key("consecutiveLocalOriginFailures"), message);
    }
    whole_percent(outlier.max_ejection_percent, &at.key("maxEjectionPercent"), check);
    whole_percent(outlier.min_health_percent, &at.key("minHealthPercent"), check);
}

fn client_tls(tls: &ClientTlsSettings, at: &FieldPath, check: &mut Check<'_>) {
    let written = [
        ("clientCertificate", !tls.client_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
    ];
    match tls.mode {
        ClientTlsMode::IstioMutual => {
            for (field, written) in written {
                if written {
                    check.error(&at.key(field), format!("{field} must be empty with ISTIO_MUTUAL"));
                }
            }
            if !tls.credential_name.is_empty() {
                check.error(&at.key("credentialName"), "credentialName must be empty with ISTIO_MUTUAL");
            }
        }
        ClientTlsMode::Mutual if tls.credential_name.is_empty() => {
            for (field, written) in written.iter().take(2) {
                if !written {
                    check.error(&at.key(field), format!("{field} is required with MUTUAL"));
                }
            }
        }
        ClientTlsMode::Mutual => {
            for (field, written) in written {
                if written {
                    check.error(&at.key(field), format!("{field} cannot go with credentialName"));
                }
            }
        }
        ClientTlsMode::Disable | ClientTlsMode::Simple => {}
    }
    if tls.insecure_skip_verify == Some(true) {
        let credential = tls.mode == ClientTlsMode::Simple && !tls.credential_name.is_empty();
        for (field, written) in [
            ("caCertificates", !tls.ca_certificates.is_empty()),
            ("credentialName", credential),
            ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ] {
            if written {
                check.error(&at.key(field), format!("{field} has no meaning with insecureSkipVerify"));
            }
        }
    }
}

fn tunnel_settings(tunnel: &TunnelSettings, at: &FieldPath, check: &mut Check<'_>) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        check.error(&at.key("protocol"), "the tunnel's protocol is CONNECT or POST");
    }
    if !names::is_ip(&tunnel.target_host) {
        check.problem(&at.key("targetHost"), names::fqdn(&tunnel.target_host));
    }
    ports::number(tunnel.target_port, &at.key("targetPort"), check);
}

fn not_negative(number: i32, at: &FieldPath, check: &mut Check<'_>) {
    if number < 0 {
        check.error(at, format!("{number} must not be negative"));
    }
}

/// `region/zone/subzone`, a `*` only as the last part.
fn locality_pattern(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let last = parts.len() - 1;
    let early_star = parts.iter().take(last).any(|part| part.contains('*'));
    let odd_star = parts.last().is_some_and(|part| part.contains('*') && *part != "*");
    if parts.len() > 3 || early_star || odd_star || parts.iter().any(|part| part.is_empty()) {
        return Some(format!("`{text}` is not region/zone/subzone with `*` only at the end"));
    }
    None
}

/// Localities of one list must not contain each other.
fn overlapping(list: &[&str], at: &FieldPath, check: &mut Check<'_>) {
    for (index, one) in list.iter().enumerate() {
        let Some(other) = list.iter().take(index).find(|other| contains(one, other) || contains(other, one)) else {
            continue;
        };
        check.error(at, format!("the localities `{other}` and `{one}` overlap"));
    }
}

fn contains(outer: &str, inner: &str) -> bool {
    let outer = outer.trim_end_matches('*').trim_end_matches('/');
    outer.is_empty() || inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// Trial division; the caller bounds the number by 5,000,011, so at most 2,236 steps.
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}
