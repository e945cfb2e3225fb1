//! Several clusters held against each other: names, trust domains, ranges.
//!
//! Invariant: says only what one cluster alone cannot know.

use super::codes;
use super::finding::Finding;
use super::mesh::ranges;
use crate::cli::kubernetes::Cluster;
use fairlead_install::Values;
use ipnet::IpNet;

/// One cluster, as far as others must fit it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Installed {
    pub cluster: String,
    pub network: String,
    pub trust_domain: String,
    pub trust: String,
    pub ranges: Vec<IpNet>,
}

pub async fn check(clusters: &[(Cluster, Values)]) -> Vec<Finding> {
    let mut known = Vec::new();
    for (cluster, values) in clusters {
        let installed = Installed {
            cluster: values.cluster.clone(),
            network: values.network().to_owned(),
            trust_domain: values.mesh.trust_domain.clone(),
            trust: format!("{:?}", values.mesh.trust),
            // Whoever cannot list nodes has heard so from the check of that cluster.
            ranges: ranges(cluster).await.unwrap_or_default(),
        };
        known.push((cluster.name.clone(), installed));
    }
    judge(&known)
}

/// Pairs of clusters, by the context they were reached by.
pub fn judge(clusters: &[(String, Installed)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, (a, left)) in clusters.iter().enumerate() {
        for (b, right) in &clusters[n + 1..] {
            if left.cluster == right.cluster {
                let message = format!("{a} and {b} both call themselves {}", left.cluster);
                let remedy = "reinstall one of them under another --cluster name: identities and membership go by it";
                findings.push(Finding::bad(codes::CLUSTER_NAME, "cluster names", message, remedy));
            }
            if left.trust_domain != right.trust_domain || left.trust != right.trust {
                let message =
                    format!("{a} and {b} have different trust: {} and {}", left.trust_domain, right.trust_domain);
                let remedy = "fine for two meshes that join; else install with equal --mesh-trust-domain";
                findings.push(Finding::doubtful(codes::TRUST_DOMAINS, "trust domains", message, remedy));
            }
            let overlap = |x: &IpNet, y: &IpNet| x.contains(&y.network()) || y.contains(&x.network());
            let clash = left.ranges.iter().find_map(|x| right.ranges.iter().find(|y| overlap(x, y)).map(|y| (x, y)));
            if let Some((x, y)) = clash.filter(|_| left.network == right.network) {
                let message = format!(
                    "{a} ({x}) and {b} ({y}) have clashing pod ranges, and both say that they are in network {}",
                    left.network
                );
                let remedy = "give one of them another network (fairlead install --network NAME): then gateways lead there; in a flat network the ranges must differ";
                findings.push(Finding::bad(codes::POD_RANGES, "pod ranges", message, remedy));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good("together", "names, trust and ranges of these clusters fit"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn installed(cluster: &str, network: &str, range: &str) -> Installed {
        let ranges = vec![range.parse().unwrap()];
        Installed { cluster: cluster.into(), network: network.into(), ranges, ..Installed::default() }
    }

    #[test]
    fn names_networks_and_ranges_must_fit() {
        let of = |left: (&str, &str), right: (&str, &str), range: &str| {
            let both = [
                ("c1".to_owned(), installed(left.0, left.1, "10.1.0.0/16")),
                ("c2".to_owned(), installed(right.0, right.1, range)),
            ];
            judge(&both).iter().map(|f| (f.code, f.state)).collect::<Vec<_>>()
        };
        let good = [(codes::GOOD, State::Good)];
        assert_eq!(of(("a", "a"), ("b", "b"), "10.1.2.0/24"), good, "own networks");
        assert_eq!(of(("a", "lan"), ("b", "lan"), "10.1.2.0/24"), [(codes::POD_RANGES, State::Bad)]);
        assert_eq!(of(("a", "lan"), ("b", "lan"), "10.2.0.0/16"), good);
        assert_eq!(of(("a", "x"), ("a", "y"), "10.2.0.0/16"), [(codes::CLUSTER_NAME, State::Bad)]);
    }
}
