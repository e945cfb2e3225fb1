//! The stand-in for a cloud's load balancers: Services of type LoadBalancer get the node's address, of each family that they have.
//!
//! kube-proxy leads that address and the Service's port to its endpoints by itself. Decisions are pure ([`Ledger`]); the loop follows
//! `kubectl get --watch`. Invariant: a port of the node belongs to one Service; who comes second stays pending, as with real ones that
//! have run out of addresses.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Which Service holds which port of the node.
#[derive(Debug, Default)]
pub struct Ledger {
    holders: BTreeMap<(String, u64), String>,
    /// Services that wait for a port, with the ports they want.
    pending: BTreeMap<String, Vec<(String, u64)>>,
    freed: bool,
}

impl Ledger {
    /// What is to be written into the status of a Service that was seen, if anything.
    pub fn see(&mut self, node: &[IpAddr], service: &Value, deleted: bool) -> Option<Value> {
        let key = format!("{}/{}", text(&service["metadata"]["namespace"]), text(&service["metadata"]["name"]));
        let balanced = service["spec"]["type"] == "LoadBalancer" && service["metadata"]["deletionTimestamp"].is_null();
        let ports: Vec<_> = match &service["spec"]["ports"] {
            Value::Array(ports) if balanced && !deleted => ports.iter().map(port).collect(),
            _ => Vec::new(),
        };
        self.pending.remove(&key);
        let pending = &self.pending;
        let freed = &mut self.freed;
        self.holders.retain(|port, holder| {
            let kept = *holder != key || ports.contains(port);
            *freed |= !kept && pending.values().any(|wanted| wanted.contains(port));
            kept
        });
        if ports.is_empty() {
            return None;
        }
        let held =
            ports.iter().find_map(|port| self.holders.get(port).filter(|holder| **holder != key).map(|h| (port, h)));
        if let Some(((protocol, port), holder)) = held {
            println!("load balancer: {key} stays pending: port {port}/{protocol} of the node belongs to {holder}");
            self.pending.insert(key, ports);
            return None;
        }
        for port in ports {
            self.holders.insert(port, key.clone());
        }
        let wanted: Vec<_> =
            families(service).iter().filter_map(|v6| node.iter().find(|ip| ip.is_ipv6() == *v6)).collect();
        let present = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        let present: Vec<_> = present.map(|one| text(&one["ip"]).to_owned()).collect();
        let same = present == wanted.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ingress: Vec<_> = wanted.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        (!same).then(|| json!({"status": {"loadBalancer": {"ingress": ingress}}}))
    }

    /// A port became free for which somebody waits: all Services are to be seen again.
    pub fn must_begin_again(&self) -> bool {
        self.freed
    }
}

/// Whether IPv6, for each family of a Service in its order.
fn families(service: &Value) -> Vec<bool> {
    match &service["spec"]["ipFamilies"] {
        Value::Array(families) => families.iter().map(|family| family == "IPv6").collect(),
        _ => vec![false],
    }
}

