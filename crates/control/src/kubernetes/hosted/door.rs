//! Where the remote cluster and peers reach a control plane that runs in another cluster: its Service there, as addresses and ports.
//!
//! Pure. Invariant: equal Services and nodes give equal doors, in equal order.

use k8s_openapi::api::core::v1::{Node, Service};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A record of a member carries no more addresses, nor does a slice need more.
const MOST: usize = 8;

/// What leads in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Door {
    /// Addresses and names of hosts.
    pub hosts: Vec<String>,
    /// Ports by the name that the Service gives them.
    pub ports: BTreeMap<String, u16>,
}

impl Door {
    /// Of a load balancer, or of the nodes; empty while there is none.
    pub fn of(service: &Service, nodes: &[Node]) -> Self {
        let Some(spec) = &service.spec else { return Self::default() };
        let on_nodes = is_on_nodes(service);
        let number = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let reached = if on_nodes { number(port.node_port) } else { number(Some(port.port)) };
            Some((port.name.clone()?, reached?))
        });
        let mut hosts = if on_nodes { of_nodes(nodes) } else { balanced(service) };
        hosts.truncate(MOST);
        Self { hosts, ports: ports.collect() }
    }

    /// `host:port` of a port.
    pub fn at(&self, port: &str) -> Vec<String> {
        let Some(port) = self.ports.get(port) else { return Vec::new() };
        let at = |host: &String| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        self.hosts.iter().map(at).collect()
    }
}

/// Whether it is reached by its nodes.
pub fn is_on_nodes(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("NodePort")
}

fn balanced(service: &Service) -> Vec<String> {
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    let host = |ip: &Option<String>, name: &Option<String>| ip.clone().or_else(|| name.clone());
    ingress.into_iter().flatten().filter_map(|i| host(&i.ip, &i.hostname)).filter(|host| !host.is_empty()).collect()
}

fn of_nodes(nodes: &[Node]) -> Vec<String> {
    let of = |wanted: &str| -> Vec<String> {
        let first = |node: &Node| {
            let addresses = node.status.as_ref()?.addresses.as_ref()?;
            addresses.iter().find(|a| a.type_ == wanted).map(|a| a.address.clone())
        };
        nodes.iter().filter_map(first).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let outside = of("ExternalIP");
    if outside.is_empty() { of("InternalIP") } else { outside }
}

/// The EndpointSlice of one family behind a Service without selector.
pub fn slice(service: &str, namespace: &str, v6: bool, addresses: &BTreeSet<IpAddr>, door: &Door) -> Value {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let addresses = addresses.iter().filter(|a| a.is_ipv6() == v6);
    let endpoints: Vec<Value> =
        addresses.map(|a| json!({"addresses": [a.to_string()], "conditions": {"ready": true}})).collect();
    let ports: Vec<Value> =
        door.ports.iter().map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()), "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "fairlead.dev",
                super::super::PART_OF.0: super::super::PART_OF.1,
            },
        },
        "addressType": family, "endpoints": endpoints, "ports": ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(kind: &str, ingress: Value) -> Service {
        let ports = json!([
            {"name": "tls-xds", "port": 15012, "nodePort": 31012}, {"name": "https-webhook", "port": 443, "nodePort": 31443},
        ]);
        serde_json::from_value(json!({
            "metadata": {}, "spec": {"type": kind, "ports": ports}, "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap()
    }

    #[test]
    fn a_door_is_the_load_balancer_or_the_nodes() {
        let node = |address: &str| -> Node {
            let addresses = json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": address}]);
            serde_json::from_value(json!({"metadata": {}, "status": {"addresses": addresses}})).unwrap()
        };
        let balanced =
            service("LoadBalancer", json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example"}, {"ip": "2001:db8::1"}]));
        let door = Door::of(&balanced, &[node("10.0.0.1")]);
        assert_eq!(door.at("tls-xds"), ["192.0.2.1:15012", "lb.example:15012", "[2001:db8::1]:15012"]);
        assert_eq!(door.at("no-such"), Vec::<String>::new());
        assert!(Door::of(&service("LoadBalancer", json!([])), &[node("10.0.0.1")]).hosts.is_empty(), "not yet");
        let door = Door::of(&service("NodePort", json!([])), &[node("10.0.0.2"), node("10.0.0.1")]);
        assert_eq!(door.at("https-webhook"), ["10.0.0.1:31443", "10.0.0.2:31443"]);
    }

    #[test]
    fn a_slice_has_the_addresses_of_its_family() {
        let door = Door::of(&service("LoadBalancer", json!([])), &[]);
        let all = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap()).into();
        let four = slice("fairlead-control", "fairlead-system", false, &all, &door);
        assert_eq!(four["endpoints"], json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}]));
        assert_eq!(four["ports"][1], json!({"name": "tls-xds", "port": 15012, "protocol": "TCP"}));
        assert_eq!(four["metadata"]["labels"]["kubernetes.io/service-name"], "fairlead-control");
        let six = slice("fairlead-control", "fairlead-system", true, &all, &door);
        assert_eq!(six["endpoints"][0]["addresses"][0], "2001:db8::1");
        assert_ne!(six["metadata"]["name"], four["metadata"]["name"]);
    }
}
