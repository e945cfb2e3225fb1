//! What many proxies are told alike, made once for all of them, and after a change of endpoints only what these changed.
//!
//! Must never hold anything of one proxy. Invariants: a sidecar's [`crate::generate`] is [`shared`] of its standpoint and [`own`]
//! together; [`shared_after`] gives what differs from an earlier [`shared`], and more only at equal versions.

use crate::clusters::plan as clusters;
use crate::endpoints::topology;
use crate::generate::{Plan, finish, outbound_plan};
use crate::generated::Generated;
use crate::listeners::inbound;
use crate::memo::Memo;
use crate::names::ResourceName;
use crate::scope::Scope;
use fairlead_model::ids::Locality;
use fairlead_model::matching::Labels;
use fairlead_model::policy::PolicyBlocks;
use fairlead_model::route::RouteSet;
use fairlead_model::{
    ClientKind, ClusterId, NetworkId, ProxyDescription, ProxyRole, ResolvedMesh, Service, Text, WorkloadRef,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All that decides what a sidecar is told of others. Two with equal standpoints are told the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standpoint {
    client: ClientKind,
    cluster: ClusterId,
    namespace: Text,
    network: NetworkId,
    locality: Locality,
    /// Those of the labels that something in the mesh asks for.
    labels: Labels,
}

/// The labels of callers that something in a mesh asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedLabels(BTreeSet<String>);

/// Services of which only endpoints changed, by host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved(BTreeSet<String>);

impl AskedLabels {
    pub fn of(mesh: &ResolvedMesh) -> Self {
        let mut asked = BTreeSet::new();
        let mut priorities = |labels: &[String]| {
            asked.extend(labels.iter().map(|label| label.split('=').next().unwrap_or(label).to_owned()));
        };
        priorities(&mesh.settings.locality_policy.failover_priority);
        let mut ladders = false;
        let mut selectors: BTreeSet<&String> = BTreeSet::new();
        for service in mesh.services.values() {
            ladders |= service.traffic_distribution.is_some();
            for scoped in &service.policies {
                selectors.extend(scoped.labels.keys());
                let subsets = scoped.policy.subsets.values().map(|subset| &subset.policy);
                for policy in subsets.chain([&scoped.policy.policy]) {
                    for blocks in policy.ports.values().chain([&policy.default]) {
                        priorities(failover_priority(blocks));
                    }
                }
            }
        }
        selectors.extend(mesh.routes.iter().flat_map(|set| source_labels(set)));
        asked.extend(selectors.into_iter().cloned());
        if ladders {
            asked.extend(topology::LADDER.map(str::to_owned));
        }
        Self(asked)
    }
}

fn failover_priority(blocks: &PolicyBlocks) -> &[String] {
    blocks.locality.as_ref().map_or(&[], |locality| &locality.failover_priority)
}

fn source_labels(set: &RouteSet) -> impl Iterator<Item = &String> {
    let http = set.http.iter().flat_map(|rule| &rule.matches).flat_map(|m| m.source_labels.keys());
    let tls = set.tls.iter().flat_map(|rule| &rule.matches).flat_map(|m| m.source_labels.keys());
    let tcp = set.tcp.iter().flat_map(|rule| &rule.matches).flat_map(|m| m.source_labels.keys());
    http.chain(tls).chain(tcp)
}

impl Standpoint {
    /// Where a proxy stands; `None` for one whose resources are all its own.
    pub fn of(proxy: &ProxyDescription, asked: &AskedLabels) -> Option<Self> {
        if proxy.role != ProxyRole::Sidecar || proxy.client == ClientKind::Grpc {
            return None;
        }
        let labels = proxy.labels.iter().filter(|(key, _)| asked.0.contains(*key));
        Some(Self {
            client: proxy.client,
            cluster: proxy.workload.cluster.clone(),
            namespace: proxy.workload.namespace.clone(),
            network: proxy.network.clone(),
            locality: proxy.locality.clone(),
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
        })
    }

    /// A proxy that stands here and is nobody in particular.
    fn anybody(&self) -> ProxyDescription {
        ProxyDescription {
            workload: WorkloadRef {
                cluster: self.cluster.clone(),
                namespace: self.namespace.clone(),
                name: Text::default(),
            },
            role: ProxyRole::Sidecar,
            client: self.client,
            network: self.network.clone(),
            locality: self.locality.clone(),
            addresses: Vec::new(),
            labels: self.labels.clone(),
            service_account: String::new(),
            identity: String::new(),
        }
    }
}

/// What everybody at a standpoint is told.
pub fn shared(mesh: &ResolvedMesh, standpoint: &Standpoint, memo: &Memo) -> Vec<Arc<Generated>> {
    memo.advance(mesh.generation);
    let anybody = standpoint.anybody();
    let scope = Scope::of(mesh, &anybody);
    finish(outbound_plan(&scope), &scope).into_iter().map(|input| memo.resource(input)).collect()
}

/// What only this proxy is told: what comes in to its workload.
pub fn own(mesh: &ResolvedMesh, proxy: &ProxyDescription, memo: &Memo) -> Vec<Arc<Generated>> {
    memo.advance(mesh.generation);
    let scope = Scope::without_others(mesh, proxy);
    let mut plan = Plan::default();
    inbound::plan(&scope, &mut plan);
    finish(plan, &scope).into_iter().map(|input| memo.resource(input)).collect()
}

/// Which services have other endpoints in `new` than in `old`, if that is all that differs and no listener, route or name, and no
/// hop through a gateway, follows from it. Workloads may differ, since nobody is told those of others.
pub fn moved(old: &ResolvedMesh, new: &ResolvedMesh) -> Option<Moved> {
    let same = old.cluster == new.cluster
        && old.settings == new.settings
        && old.members == new.members
        && old.routes == new.routes
        && old.gateways == new.gateways
        && old.services.len() == new.services.len();
    if !same {
        return None;
    }
    let mut hosts = BTreeSet::new();
    for ((old_key, old), (key, new)) in old.services.iter().zip(&new.services) {
        if old_key != key {
            return None;
        }
        if Arc::ptr_eq(old, new) {
            continue;
        }
        if !is_moved(old, new) {
            return None;
        }
        hosts.insert(key.host.clone());
    }
    Some(Moved(hosts))
}

/// Whether only endpoints differ, and how they are reached does not.
fn is_moved(old: &Service, new: &Service) -> bool {
    let ways = |service: &Service| -> BTreeSet<(NetworkId, ClusterId, bool, bool)> {
        let way = |e: &Arc<fairlead_model::Endpoint>| {
            (e.network.clone(), e.workload.cluster.clone(), e.address.is_some(), e.hostname.is_some())
        };
        service.endpoints.iter().map(way).collect()
    };
    let bare = |service: &Service| Service { endpoints: Vec::new(), ..service.clone() };
    !new.headless && ways(old) == ways(new) && bare(old) == bare(new)
}

/// What may differ from what [`shared`] gave for the mesh before, which told of these names; `None`: everything may.
pub fn shared_after(
    mesh: &ResolvedMesh,
    standpoint: &Standpoint,
    moved: &Moved,
    told: &Told,
    memo: &Memo,
) -> Option<Vec<Arc<Generated>>> {
    // For stock Envoy identities of endpoints are in more than one resource.
    if standpoint.client != ClientKind::Fairlead {
        return None;
    }
    memo.advance(mesh.generation);
    let anybody = standpoint.anybody();
    let scope = Scope::of_hosts(mesh, &anybody, &moved.0);
    let names = moved.0.iter().filter_map(|host| told.0.get(host)).flatten();
    let inputs = clusters::destinations(&scope, names);
    Some(inputs.into_iter().map(|input| memo.resource(input)).collect())
}

/// The destinations that a [`shared`] told of, by host.
#[derive(Clone, Debug, Default)]
pub struct Told(BTreeMap<String, Vec<ResourceName>>);

impl Told {
    pub fn of(shared: &[Arc<Generated>]) -> Self {
        let mut told: BTreeMap<String, Vec<ResourceName>> = BTreeMap::new();
        for generated in shared.iter().filter(|g| g.kind == fairlead_proto::ResourceType::Cluster) {
            if let ResourceName::Outbound { host, .. } = &generated.name {
                told.entry(host.clone()).or_default().push(generated.name.clone());
            }
        }
        Self(told)
    }
}
