//! What a workload without a sidecar resolves: its own cluster's Services, as Kubernetes' DNS does.
//!
//! Never answers for other clusters, ServiceEntries or `clusterset.local`. Invariant: a headless name answers with the
//! ready endpoints of the own cluster.

use fairlead_model::endpoint::Health;
use fairlead_model::mesh::ResolvedMesh;
use fairlead_model::names::{NameEntry, NameTable};
use fairlead_model::service::ServiceSource;
use std::net::IpAddr;

/// The same for every caller of the cluster.
pub fn kubernetes_names(mesh: &ResolvedMesh) -> NameTable {
    let mut table = NameTable::default();
    let own = |service: &fairlead_model::Service| {
        service.source == ServiceSource::Kubernetes
            && service.clusters.contains(&mesh.cluster)
            && !crate::view::is_stand_in(service)
    };
    for service in mesh.services.values().filter(|service| own(service)) {
        let entry = |name: String, addresses: Vec<IpAddr>| NameEntry {
            namespace: service.key.namespace.clone(),
            name,
            addresses,
            ports: service.ports.iter().map(|port| (port.number, port.protocol)).collect(),
            clusters: vec![mesh.cluster.clone()],
        };
        let host = service.key.host.clone();
        if !service.headless {
            table.names.insert(host, entry(service.name.clone(), service.vips.clone()));
            continue;
        }
        let ready: Vec<_> = service
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.workload.cluster == mesh.cluster && endpoint.health == Health::Healthy)
            .collect();
        let mut addresses: Vec<IpAddr> = ready.iter().flat_map(|endpoint| endpoint.addresses()).collect();
        addresses.sort_unstable();
        for endpoint in ready {
            let name = format!("{}.{}", endpoint.workload.name, service.name);
            let one = entry(name, endpoint.addresses().collect());
            table.names.insert(format!("{}.{host}", endpoint.workload.name), one);
        }
        table.names.insert(host, entry(service.name.clone(), addresses));
    }
    table
}
