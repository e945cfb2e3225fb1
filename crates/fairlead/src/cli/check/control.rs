//! The control plane's Deployment and version, and the gateway: is it there, has it an address, does that answer?
//!
//! Invariant: an address counts as reachable only when a connection to it was made, from here.

use super::codes;
use super::finding::Finding;
use crate::cli::kubernetes::{Answer, Cluster, Kind, answer, control_pods, trouble};
use crate::probe::seen::PeerSeen;
use fairlead_install::control::CONTROL;
use fairlead_install::gateway::EAST_WEST;
use fairlead_install::{Expose, NAMESPACE, Values};
use serde_json::Value;
use std::time::Duration;

/// For a connection to a gateway.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn check(cluster: &Cluster, values: &Values) -> Vec<Finding> {
    let mut findings = vec![deployment(cluster, "control plane", &values.named(CONTROL)).await];
    findings.push(
        version(cluster).await.unwrap_or_else(|e| Finding::skipped("fairlead version", format!("{e:#}"), "see above")),
    );
    findings
}

async fn deployment(cluster: &Cluster, check: &'static str, name: &str) -> Finding {
    let namespace = cluster.control.as_str();
    let found = match cluster.get(&Kind::new("apps/v1", "Deployment"), Some(namespace), name).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            return Finding::bad(
                codes::NOT_READY,
                check,
                format!("Deployment {namespace}/{name} is gone"),
                "run fairlead install again",
            );
        }
        Err(e) => return Finding::bad(codes::UNASKED, check, format!("{e:#}"), "ask as somebody who may"),
    };
    let (available, wanted) =
        (found["status"]["availableReplicas"].as_u64().unwrap_or(0), found["spec"]["replicas"].as_u64().unwrap_or(0));
    if available >= wanted && wanted > 0 {
        return Finding::good(check, format!("{available} of {wanted} replicas are ready"));
    }
    let labels = found["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    let selector: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    let pods = cluster.list(&Kind::new("v1", "Pod"), Some(namespace), &selector.join(",")).await.unwrap_or_default();
    let why = trouble(&pods).first().map_or_else(String::new, |t| format!("; pod {}: {}", t.pod, t.reason));
    let message = format!("{available} of {wanted} replicas are ready{why}");
    let remedy = format!("kubectl describe pods -n {namespace}; kubectl logs -n {namespace} deployment/{name}");
    match available {
        0 => Finding::bad(codes::NOT_READY, check, message, remedy),
        _ => Finding::doubtful(codes::NOT_READY, check, message, remedy),
    }
}

async fn version(cluster: &Cluster) -> anyhow::Result<Finding> {
    let ours = env!("CARGO_PKG_VERSION");
    let mut theirs = Vec::new();
    for pod in control_pods(cluster).await? {
        let Answer { output, .. } = answer(cluster, &pod, &["--version".to_owned()], "").await?;
        theirs.push(String::from_utf8_lossy(&output).trim().trim_start_matches("fairlead ").to_owned());
    }
    theirs.sort();
    theirs.dedup();
    Ok(judge_version(ours, &theirs))
}

/// Whether two versions serve each other: they do when one minor version apart.
pub fn fits(ours: &str, other: &str) -> bool {
    let number = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    match (number(ours), number(other)) {
        (Some((a, b)), Some((c, d))) => a == c && b.abs_diff(d) <= 1,
        _ => false,
    }
}

/// This program and the control plane's replicas.
pub fn judge_version(ours: &str, theirs: &[String]) -> Finding {
    let all = theirs.join(", ");
    if theirs.iter().any(|other| !fits(ours, other)) {
        let message = format!("the control plane is {all}, this is {ours}: more than one minor version apart");
        let remedy = format!("use `fairlead` {all} here, or install {ours} into the cluster");
        return Finding::bad(codes::VERSION_SKEW, "fairlead version", message, remedy);
    }
    if theirs.len() > 1 {
        let message = format!("replicas of {all} run at once");
        let remedy = "wait until the roll-out is over";
        return Finding::doubtful(codes::VERSION_SKEW, "fairlead version", message, remedy);
    }
    Finding::good("fairlead version", format!("control plane {all}, this is {ours}"))
}

/// Peers, against the control plane here, which is `ours` or served by it.
pub fn judge_peers(ours: &str, peers: &[PeerSeen]) -> Vec<Finding> {
    let told = peers.iter().filter(|peer| !peer.own && !peer.version.is_empty());
    let apart = told.filter(|peer| !fits(ours, &peer.version));
    apart
        .map(|peer| {
            let message =
                format!("{} is {}, this is {ours}: more than one minor version apart", peer.cluster, peer.version);
            let remedy = "upgrade the older one, one minor version at a time: fairlead install";
            Finding::bad(codes::VERSION_SKEW, "fairlead version", message, remedy)
        })
        .collect()
}

