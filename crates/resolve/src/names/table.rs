//! The name table of a caller with a sidecar.
//!
//! Never lists a name without what a connection to it needs. Invariant: pod names of headless services mean the own
//! cluster's pod, else one in a reachable network, else the stand-in of the one other cluster's.

use fairlead_model::endpoint::{Endpoint, WorkloadRef};
use fairlead_model::ids::NetworkId;
use fairlead_model::mesh::ResolvedMesh;
use fairlead_model::names::{NameEntry, NameTable};
use fairlead_model::route::GatewayRef;
use fairlead_model::service::{Service, ServiceSource};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What `viewer`'s resolver answers. The viewer need not be a workload of the mesh: only its namespace and network count.
pub fn names(mesh: &ResolvedMesh, viewer: &WorkloadRef) -> NameTable {
    let network = mesh
        .workloads
        .get(viewer)
        .map(|workload| workload.network.clone())
        .or_else(|| mesh.settings.clusters.get(&mesh.cluster).map(|member| member.network.clone()))
        .unwrap_or_default();
    let mut table = NameTable::default();
    let mut chosen: BTreeMap<&str, &Arc<Service>> = BTreeMap::new();
    for service in mesh.services.values().filter(|service| service.visibility.allows(&viewer.namespace)) {
        let known = chosen.entry(service.key.host.as_str()).or_insert(service);
        // Sorted by namespace: only the viewer's own takes a name from an earlier one.
        if service.key.namespace == viewer.namespace {
            *known = service;
        }
    }
    for (host, service) in chosen {
        if host.starts_with('*') {
            continue;
        }
        if service.headless {
            headless(mesh, service, &network, &mut table);
        } else {
            table.names.insert(host.to_owned(), entry(service, service.vips.clone()));
        }
    }
    routed_only(mesh, &viewer.namespace, &mut table);
    table
}

fn entry(service: &Service, addresses: Vec<IpAddr>) -> NameEntry {
    let short = if service.source == ServiceSource::ServiceEntry { String::new() } else { service.name.clone() };
    NameEntry {
        namespace: service.key.namespace.clone(),
        name: short,
        addresses,
        ports: service.ports.iter().map(|port| (port.number, port.protocol)).collect(),
        clusters: service.clusters.iter().cloned().collect(),
    }
}

/// The service's own name answers with all endpoints that can be dialled, else with the stand-ins of those that cannot.
fn headless(mesh: &ResolvedMesh, service: &Service, network: &NetworkId, table: &mut NameTable) {
    let dialled = |endpoint: &&Arc<Endpoint>| network.reaches(&endpoint.network) && endpoint.address.is_some();
    let mut addresses: Vec<IpAddr> =
        service.endpoints.iter().filter(dialled).flat_map(|endpoint| endpoint.addresses()).collect();
    let mut endpoints: Vec<&Arc<Endpoint>> = service.endpoints.iter().filter(dialled).collect();
    // The own cluster's pod wins a name.
    endpoints.sort_by_key(|endpoint| (endpoint.workload.cluster != mesh.cluster, endpoint.workload.clone()));
    for endpoint in endpoints {
        let host = format!("{}.{}", endpoint.workload.name, service.key.host);
        let mut one = entry(service, endpoint.addresses().collect());
        one.name = format!("{}.{}", endpoint.workload.name, service.name);
        one.clusters = vec![endpoint.workload.cluster.clone()];
        table.names.entry(host).or_insert(one);
    }
    if addresses.is_empty() {
        let stand_ins = service.endpoints.iter().filter_map(|endpoint| {
            let key = crate::view::stand_in_key(service, &endpoint.workload.name);
            mesh.services.get(&key)
        });
        addresses = stand_ins.flat_map(|stand_in| stand_in.vips.clone()).collect();
    }
    addresses.sort_unstable();
    addresses.dedup();
    table.names.insert(service.key.host.clone(), entry(service, addresses));
}

/// Exact hosts of VirtualServices for sidecars that are in no registry.
fn routed_only(mesh: &ResolvedMesh, namespace: &str, table: &mut NameTable) {
    let mut wanted = super::virtual_ip::Wanted::default();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let used = mesh.services.values().flat_map(|service| service.vips.iter().copied()).collect();
    for set in
        mesh.routes.iter().filter(|set| set.visibility.allows(namespace) && set.gateways.contains(&GatewayRef::Mesh))
    {
        for host in set.hosts.iter().filter(|host| is_external(mesh, host) && !table.names.contains_key(*host)) {
            wanted.add(1, host);
            found.entry(host.clone()).or_insert_with(|| set.namespace.clone());
        }
    }
    let addresses = wanted.allocate(&BTreeMap::new(), &used);
    for (host, namespace) in found {
        let addresses = addresses.get(&host).map(|address| IpAddr::V4(*address)).into_iter().collect();
        table.names.insert(host, NameEntry { namespace, addresses, ..NameEntry::default() });
    }
}

/// Not a name that the mesh itself would answer for: those do not resolve unless a service has them.
fn is_external(mesh: &ResolvedMesh, host: &str) -> bool {
    let inside = |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with(".svc."));
    !host.starts_with('*')
        && host.contains('.')
        && host.parse::<IpAddr>().is_err()
        && !inside(&mesh.settings.domain)
        && !inside("clusterset.local")
}