fn port(port: &Value) -> (String, u64) {
    (port["protocol"].as_str().unwrap_or("TCP").to_owned(), port["port"].as_u64().unwrap_or_default())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Follows the Services of a cluster, for ever.
pub fn run(node: &[IpAddr], kubectl: &dyn Fn(&[&str]) -> Command) {
    loop {
        if let Err(error) = follow(node, kubectl) {
            println!("load balancer: {error:#}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Until the API server ends the watch. Each watch begins with all Services, so a fresh ledger holds what is.
fn follow(node: &[IpAddr], kubectl: &dyn Fn(&[&str]) -> Command) -> anyhow::Result<()> {
    let words = ["get", "services", "--all-namespaces", "--watch", "--output-watch-events", "--output", "json"];
    let mut child = kubectl(&words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let Some(out) = child.stdout.take() else { return Ok(()) };
    let mut ledger = Ledger::default();
    for event in serde_json::Deserializer::from_reader(std::io::BufReader::new(out)).into_iter::<Value>() {
        let Ok(event) = event else { break };
        let service = &event["object"];
        if let Some(patch) = ledger.see(node, service, event["type"] == "DELETED") {
            let (name, namespace) = (text(&service["metadata"]["name"]), text(&service["metadata"]["namespace"]));
            let patch = patch.to_string();
            let words = [
                "patch",
                "service",
                name,
                "--namespace",
                namespace,
                "--subresource=status",
                "--type=merge",
                "--patch",
                &patch,
            ];
            match super::command::output(&mut kubectl(&words)) {
                Ok(_) => println!("load balancer: {namespace}/{name} has its addresses"),
                Err(error) => println!("load balancer: {namespace}/{name}: {error:#}"),
            }
        }
        if ledger.must_begin_again() {
            break;
        }
    }
    let _ = child.kill();
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const NODE: &[IpAddr] =
        &[IpAddr::V4(Ipv4Addr::new(10, 89, 0, 11)), IpAddr::V6(Ipv6Addr::new(0xfd10, 0x89, 0, 0, 0, 0, 0, 0x11))];

    fn service(name: &str, kind: &str, ports: &[u64]) -> Value {
        let ports: Vec<_> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
        json!({"metadata": {"namespace": "a", "name": name}, "spec": {"type": kind, "ports": ports}, "status": {"loadBalancer": {}}})
    }

    #[test]
    fn a_load_balancer_gets_the_nodes_address_once() {
        let mut ledger = Ledger::default();
        let mut seen = service("one", "LoadBalancer", &[80]);
        let patch = ledger.see(NODE, &seen, false).unwrap();
        assert_eq!(patch["status"]["loadBalancer"]["ingress"], json!([{"ip": "10.89.0.11"}]));
        seen["status"] = patch["status"].clone();
        assert_eq!(ledger.see(NODE, &seen, false), None);
    }

    #[test]
    fn families_are_the_services() {
        let (v4, v6) = (json!({"ip": "10.89.0.11"}), json!({"ip": "fd10:89::11"}));
        for (families, wanted) in [
            (json!(["IPv6"]), json!([v6])),
            (json!(["IPv4", "IPv6"]), json!([v4, v6])),
            (json!(["IPv6", "IPv4"]), json!([v6, v4])),
        ] {
            let mut seen = service("one", "LoadBalancer", &[80]);
            seen["spec"]["ipFamilies"] = families;
            // What it had before it got its second family.
            seen["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.89.0.11", "ipMode": "VIP"}]}});
            let patch = Ledger::default().see(NODE, &seen, false).unwrap();
            assert_eq!(patch["status"]["loadBalancer"]["ingress"], wanted);
            seen["status"] = patch["status"].clone();
            assert_eq!(Ledger::default().see(NODE, &seen, false), None);
        }
    }

    #[test]
    fn other_services_are_left_alone() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.see(NODE, &service("one", "ClusterIP", &[80]), false), None);
        assert_eq!(ledger.see(NODE, &service("two", "NodePort", &[80]), false), None);
    }

    #[test]
    fn a_port_that_is_taken_leaves_the_second_pending_until_it_is_free() {
        let mut ledger = Ledger::default();
        assert!(ledger.see(NODE, &service("one", "LoadBalancer", &[80, 443]), false).is_some());
        assert_eq!(ledger.see(NODE, &service("two", "LoadBalancer", &[8080, 443]), false), None);
        assert!(ledger.see(NODE, &service("three", "LoadBalancer", &[8080]), false).is_some());
        assert!(!ledger.must_begin_again());
        ledger.see(NODE, &service("one", "LoadBalancer", &[80, 443]), true);
        assert!(ledger.must_begin_again());
        ledger.see(NODE, &service("three", "ClusterIP", &[8080]), false);
        assert!(ledger.see(NODE, &service("two", "LoadBalancer", &[8080, 443]), false).is_some());
    }
}
