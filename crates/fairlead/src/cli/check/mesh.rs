//! The peers, as the control plane has them: fresh, reachable, of one clock, in ranges that do not clash.
//!
//! Invariant: a peer is judged by what its stream and its data path say now, never by what is configured.

use super::finding::Finding;
use super::{codes, inside};
use crate::cli::kubernetes::{Cluster, Kind, answer, control_pods};
use anyhow::Context as _;
use fairlead_control::codes::{REMOTE_CREDENTIAL, TRUST_CONFLICT};
use fairlead_install::Values;
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// `serving`: where the control plane's pods are.
pub async fn check(cluster: &Cluster, serving: &Cluster, values: &Values, flags: &str) -> Vec<Finding> {
    match ask(serving).await {
        Err(e) => vec![Finding::skipped("peers", format!("{e:#}"), "see above")],
        Ok((peers, endpoints, diagnostics)) => {
            let mut findings = judge_peers(&peers, flags);
            findings.extend(judge_names(&diagnostics, flags));
            if values.remote.is_some() {
                findings.push(judge_credential(&diagnostics, flags));
            }
            match ranges(cluster).await {
                Ok(ranges) => findings.push(judge_ranges(&ranges, &endpoints, &values.cluster, values.network())),
                Err(e) => findings.push(Finding::skipped(
                    "pod ranges",
                    format!("{e:#}"),
                    "ask as somebody who may list nodes",
                )),
            }
            findings
        }
    }
}

async fn ask(cluster: &Cluster) -> anyhow::Result<(Vec<Value>, Vec<Value>, Vec<Value>)> {
    let pod = control_pods(cluster).await?.into_iter().next().context("no control plane is ready")?;
    let mut lists = Vec::new();
    for what in ["peers", "endpoints", "diagnostics"] {
        let words: Vec<String> = ["get", what, "-o", "json"].map(str::to_owned).to_vec();
        let said = answer(cluster, &pod, &words, "").await?;
        if said.code != 0 {
            anyhow::bail!("pod {pod}: get {what}: {}", String::from_utf8_lossy(&said.errors).trim());
        }
        lists.push(serde_json::from_slice(&said.output).with_context(|| format!("pod {pod}: get {what}"))?);
    }
    let mut lists = lists.into_iter();
    let mut next = || lists.next().unwrap_or_default();
    Ok((next(), next(), next()))
}

/// Ranges that the nodes give their pods addresses from.
pub async fn ranges(cluster: &Cluster) -> anyhow::Result<Vec<IpNet>> {
    let nodes = cluster.list(&Kind::new("v1", "Node"), None, "").await?;
    let of = |node: &Value| node["spec"]["podCIDRs"].as_array().cloned().unwrap_or_default();
    Ok(nodes.iter().flat_map(of).filter_map(|r| r.as_str()?.parse().ok()).collect())
}

pub fn judge_peers(peers: &[Value], flags: &str) -> Vec<Finding> {
    if peers.is_empty() {
        let remedy = format!("fairlead token create{flags}, and fairlead join TOKEN on the other side");
        return vec![Finding::skipped("peers", "this cluster has none yet", remedy)];
    }
    peers
        .iter()
        .flat_map(|peer| {
            let name = peer["cluster"].as_str().unwrap_or_default();
            let addresses = peer["addresses"].as_array().cloned().unwrap_or_default();
            let dialled = addresses.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
            let mut findings = Vec::new();
            findings.push(if peer["stale"] == true {
                let connected = peer["connected"] == true;
                let message = format!(
                    "{name} was not heard of for 15 s or more (stream {})",
                    if connected { "up" } else { "down" }
                );
                Finding::bad(
                    codes::PEER_STALE,
                    "peers",
                    message,
                    format!("open {dialled} for this cluster's nodes, or look at {name}'s control plane"),
                )
            } else if peer["path"] == "down" {
                Finding::bad(
                    codes::PEER_PATH,
                    "peers",
                    format!("no path to the endpoints of {name}"),
                    format!("open port 15443 of {name}'s gateway for this cluster's nodes"),
                )
            } else {
                Finding::good(
                    "peers",
                    format!("{name} is fresh, its path {}", peer["path"].as_str().unwrap_or("unknown")),
                )
            });
            findings.extend(peer["clockAhead"].as_i64().and_then(|ahead| inside::clock(ahead, name)));
            findings
        })
        .collect()
}

