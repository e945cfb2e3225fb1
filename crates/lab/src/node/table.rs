//! What a node knows: names with their addresses, service addresses with their ready local endpoints.
//!
//! Pure. Reads the control plane's listings (`/names`, `/services`, `/endpoints`); rows that cannot be read are left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

/// A node's knowledge.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    names: BTreeMap<String, Vec<IpAddr>>,
    /// By service address and port.
    services: BTreeMap<SocketAddr, Vec<SocketAddr>>,
}

impl Table {
    /// From the three listings.
    pub fn read(cluster: &str, names: &Value, services: &Value, endpoints: &Value) -> Self {
        let mut table = Self::default();
        for (name, entry) in names["names"].as_object().into_iter().flatten() {
            let addresses = entry["addresses"].as_array().into_iter().flatten();
            let addresses = addresses.filter_map(|a| a.as_str()?.parse().ok()).collect();
            table.names.insert(name.to_ascii_lowercase(), addresses);
        }
        let mut local: BTreeMap<&str, Vec<(u16, SocketAddr)>> = BTreeMap::new();
        for row in rows(endpoints) {
            let own = row["workload"].as_str().is_some_and(|w| w.split('/').next() == Some(cluster));
            let (Some(service), Some(address)) =
                (row["service"].as_str(), row["address"].as_str().and_then(|a| a.parse::<IpAddr>().ok()))
            else {
                continue;
            };
            if !own || row["health"] != "healthy" {
                continue;
            }
            for (number, target) in row["ports"].as_object().into_iter().flatten() {
                let target = target.as_u64().and_then(|t| u16::try_from(t).ok());
                if let (Ok(number), Some(target)) = (number.parse(), target) {
                    local.entry(service).or_default().push((number, SocketAddr::new(address, target)));
                }
            }
        }
        for row in rows(services) {
            let Some(host) = row["host"].as_str() else { continue };
            let vips =
                row["addresses"].as_array().into_iter().flatten().filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
            for vip in vips {
                for (number, target) in local.get(host).into_iter().flatten() {
                    table.services.entry(SocketAddr::new(vip, *number)).or_default().push(*target);
                }
            }
        }
        table
    }

    /// With names from outside the mesh; the cluster's own come first.
    pub fn with_hosts(mut self, hosts: &[(String, IpAddr)]) -> Self {
        for (host, address) in hosts {
            self.names.entry(host.to_ascii_lowercase()).or_insert_with(|| vec![*address]);
        }
        self
    }

    /// The addresses of a name; None: there is no such name.
    pub fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        self.names.get(&name.trim_end_matches('.').to_ascii_lowercase()).map(Vec::as_slice)
    }

    /// The ready local endpoints behind a service address.
    pub fn endpoints(&self, service: SocketAddr) -> &[SocketAddr] {
        self.services.get(&service).map_or(&[], Vec::as_slice)
    }
}

fn rows(listing: &Value) -> impl Iterator<Item = &Value> {
    listing.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_local_endpoints() {
        let names = json!({"names": {"catalog.shop.svc.cluster.local": {"addresses": ["240.240.0.1"]}}});
        let services = json!([{"host": "catalog.shop.svc.cluster.local", "addresses": ["240.240.0.1"]}]);
        let endpoint = |workload: &str, address: &str, health: &str| json!({"service": "catalog.shop.svc.cluster.local", "workload": workload, "address": address, "health": health, "ports": {"80": 9080}});
        let endpoints = json!([
            endpoint("east/shop/catalog-0", "10.0.0.1", "healthy"),
            endpoint("east/shop/catalog-1", "10.0.0.2", "unhealthy"),
            endpoint("west/shop/catalog-0", "10.0.0.1", "healthy"),
            {"service": "broken"}
        ]);
        let table = Table::read("east", &names, &services, &endpoints);
        assert_eq!(table.addresses("Catalog.shop.svc.cluster.local."), Some(&["240.240.0.1".parse().unwrap()][..]));
        assert_eq!(table.addresses("vault.shop.svc.cluster.local"), None);
        assert_eq!(table.endpoints("240.240.0.1:80".parse().unwrap()), ["10.0.0.1:9080".parse().unwrap()]);
        assert!(table.endpoints("240.240.0.1:81".parse().unwrap()).is_empty());
    }
}
