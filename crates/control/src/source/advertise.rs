//! Where peers reach this control plane from outside its cluster, by its Service.
//!
//! Pure. Invariants: a load balancer's addresses win over nodes'; equal objects give equal addresses in equal order.

use fairlead_resources::Object;
use fairlead_resources::core::Service;
use fairlead_sources::SourceObject;

/// The Service that peers use.
const SERVICE: &str = "fairlead-peering";
/// A record carries no more: a few nodes are enough to be reached.
const MOST: usize = 8;

/// `host:port`, best first. Empty: peers cannot dial in, this control plane dials out.
pub fn addresses(objects: &[SourceObject], namespace: &str) -> Vec<String> {
    let service = objects.iter().find_map(|object| match &object.decoded.object {
        Object::Service(service) if service.metadata.name == SERVICE && service.metadata.namespace == namespace => {
            Some(service)
        }
        _ => None,
    });
    let Some(service) = service else { return Vec::new() };
    let balanced = balanced(service);
    if balanced.is_empty() { on_nodes(service, objects) } else { balanced }
}

fn balanced(service: &Service) -> Vec<String> {
    let Some(port) = service.spec.ports.first().map(|port| port.port) else { return Vec::new() };
    let ingress = service.status.load_balancer.ingress.iter();
    let hosts = ingress.map(|i| if i.ip.is_empty() { &i.hostname } else { &i.ip }).filter(|host| !host.is_empty());
    hosts.take(MOST).map(|host| at(host, port)).collect()
}

fn on_nodes(service: &Service, objects: &[SourceObject]) -> Vec<String> {
    let Some(port) = service.spec.ports.first().and_then(|port| port.node_port) else { return Vec::new() };
    let of = |wanted: &str| -> Vec<String> {
        let nodes = objects.iter().filter_map(|object| match &object.decoded.object {
            Object::Node(node) => node.status.addresses.iter().find(|a| a.address_type == wanted),
            _ => None,
        });
        nodes.take(MOST).map(|address| at(&address.address, port)).collect()
    };
    let outside = of("ExternalIP");
    if outside.is_empty() { of("InternalIP") } else { outside }
}

fn at(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_resources::decode;
    use std::sync::Arc;

    const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: a}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: Hostname, address: a}]}
---
apiVersion: v1
kind: Node
metadata: {name: b}
status: {addresses: [{type: InternalIP, address: 'fd00::2'}]}
";

    fn service(status: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: fairlead-peering, namespace: fairlead-system}}\n\
             spec: {{type: LoadBalancer, ports: [{{name: xds, port: 15012, nodePort: 31012}}]}}\nstatus: {status}\n"
        )
    }

    fn told(yaml: &str) -> Vec<String> {
        let decoding = decode(&"east".into(), &"".into(), yaml.as_bytes());
        assert!(decoding.refused.is_empty(), "{:?}", decoding.diagnostics);
        let object = |decoded| SourceObject { decoded: Arc::new(decoded), file: "".into(), stale: false };
        addresses(&decoding.objects.into_iter().map(object).collect::<Vec<_>>(), "fairlead-system")
    }

    #[test]
    fn a_load_balancer_wins_over_nodes() {
        let balanced = service("{loadBalancer: {ingress: [{ip: 192.0.2.7}, {hostname: lb.example}]}}");
        assert_eq!(told(&format!("{NODES}{balanced}")), ["192.0.2.7:15012", "lb.example:15012"]);
        assert_eq!(told(&format!("{NODES}{}", service("{}"))), ["10.0.0.1:31012", "[fd00::2]:31012"]);
        let outside = NODES.replace("{type: Hostname, address: a}", "{type: ExternalIP, address: 192.0.2.1}");
        assert_eq!(told(&format!("{outside}{}", service("{}"))), ["192.0.2.1:31012"]);
    }

    #[test]
    fn without_the_service_nobody_is_told_anything() {
        assert_eq!(told(NODES), Vec::<String>::new());
        let elsewhere = service("{}").replace("fairlead-system", "shop");
        assert_eq!(told(&format!("{NODES}{elsewhere}")), Vec::<String>::new());
    }
}