/// A name that two clusters claim is told of by a diagnostic.
pub fn judge_names(diagnostics: &[Value], flags: &str) -> Vec<Finding> {
    let text = |d: &Value| d["message"].as_str().unwrap_or_default().to_owned();
    let contested: Vec<_> = diagnostics.iter().filter(|d| d["code"] == TRUST_CONFLICT).map(text).collect();
    if contested.is_empty() {
        return vec![Finding::good("cluster names", "no name is claimed twice")];
    }
    let remedy =
        format!("reinstall one of the clusters under another --cluster name, then fairlead detach NAME{flags}");
    contested.into_iter().map(|m| Finding::bad(codes::CLUSTER_NAME, "cluster names", m, remedy.clone())).collect()
}

/// How a remote cluster's control plane is let into its API server.
fn judge_credential(diagnostics: &[Value], flags: &str) -> Finding {
    match diagnostics.iter().find(|d| d["code"] == REMOTE_CREDENTIAL) {
        None => Finding::good("credential", "the API server accepts what its primary shows"),
        Some(told) => Finding::bad(
            codes::CREDENTIAL,
            "credential",
            told["message"].as_str().unwrap_or_default(),
            format!("fairlead join{flags} --primary CONTEXT-OF-THE-PRIMARY makes a new one"),
        ),
    }
}

/// In a flat network another cluster's pod cannot have an address of our range.
pub fn judge_ranges(ranges: &[IpNet], endpoints: &[Value], cluster: &str, network: &str) -> Finding {
    let mut clashing = BTreeSet::new();
    for endpoint in endpoints.iter().filter(|e| e["network"] == network) {
        let workload = endpoint["workload"].as_str().unwrap_or_default();
        let other = workload.split('/').next().unwrap_or_default();
        let address = endpoint["address"].as_str().unwrap_or_default();
        let ip: Option<IpAddr> =
            address.parse().ok().or_else(|| address.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()));
        if other != cluster && ip.is_some_and(|ip| ranges.iter().any(|r| r.contains(&ip))) {
            clashing.insert(other.to_owned());
        }
    }
    if clashing.is_empty() {
        return Finding::good(
            "pod ranges",
            format!("no pod of another cluster in network {network} has an address of this one's ranges"),
        );
    }
    let names = clashing.into_iter().collect::<Vec<_>>().join(", ");
    let message = format!(
        "pods of {names} have addresses of this cluster's range, and both say that they are in network {network}"
    );
    Finding::bad(
        codes::POD_RANGES,
        "pod ranges",
        message,
        "give one of them another network (fairlead install --network NAME): then gateways lead there; in a flat network the ranges must differ",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use serde_json::json;

    fn states(findings: &[Finding]) -> Vec<State> {
        findings.iter().map(|f| f.state).collect()
    }

    #[test]
    fn peers_are_fresh_reachable_and_of_one_clock() {
        let peer = |stale: bool, path: &str, ahead: i64| json!({"cluster": "west", "connected": !stale, "stale": stale, "path": path, "clockAhead": ahead, "addresses": ["192.0.2.1:15012"]});
        assert_eq!(states(&judge_peers(&[], "")), [State::Skipped]);
        assert_eq!(states(&judge_peers(&[peer(false, "up", 1)], "")), [State::Good]);
        assert_eq!(states(&judge_peers(&[peer(true, "up", 1)], "")), [State::Bad]);
        assert!(judge_peers(&[peer(true, "up", 1)], "")[0].remedy.contains("192.0.2.1:15012"));
        assert_eq!(states(&judge_peers(&[peer(false, "down", 0)], "")), [State::Bad]);
        assert_eq!(states(&judge_peers(&[peer(false, "up", -90)], "")), [State::Good, State::Bad]);
    }

    #[test]
    fn ranges_clash_only_in_one_network() {
        let ranges = ["10.1.0.0/16".parse().unwrap()];
        let endpoint = |workload: &str, network: &str, address: &str| json!({"workload": workload, "network": network, "address": address});
        let of = |endpoints: &[Value]| judge_ranges(&ranges, endpoints, "east", "lan").state;
        assert_eq!(
            of(&[endpoint("east/a/b", "lan", "10.1.0.1"), endpoint("west/a/b", "lan", "10.2.0.1")]),
            State::Good
        );
        assert_eq!(of(&[endpoint("west/a/b", "other", "10.1.0.1")]), State::Good);
        assert_eq!(of(&[endpoint("west/a/b", "lan", "10.1.0.1")]), State::Bad);
    }
}
