//! `fairlead probe`, run in the control plane's pod: that pod's network is the mesh's, this machine's is not.
//!
//! Must never need more than exec into that pod, which `get` and `join` need too. Invariant: the question goes by standard input, since a
//! join token is a secret and arguments are written down.

use super::finding::Finding;
use super::{codes, inside, paths};
use crate::cli::kubernetes::{Cluster, Kind, answer, control_pods, names};
use crate::probe::seen::{PodAddress, Question, Seen};
use anyhow::Context as _;
use fairlead_install::control::CONTROL;
use fairlead_install::gateway::EAST_WEST;
use fairlead_install::{NAMESPACE, Values};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Pods whose capture is tried; the first of as many workloads as there are.
const MOST_PODS: usize = 20;
/// A port that no program has (tcpmux), and that capture takes as any other.
const NOBODYS: u16 = 1;

/// What the pod was asked, beside what it saw.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    pub seen: Seen,
    /// Addresses of the Services whose names were looked up.
    pub wanted: BTreeMap<String, Vec<IpAddr>>,
    /// Pods of the mesh that could not be tried.
    pub untried: usize,
}

/// Asks; or a finding that says why not.
pub async fn ask(cluster: &Cluster, values: &Values, token: Option<&str>) -> Result<Inside, Finding> {
    asked(cluster, values, token).await.map_err(|e| {
        let remedy = "the control plane must run, of this version or a newer one, and you may exec into its pod";
        Finding::bad(codes::UNASKED, "data path", format!("{e:#}"), remedy)
    })
}

async fn asked(cluster: &Cluster, values: &Values, token: Option<&str>) -> anyhow::Result<Inside> {
    let mut inside = Inside::default();
    let mut question = Question { token: token.map(str::to_owned), ..Question::default() };
    let mut services = vec![values.named(CONTROL)];
    if values.gateway.enabled {
        services.push(EAST_WEST.to_owned());
        question.gateway = Some(format!("{EAST_WEST}.{NAMESPACE}.svc:15443"));
    }
    for service in services {
        let name = format!("{service}.{NAMESPACE}.svc");
        let found = cluster.get(&Kind::new("v1", "Service"), Some(NAMESPACE), &service).await?;
        let addresses = found.map(|s| s["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default());
        let addresses = addresses.unwrap_or_default().iter().filter_map(|a| a.as_str()?.parse().ok()).collect();
        inside.wanted.insert(name.clone(), addresses);
        question.names.push(name);
    }
    let pods = cluster.list(&Kind::new("v1", "Pod"), None, "security.istio.io/tlsMode=istio").await?;
    (question.pods, inside.untried) = capturable(&pods);
    let pod = control_pods(cluster).await?.into_iter().next().context("no control plane is ready")?;
    let said = answer(cluster, &pod, &["probe".to_owned()], &serde_json::to_string(&question)?).await?;
    if said.code != 0 {
        anyhow::bail!("pod {pod}: probe: {}", String::from_utf8_lossy(&said.errors).trim());
    }
    inside.seen = serde_json::from_slice(&said.output).with_context(|| format!("pod {pod}: probe"))?;
    Ok(inside)
}

/// Running pods that take every port through their proxy, one a workload; and how many take only some.
fn capturable(pods: &[Value]) -> (Vec<PodAddress>, usize) {
    let (mut found, mut untried, mut workloads) = (Vec::new(), 0, BTreeSet::new());
    for pod in pods.iter().filter(|p| p["status"]["phase"] == "Running" && p["metadata"]["deletionTimestamp"].is_null())
    {
        let annotation = |name: &str| pod["metadata"]["annotations"][name].as_str();
        let included = annotation("traffic.sidecar.istio.io/includeInboundPorts").unwrap_or("*").trim();
        let excluded = annotation("traffic.sidecar.istio.io/excludeInboundPorts").unwrap_or_default();
        if included != "*" || excluded.split(',').any(|port| port.trim() == NOBODYS.to_string()) {
            untried += 1;
            continue;
        }
        let (namespace, name) = names(pod);
        let owner = pod["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or(name).to_owned();
        let address = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
        if let (Some(address), true) = (address, workloads.insert(owner)) {
            let pod = format!("{}/{name}", namespace.unwrap_or_default());
            found.push(PodAddress { pod, address: SocketAddr::new(address, NOBODYS) });
        }
    }
    found.truncate(MOST_PODS);
    (found, untried)
}

/// All that was seen inside.
pub fn judge(inside: &Inside, values: &Values, here: i64) -> Vec<Finding> {
    let mut findings = inside::names(&inside.seen, &inside.wanted);
    findings.extend(inside::clock(inside.seen.now - here, "the control plane's node"));
    findings.extend(inside::capture(&inside.seen.pods, inside.untried));
    findings.extend(paths::judge(&inside.seen));
    if let Some(token) = &inside.seen.token {
        findings.extend(inside::token(token, &values.cluster, inside.seen.now));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_pod_a_workload_is_tried_where_every_port_is_taken() {
        let pod = |name: &str, owner: &str, annotations: Value| {
            json!({"metadata": {"namespace": "shop", "name": name, "annotations": annotations, "ownerReferences": [{"uid": owner}]},
                "status": {"phase": "Running", "podIP": "10.1.0.9"}})
        };
        let some = json!({"traffic.sidecar.istio.io/includeInboundPorts": "80"});
        let (found, untried) = capturable(&[
            pod("a", "1", json!({})),
            pod("b", "1", json!({})),
            pod("c", "2", some),
            pod("d", "3", json!({})),
        ]);
        assert_eq!(found.iter().map(|p| p.pod.as_str()).collect::<Vec<_>>(), ["shop/a", "shop/d"]);
        assert_eq!((found[0].address.port(), untried), (NOBODYS, 1));
    }
}
