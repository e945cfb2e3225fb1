//! The name index of one proxy: what DNS answers and what the names mean.
//!
//! Sources: design §5 "Names", §6 "headless across networks", istio-behaviour §2.10, §2.11. Invariants: every service the
//! proxy may see is in it and no other; a name that cannot be dialled has no address, so that the caller's own resolver is
//! asked; addresses of pods behind gateways are made up, the same on every replica.

use crate::endpoints::reach::{Reach, reach};
use crate::scope::Scope;
use bytes::Bytes;
use fairlead_model::names::{NameEntry, NameTable};
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
    let mut names = BTreeMap::new();
    for (host, service) in &scope.services {
        // A pattern is no name that could be asked for.
        if host.starts_with('*') {
            continue;
        }
        let entry = |name: &str, addresses: Vec<IpAddr>| NameEntry {
            namespace: service.key.namespace.clone(),
            name: name.to_owned(),
            addresses,
            ports: service.ports.iter().map(|p| (p.number, p.protocol)).collect(),
            clusters: service.clusters.iter().cloned().collect(),
        };
        let mut addresses = service.vips.clone();
        if service.headless {
            let ready = pod_addresses(scope, service).into_iter().filter(|(e, _)| e.health == Health::Healthy);
            addresses.extend(ready.map(|(_, address)| address).collect::<BTreeSet<_>>());
            let by_id: BTreeMap<_, _> =
                pod_addresses(scope, service).into_iter().map(|(e, address)| (&e.id, address)).collect();
            for (pod, endpoint) in pod_names(scope, service) {
                let address = by_id.get(&endpoint.id).copied();
                let name = format!("{pod}.{}", service.name);
                names.insert(
                    format!("{pod}.{}", host.to_ascii_lowercase()),
                    entry(&name, address.into_iter().collect()),
                );
            }
        }
        names.insert(host.to_ascii_lowercase(), entry(&service.name, addresses));
    }
    NamesInput { table: NameTable { names } }
}

pub fn body(input: &NamesInput) -> Bytes {
    // Names and addresses always have a JSON form; an empty table would be the answer if one ever had not.
    let json = serde_json::to_vec(&input.table).unwrap_or_else(|_| b"{\"names\":{}}".to_vec());
    JsonResource::new(SHAPE, json).to_any_bytes(ResourceType::NameTable)
}

/// Pods of a headless service by name: the own cluster's, else the first other cluster's.
pub fn pod_names<'a>(scope: &Scope<'a>, service: &'a Service) -> BTreeMap<&'a str, &'a Endpoint> {
    let mut pods: BTreeMap<&str, &Endpoint> = BTreeMap::new();
    for (endpoint, _) in pod_addresses(scope, service) {
        let own = endpoint.workload.cluster == scope.mesh.cluster;
        let name = endpoint.workload.name.as_str();
        if own || !pods.contains_key(name) {
            pods.insert(name, endpoint);
        }
    }
    pods
}

/// The address by which each endpoint of a headless service is dialled: its own, or a made-up one if it is behind a
/// gateway. Endpoints that cannot be reached are left out.
pub fn pod_addresses<'a>(scope: &Scope<'a>, service: &'a Service) -> Vec<(&'a Endpoint, IpAddr)> {
    let mut made_up: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let mut found = Vec::new();
    for endpoint in service.endpoints.iter().filter(|e| !scope.revoked.contains(&e.workload.cluster)) {
        match reach(&scope.proxy.network, endpoint, &scope.hops) {
            Reach::Direct(address) => found.push((endpoint.as_ref(), address)),
            Reach::Gateway { .. } if !endpoint.mutual_tls.is_empty() => {
                let address = behind_gateway(&endpoint.id.0, &mut made_up);
                found.push((endpoint.as_ref(), IpAddr::V4(address)));
            }
            Reach::Gateway { .. } | Reach::No => {}
        }
    }
    found
}

/// In 240.248.0.0/13 (services have 240.240.0.0/16), by a hash of the endpoint's id, probing.
fn behind_gateway(id: &str, taken: &mut BTreeSet<Ipv4Addr>) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([240, 248, 0, 0]);
    const SIZE: u32 = 1 << 19;
    let hash = Sha256::digest(id.as_bytes());
    let start = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % SIZE;
    let mut address = Ipv4Addr::from(FIRST + start);
    for step in 1..SIZE {
        if taken.insert(address) {
            break;
        }
        address = Ipv4Addr::from(FIRST + (start + step) % SIZE);
    }
    address
}
