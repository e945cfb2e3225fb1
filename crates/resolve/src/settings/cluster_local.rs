//! Hosts that never leave their cluster (MeshConfig `serviceSettings`).
//!
//! Never consulted for `clusterset.local` names. Rule (Istio): the most specific host that matches decides; Istio's
//! defaults hold unless an entry with `clusterLocal: false` covers them.

use fairlead_model::matching::host_covers;
use fairlead_resources::istio::MeshConfig;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Patterns with the value that holds, most specific first.
pub(super) fn hosts(config: &MeshConfig, domain: &str) -> Vec<(String, bool)> {
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    for entry in &config.service_settings {
        let local = entry.settings.as_ref().is_some_and(|settings| settings.cluster_local);
        for host in &entry.hosts {
            found.entry(host.clone()).or_insert(local);
        }
    }
    let defaults = [
        format!("*.kube-system.svc.{domain}"),
        format!("kubernetes.default.svc.{domain}"),
        format!("istiod.istio-system.svc.{domain}"),
    ];
    for default in defaults {
        let lifted = found.iter().any(|(host, local)| !local && (host == &default || host_covers(host, &default)));
        if !lifted {
            found.entry(default).or_insert(true);
        }
    }
    let mut sorted: Vec<(String, bool)> = found.into_iter().collect();
    sorted.sort_by_key(|(host, _)| (host.starts_with('*'), Reverse(host.len()), host.clone()));
    sorted
}

/// Whether `host` stays in its cluster.
pub(crate) fn is_local(hosts: &[(String, bool)], host: &str) -> bool {
    hosts.iter().find(|(pattern, _)| pattern == host || host_covers(pattern, host)).is_some_and(|(_, local)| *local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_resources::istio::{ServiceSetting, ServiceSettings};

    fn entry(cluster_local: bool, host: &str) -> ServiceSettings {
        ServiceSettings { settings: Some(ServiceSetting { cluster_local }), hosts: vec![host.into()] }
    }

    #[test]
    fn the_most_specific_host_wins() {
        let config = MeshConfig {
            service_settings: vec![
                entry(true, "*.shop.svc.cluster.local"),
                entry(false, "reviews.shop.svc.cluster.local"),
                entry(false, "*.kube-system.svc.cluster.local"),
            ],
            ..MeshConfig::default()
        };
        let hosts = hosts(&config, "cluster.local");
        assert!(is_local(&hosts, "cart.shop.svc.cluster.local"));
        assert!(!is_local(&hosts, "reviews.shop.svc.cluster.local"));
        assert!(!is_local(&hosts, "dns.kube-system.svc.cluster.local"));
        assert!(is_local(&hosts, "kubernetes.default.svc.cluster.local"));
        assert!(!is_local(&hosts, "a.other.svc.cluster.local"));
    }
}
