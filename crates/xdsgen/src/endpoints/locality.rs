//! Which locality rule holds for one caller of one destination.
//!
//! Precedence: DestinationRule `localityLbSetting`, else MeshConfig's; `distribute` whose `from` covers the caller before
//! everything else; then the mesh's locality mode.

use fairlead_model::ids::Locality;
use fairlead_model::policy::{Distribute, LocalityPolicy, PolicyBlocks};
use fairlead_model::settings::{LocalityMode, MeshSettings, Profile};
use serde::Serialize;
use std::collections::BTreeMap;

/// Settled for one caller; nothing in it needs looking up again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum LocalityRule {
    /// All endpoints are equal.
    Even,
    /// Own cluster and zone; own cluster and region; own cluster; same zone; same region; rest.
    PreferLocal { failover: Vec<(String, String)> },
    /// Istio: label priorities (if any), then subzone, zone, region, rest (if `regions`).
    Istio { labels: Vec<String>, regions: Option<Vec<(String, String)>> },
    /// Fixed shares by locality pattern. Unlisted localities are left out, or follow in the order of `failover`.
    Distribute { to: BTreeMap<String, u32>, failover: Option<Box<LocalityRule>>, exact: bool },
}

impl LocalityRule {
    /// Whether locality weights must be honoured by the balancer.
    pub fn is_weighted(&self) -> bool {
        matches!(self, Self::Distribute { .. })
    }

    /// Whether the first priority keeps everything while any of its endpoints is healthy.
    pub fn fails_over_when_none(&self) -> bool {
        matches!(self, Self::Distribute { failover: Some(_), .. })
    }

    pub fn needs_locality(&self) -> bool {
        match self {
            Self::Even => false,
            Self::PreferLocal { .. } => true,
            Self::Istio { regions, .. } => regions.is_some(),
            Self::Distribute { failover, .. } => failover.as_ref().is_some_and(|rule| rule.needs_locality()),
        }
    }

    /// Names of the caller's labels that decide.
    pub fn needs_labels(&self) -> &[String] {
        match self {
            Self::Istio { labels, .. } => labels,
            _ => &[],
        }
    }
}

/// The rule of a caller at `locality` under `blocks` of a service with this `trafficDistribution`.
pub fn of_caller(
    settings: &MeshSettings,
    blocks: Option<&PolicyBlocks>,
    traffic_distribution: Option<&str>,
    locality: &Locality,
) -> LocalityRule {
    let policy = blocks.and_then(|b| b.locality.as_ref()).unwrap_or(&settings.locality_policy);
    let outlier = blocks.is_some_and(|b| b.outlier.is_some());
    if let Some(distribute) = policy.distribute.iter().find(|d| policy.enabled && pattern_covers(&d.from, locality)) {
        return distributed(settings, policy, distribute);
    }
    if !policy.enabled {
        return LocalityRule::Even;
    }
    let labels = || policy.failover_priority.clone();
    match settings.locality {
        LocalityMode::PreferLocal if policy.failover_priority.is_empty() => {
            LocalityRule::PreferLocal { failover: policy.failover.clone() }
        }
        LocalityMode::PreferLocal => {
            let regions = (!policy.failover.is_empty()).then(|| policy.failover.clone());
            LocalityRule::Istio { labels: labels(), regions }
        }
        LocalityMode::Istio => {
            // A Service's trafficDistribution is a label ladder of its own and needs no outlier detection.
            if let Some(ladder) = traffic_distribution.and_then(ladder) {
                return LocalityRule::Istio { labels: ladder, regions: None };
            }
            if !outlier {
                return LocalityRule::Even;
            }
            if policy.failover_priority.is_empty() {
                LocalityRule::Istio { labels: Vec::new(), regions: Some(policy.failover.clone()) }
            } else {
                let regions = (!policy.failover.is_empty()).then(|| policy.failover.clone());
                LocalityRule::Istio { labels: labels(), regions }
            }
        }
    }
}

fn distributed(settings: &MeshSettings, policy: &LocalityPolicy, distribute: &Distribute) -> LocalityRule {
    // Istio refuses `distribute` beside `failover`; here both hold.
    let failover = (settings.profile == Profile::Fairlead && !policy.failover.is_empty()).then(|| {
        Box::new(match settings.locality {
            LocalityMode::PreferLocal => LocalityRule::PreferLocal { failover: policy.failover.clone() },
            LocalityMode::Istio => LocalityRule::Istio { labels: Vec::new(), regions: Some(policy.failover.clone()) },
        })
    });
    LocalityRule::Distribute { to: distribute.to.clone(), failover, exact: settings.profile == Profile::Fairlead }
}

/// Istio's ladders for Service `trafficDistribution`.
fn ladder(name: &str) -> Option<Vec<String>> {
    let labels: &[&str] = match name {
        "PreferClose" | "PreferSameZone" => &LADDER[..3],
        "PreferSameNode" => &LADDER,
        _ => return None,
    };
    Some(labels.iter().map(|&l| l.to_owned()).collect())
}

/// The longest of them; the others are its beginning.
pub const LADDER: [&str; 5] = [NETWORK, REGION, ZONE, SUBZONE, HOSTNAME];

pub const CLUSTER: &str = "topology.istio.io/cluster";
pub const NETWORK: &str = "topology.istio.io/network";
pub const REGION: &str = "topology.kubernetes.io/region";
pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const SUBZONE: &str = "topology.istio.io/subzone";
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Whether `region/zone/subzone` (`*` and missing parts are anything) covers a locality.
pub fn pattern_covers(pattern: &str, locality: &Locality) -> bool {
    let mut parts = pattern.splitn(3, '/');
    let mut covers = |value: &str| match parts.next() {
        None | Some("*") => true,
        Some(part) => part == value,
    };
    covers(&locality.region) && covers(&locality.zone) && covers(&locality.subzone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_istio_says() {
        let here = Locality::parse("us-east/a/1");
        for (pattern, expected) in [
            ("us-east/a/1", true),
            ("us-east/a", true),
            ("us-east/a/*", true),
            ("us-east/*", true),
            ("us-east", true),
            ("*", true),
            ("us-east/b", false),
            ("us-west/*", false),
            ("us-east/a/2", false),
        ] {
            assert_eq!(pattern_covers(pattern, &here), expected, "{pattern}");
        }
    }
}
