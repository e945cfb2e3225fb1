//! Several clusters held against each other: names, trust domains, ranges.
//!
//! Invariant: says only what one cluster alone cannot know.

use super::finding::Finding;
use super::mesh::ranges;
use crate::cli::kubernetes::Cluster;
use fairlead_install::Values;
use ipnet::IpNet;

pub async fn check(clusters: &[(Cluster, Values)]) -> Vec<Finding> {
    let mut known = Vec::new();
    for (cluster, values) in clusters {
        // Whoever cannot list nodes has heard so from the check of that cluster.
        known.push((cluster.name.as_str(), values, ranges(cluster).await.unwrap_or_default()));
    }
    judge(&known)
}

fn judge(clusters: &[(&str, &Values, Vec<IpNet>)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, (a, left, left_ranges)) in clusters.iter().enumerate() {
        for (b, right, right_ranges) in &clusters[n + 1..] {
            if left.cluster == right.cluster {
                let message = format!("{a} and {b} both call themselves {}", left.cluster);
                let remedy = "reinstall one of them under another --cluster name: identities and membership go by it";
                findings.push(Finding::bad("cluster names", message, remedy));
            }
            if left.mesh.trust_domain != right.mesh.trust_domain || left.mesh.trust != right.mesh.trust {
                let message = format!(
                    "{a} and {b} have different trust: {} and {}",
                    left.mesh.trust_domain, right.mesh.trust_domain
                );
                findings.push(Finding::doubtful(
                    "trust domains",
                    message,
                    "fine for two meshes that join; else install with equal --mesh-trust-domain",
                ));
            }
            let overlap = |x: &IpNet, y: &IpNet| x.contains(&y.network()) || y.contains(&x.network());
            let clash = left_ranges.iter().find_map(|x| right_ranges.iter().find(|y| overlap(x, y)).map(|y| (x, y)));
            if let Some((x, y)) = clash.filter(|_| left.network() == right.network()) {
                let message = format!(
                    "{a} ({x}) and {b} ({y}) have clashing pod ranges, and both say that they are in network {}",
                    left.network()
                );
                findings.push(Finding::bad(
                    "pod ranges",
                    message,
                    "give one of them another network: fairlead install --network NAME",
                ));
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

    fn values(cluster: &str, network: &str) -> Values {
        Values { cluster: cluster.into(), network: network.into(), ..Values::default() }
    }

    #[test]
    fn names_networks_and_ranges_must_fit() {
        let range = |r: &str| vec![r.parse::<IpNet>().unwrap()];
        let of = |left: &Values, right: &Values, r: &str| {
            let all = judge(&[("c1", left, range("10.1.0.0/16")), ("c2", right, range(r))]);
            all.iter().map(|f| (f.check, f.state)).collect::<Vec<_>>()
        };
        assert_eq!(of(&values("a", ""), &values("b", ""), "10.1.2.0/24"), [("together", State::Good)], "own networks");
        assert_eq!(of(&values("a", "lan"), &values("b", "lan"), "10.1.2.0/24"), [("pod ranges", State::Bad)]);
        assert_eq!(of(&values("a", "lan"), &values("b", "lan"), "10.2.0.0/16"), [("together", State::Good)]);
        assert_eq!(of(&values("a", "x"), &values("a", "y"), "10.2.0.0/16"), [("cluster names", State::Bad)]);
    }
}
