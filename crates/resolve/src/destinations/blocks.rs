//! The blocks of a traffic policy, written or not, and how they override each other.
//!
//! Never merges inside a block. Invariants (Istio `MergeTrafficPolicy`): a subset's block replaces the service's whole
//! block; a port-level setting replaces all blocks of its port, what it leaves out goes to the built-in defaults.

use super::convert;
use fairlead_model::policy::{
    Balancing, ClientTls, ConnectionPool, H2Upgrade, LocalityPolicy, OutlierDetection, PolicyBlocks, TrafficPolicy,
};
use fairlead_resources::istio::{self as written, MeshConfig, MeshH2UpgradePolicy};
use std::collections::BTreeMap;
use std::time::Duration;

/// The four blocks, each `None` if it was not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub balancing: Option<(Balancing, Option<LocalityPolicy>)>,
    pub pool: Option<ConnectionPool>,
    pub outlier: Option<OutlierDetection>,
    pub tls: Option<ClientTls>,
}

/// One `trafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    pub blocks: Blocks,
    pub ports: BTreeMap<u16, Blocks>,
}

/// MeshConfig defaults that hold for every destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshDefaults {
    /// MeshConfig `tcpKeepalive`: probes, time, interval.
    pub keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
    /// MeshConfig `h2UpgradePolicy: UPGRADE`.
    pub h2_upgrade: bool,
}

impl MeshDefaults {
    /// Reads them.
    pub fn new(config: &MeshConfig) -> Self {
        Self {
            keepalive: config.tcp_keepalive.as_ref().map(convert::keepalive),
            h2_upgrade: config.h2_upgrade_policy == Some(MeshH2UpgradePolicy::Upgrade),
        }
    }

    /// Whether a destination without any rule needs a policy all the same.
    pub fn is_empty(&self) -> bool {
        self.keepalive.is_none() && !self.h2_upgrade
    }

    fn apply(&self, pool: &mut ConnectionPool) {
        if pool.tcp_keepalive.is_none() {
            pool.tcp_keepalive = self.keepalive;
        }
        if self.h2_upgrade && pool.h2_upgrade == H2Upgrade::Default {
            pool.h2_upgrade = H2Upgrade::Upgrade;
        }
    }
}

impl Blocks {
    /// Every block of `over` that is written, else the own.
    fn overridden_by(&self, over: &Blocks) -> Blocks {
        Blocks {
            balancing: over.balancing.clone().or_else(|| self.balancing.clone()),
            pool: over.pool.clone().or_else(|| self.pool.clone()),
            outlier: over.outlier.clone().or_else(|| self.outlier.clone()),
            tls: over.tls.clone().or_else(|| self.tls.clone()),
        }
    }

    fn settled(&self, defaults: &MeshDefaults) -> PolicyBlocks {
        let (balancing, locality) = self.balancing.clone().unwrap_or_default();
        let mut pool = self.pool.clone().unwrap_or_default();
        defaults.apply(&mut pool);
        PolicyBlocks { balancing, locality, pool, outlier: self.outlier.clone(), tls: self.tls.clone() }
    }
}

impl Layer {
    /// Reads one `trafficPolicy`.
    pub fn new(policy: &written::TrafficPolicy) -> Self {
        let blocks = Blocks {
            balancing: policy.load_balancer.as_ref().map(convert::balancing),
            pool: policy.connection_pool.as_ref().map(convert::pool),
            outlier: policy.outlier_detection.as_ref().map(convert::outlier),
            tls: policy.tls.as_ref().map(convert::tls),
        };
        let mut ports = BTreeMap::new();
        for setting in &policy.port_level_settings {
            let Some(port) = setting.port.as_ref().and_then(|port| u16::try_from(port.number).ok()) else { continue };
            ports.entry(port).or_insert_with(|| Blocks {
                balancing: setting.load_balancer.as_ref().map(convert::balancing),
                pool: setting.connection_pool.as_ref().map(convert::pool),
                outlier: setting.outlier_detection.as_ref().map(convert::outlier),
                tls: setting.tls.as_ref().map(convert::tls),
            });
        }
        Self { blocks, ports }
    }

    /// This policy with a subset's over it.
    pub fn overridden_by(&self, over: &Layer) -> Layer {
        let mut ports: BTreeMap<u16, Blocks> =
            self.ports.iter().map(|(port, blocks)| (*port, blocks.overridden_by(&over.blocks))).collect();
        ports.extend(over.ports.iter().map(|(port, blocks)| (*port, blocks.clone())));
        Layer { blocks: self.blocks.overridden_by(&over.blocks), ports }
    }

    /// With all defaults. A port-level setting without `tls` keeps what the service-level block says about mutual TLS
    /// (Istio's automatic mutual TLS check looks through port-level settings that have none).
    pub fn settled(&self, defaults: &MeshDefaults) -> TrafficPolicy {
        let ports = self.ports.iter().map(|(port, blocks)| {
            let mut settled = blocks.settled(defaults);
            if settled.tls.is_none() {
                settled.tls = match &self.blocks.tls {
                    Some(ClientTls::Disable | ClientTls::Simple { .. }) => Some(ClientTls::Disable),
                    Some(ClientTls::IstioMutual { .. }) => {
                        Some(ClientTls::IstioMutual { sni: None, subject_alt_names: Vec::new() })
                    }
                    None => None,
                };
            }
            (*port, settled)
        });
        TrafficPolicy { default: self.blocks.settled(defaults), ports: ports.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(max: u32) -> Option<ConnectionPool> {
        Some(ConnectionPool { max_connections: Some(max), ..ConnectionPool::default() })
    }

    fn service() -> Layer {
        let blocks = Blocks {
            pool: pool(1),
            outlier: Some(OutlierDetection::default()),
            tls: Some(ClientTls::Disable),
            balancing: None,
        };
        let port = Blocks { pool: pool(2), ..Blocks::default() };
        Layer { blocks, ports: BTreeMap::from([(80, port)]) }
    }

    #[test]
    fn a_subset_overrides_block_by_block() {
        let subset = Layer { blocks: Blocks { pool: pool(3), ..Blocks::default() }, ports: BTreeMap::new() };
        let merged = service().overridden_by(&subset).settled(&MeshDefaults::default());
        assert_eq!(merged.default.pool.max_connections, Some(3));
        assert!(merged.default.outlier.is_some());
        // The subset's block also lies over the service's port-level setting.
        assert_eq!(merged.ports[&80].pool.max_connections, Some(3));
    }

    #[test]
    fn a_port_level_setting_replaces_everything_but_the_say_on_mutual_tls() {
        let settled = service().settled(&MeshDefaults::default());
        assert_eq!(settled.ports[&80].pool.max_connections, Some(2));
        assert_eq!(settled.ports[&80].outlier, None);
        assert_eq!(settled.ports[&80].tls, Some(ClientTls::Disable));
    }

    #[test]
    fn mesh_defaults_hold_where_nothing_is_written() {
        let defaults = MeshDefaults { keepalive: Some((Some(3), None, None)), h2_upgrade: true };
        let settled = service().settled(&defaults);
        assert_eq!(settled.default.pool.tcp_keepalive, Some((Some(3), None, None)));
        assert_eq!(settled.default.pool.h2_upgrade, H2Upgrade::Upgrade);
    }
}
