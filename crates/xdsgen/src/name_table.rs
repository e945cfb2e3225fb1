//! The name index of one proxy: what DNS answers and what the names mean.
//!
//! Sources: docs/user-guide.md, Istio's documentation and code Pods of other networks have a
//! service of their own (with a virtual IP) in the resolved mesh. Invariants: every service the proxy may see is in it and
//! no other; a name that cannot be dialled has no address, so that the caller's own resolver is asked.

use crate::endpoints::reach::{Reach, reach};
use crate::scope::Scope;
use bytes::Bytes;
use fairlead_model::names::{NameEntry, NameTable};
use fairlead_model::service::ServiceSource;
use fairlead_model::{Endpoint, Health, Service};
use fairlead_proto::{JsonResource, ResourceType};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Revision of the table's JSON shape.
const SHAPE: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct NamesInput {
    pub table: NameTable,
}

pub fn input(scope: &Scope<'_>) -> NamesInput {
    let mut table = NameTable::default();
    for (host, service) in &scope.services {
        // A pattern is no name that could be asked for.
        if host.starts_with('*') {
            continue;
        }
        let addresses = if service.headless { headless(scope, service, &mut table) } else { service.vips.clone() };
        table.names.insert(host.to_ascii_lowercase(), entry(service, addresses));
    }
    routed_only(scope, &mut table);
    NamesInput { table }
}

pub fn body(input: &NamesInput) -> Bytes {
    // Names and addresses always have a JSON form; an empty table would be the answer if one ever had not.
    let json = serde_json::to_vec(&input.table).unwrap_or_else(|_| b"{\"names\":{}}".to_vec());
    JsonResource::new(SHAPE, json).to_any_bytes(ResourceType::NameTable)
}

/// Pods of a headless service that are dialled at their own address, by name: the own cluster's before another's.
pub fn pod_names<'a>(scope: &Scope<'a>, service: &'a Service) -> BTreeMap<&'a str, &'a Endpoint> {
    let mut pods: BTreeMap<&str, &Endpoint> = BTreeMap::new();
    for endpoint in pods_in_reach(scope, service) {
        let own = endpoint.workload.cluster == scope.mesh.cluster;
        let name = endpoint.workload.name.as_str();
        let stands_in = scope.services.contains_key(format!("{name}.{}", service.key.host).as_str());
        if !stands_in && (own || !pods.contains_key(name)) {
            pods.insert(name, endpoint);
        }
    }
    pods
}

/// Endpoints of a headless service that this proxy reaches directly, by each of their addresses.
pub fn pod_addresses<'a>(scope: &Scope<'a>, service: &'a Service) -> Vec<(&'a Endpoint, IpAddr)> {
    pods_in_reach(scope, service).flat_map(|e| e.addresses().map(move |address| (e, address))).collect()
}

fn pods_in_reach<'a>(scope: &Scope<'a>, service: &'a Service) -> impl Iterator<Item = &'a Endpoint> {
    let known = service.endpoints.iter().filter(|e| !scope.revoked.contains(&e.workload.cluster));
    let direct =
        |e: &&std::sync::Arc<Endpoint>| matches!(reach(&scope.proxy.network, e, &scope.hops), Reach::Direct(_));
    known.filter(direct).map(std::sync::Arc::as_ref)
}

fn entry(service: &Service, addresses: Vec<IpAddr>) -> NameEntry {
    NameEntry {
        namespace: service.key.namespace.clone(),
        // A ServiceEntry has no short forms.
        name: if service.source == ServiceSource::ServiceEntry { String::new() } else { service.name.clone() },
        addresses,
        ports: service.ports.iter().map(|p| (p.number, p.protocol)).collect(),
        clusters: service.clusters.iter().cloned().collect(),
    }
}

/// Addresses of the name itself: the ready pods that can be dialled, else what stands in for those that cannot.
fn headless(scope: &Scope<'_>, service: &Service, table: &mut NameTable) -> Vec<IpAddr> {
    for (pod, endpoint) in pod_names(scope, service) {
        let mut one = entry(service, endpoint.addresses().collect());
        one.name = format!("{pod}.{}", service.name);
        one.clusters = vec![endpoint.workload.cluster.clone()];
        table.names.insert(format!("{pod}.{}", service.key.host.to_ascii_lowercase()), one);
    }
    let ready = pod_addresses(scope, service).into_iter().filter(|(e, _)| e.health == Health::Healthy);
    let mut addresses: BTreeSet<IpAddr> = ready.map(|(_, address)| address).collect();
    if addresses.is_empty() {
        let stand_in = |e: &std::sync::Arc<Endpoint>| {
            scope.services.get(format!("{}.{}", e.workload.name, service.key.host).as_str())
        };
        addresses = service.endpoints.iter().filter_map(stand_in).flat_map(|s| s.vips.clone()).collect();
    }
    addresses.into_iter().collect()
}

/// Exact hosts that VirtualServices of sidecars route though nothing else knows them: they need some address to be called.
fn routed_only(scope: &Scope<'_>, table: &mut NameTable) {
    let services = scope.mesh.services.values();
    let mut used: BTreeSet<IpAddr> = services.flat_map(|s| s.vips.iter().copied()).collect();
    for (host, set) in scope.unregistered_route_hosts() {
        if is_outside(scope, host) && !table.names.contains_key(host) {
            let addresses = virtual_address(host, &mut used).into_iter().collect();
            let entry = NameEntry { namespace: set.namespace.clone(), addresses, ..NameEntry::default() };
            table.names.insert(host.to_owned(), entry);
        }
    }
}

/// Not a name the mesh itself would answer for: those do not resolve unless a service has them.
fn is_outside(scope: &Scope<'_>, host: &str) -> bool {
    let inside = |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with(".svc."));
    !host.starts_with('*')
        && host.contains('.')
        && host.parse::<IpAddr>().is_err()
        && !inside(&scope.mesh.settings.domain)
        && !inside("clusterset.local")
}

/// In 240.240.0.0/16 like every virtual IP, by a keyed hash of the name, probing.
fn virtual_address(host: &str, used: &mut BTreeSet<IpAddr>) -> Option<IpAddr> {
    const KEY: &[u8] = b"fairlead virtual ip v1\0";
    const SIZE: u32 = 65_534;
    let digest = Sha256::new().chain_update(KEY).chain_update(host.as_bytes()).finalize();
    let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % SIZE;
    let mut candidates = (0..SIZE).map(|step| {
        let [_, _, high, low] = ((start + step) % SIZE + 1).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(240, 240, high, low))
    });
    candidates.find(|address| used.insert(*address))
}