/// The east-west gateway.
pub async fn gateway(cluster: &Cluster, values: &Values) -> Vec<Finding> {
    if !values.gateway.enabled {
        let remedy = "needed only where clusters are in different networks: --set gateway.enabled=true";
        return vec![Finding::skipped("gateway", "not installed", remedy)];
    }
    let mut findings = vec![deployment(cluster, "gateway", EAST_WEST).await];
    let services = cluster.get(&Kind::new("v1", "Service"), Some(NAMESPACE), EAST_WEST).await;
    let nodes = cluster.list(&Kind::new("v1", "Node"), None, "").await.unwrap_or_default();
    let Ok(Some(service)) = services else {
        findings.push(Finding::bad(
            codes::GATEWAY_ADDRESS,
            "gateway address",
            format!("Service {NAMESPACE}/{EAST_WEST} is gone"),
            "run fairlead install again",
        ));
        return findings;
    };
    if values.expose == Expose::None {
        findings.push(Finding::skipped("gateway address", "this cluster only dials out", "expose it with --expose"));
        return findings;
    }
    let addresses = addresses(&service, &nodes);
    if addresses.is_empty() {
        let (message, remedy) = match values.expose {
            Expose::LoadBalancer => (
                format!("Service {NAMESPACE}/{EAST_WEST} has no load balancer address"),
                "wait for the load balancer; where there is none: fairlead install --expose nodeport",
            ),
            _ => (format!("Service {NAMESPACE}/{EAST_WEST} has no node port"), "run fairlead install again"),
        };
        findings.push(Finding::bad(codes::GATEWAY_ADDRESS, "gateway address", message, remedy));
        return findings;
    }
    for address in addresses {
        let tried = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address.as_str())).await;
        findings.push(match tried {
            Ok(Ok(_)) => Finding::good("gateway address", format!("{address} accepts, from here")),
            Ok(Err(e)) => unreachable(&address, &e.to_string()),
            Err(_) => unreachable(&address, "no answer"),
        });
    }
    findings
}

fn unreachable(address: &str, why: &str) -> Finding {
    let remedy = "open the port for the nodes of other clusters (firewall, security group); if only this machine cannot reach it, try from there";
    Finding::bad(
        codes::GATEWAY_ADDRESS,
        "gateway address",
        format!("{address} does not accept from here: {why}"),
        remedy,
    )
}

/// Where others reach the port called `tls`.
fn addresses(service: &Value, nodes: &[Value]) -> Vec<String> {
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let Some(port) = ports.iter().find(|p| p["name"] == "tls") else { return Vec::new() };
    let joined = |host: &str, port: &Value| {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    };
    if service["spec"]["type"] == "NodePort" {
        let of_node = |node: &Value| {
            let list = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
            let of = |kind: &str| {
                list.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str().map(str::to_owned))
            };
            of("ExternalIP").or_else(|| of("InternalIP"))
        };
        return match port["nodePort"].is_u64() {
            true => nodes.iter().filter_map(of_node).map(|host| joined(&host, &port["nodePort"])).collect(),
            false => Vec::new(),
        };
    }
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let host = |i: &Value| i["ip"].as_str().or_else(|| i["hostname"].as_str()).map(str::to_owned);
    ingress.iter().filter_map(host).map(|host| joined(&host, &port["port"])).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_may_be_one_minor_apart() {
        let of =
            |theirs: &[&str]| judge_version("0.3.1", &theirs.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).state;
        assert_eq!(of(&["0.3.0"]), State::Good);
        assert_eq!(of(&["0.2.9"]), State::Good);
        assert_eq!(of(&["0.2.9", "0.3.1"]), State::Doubtful);
        assert_eq!(of(&["0.5.0"]), State::Bad);
        assert_eq!(of(&["1.3.1"]), State::Bad);
        assert_eq!(of(&["?"]), State::Bad);
        let peer = |version: &str, own| PeerSeen { version: version.into(), own, ..PeerSeen::default() };
        let peers = [peer("0.5.0", true), peer("", false), peer("0.2.0", false), peer("0.5.0", false)];
        assert_eq!(judge_peers("0.3.1", &peers).len(), 1, "of those that have told");
    }

    #[test]
    fn addresses_are_the_load_balancers_or_the_nodes() {
        let ports = json!([{"name": "http-status", "port": 15021, "nodePort": 30000}, {"name": "tls", "port": 15443, "nodePort": 30001}]);
        let balanced = json!({"spec": {"type": "LoadBalancer", "ports": ports}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}, {"hostname": "lb.example"}]}}});
        assert_eq!(addresses(&balanced, &[]), ["192.0.2.1:15443", "[2001:db8::1]:15443", "lb.example:15443"]);
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}]}});
        let ported = json!({"spec": {"type": "NodePort", "ports": ports}});
        assert_eq!(addresses(&ported, &[node]), ["10.0.0.1:30001"]);
        assert_eq!(addresses(&json!({"spec": {"type": "LoadBalancer", "ports": ports}}), &[]), Vec::<String>::new());
    }
}
