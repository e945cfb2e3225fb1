//! A cluster's objects by kind, in an order that does not depend on the input's.
//!
//! Never copies an object. Invariants: one object a key; lists are oldest first, then by name, then by namespace, objects
//! without a creation time last (Istio's tie-break); namespaces that `discoverySelectors` leave out are not here.

use fairlead_model::ids::ClusterId;
use fairlead_model::origin::{ObjectKey, Origin};
use fairlead_resources::core as kubernetes;
use fairlead_resources::istio::{self, DiscoverySelector};
use fairlead_resources::{Decoded, Meta, Object, fairlead, mcs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object and the file it stands in (empty for objects of an API server).
#[derive(Clone, Copy, Debug)]
pub struct ObjectRef<'a> {
    pub decoded: &'a Decoded,
    pub file: &'a Arc<str>,
}

/// An object of a known kind.
#[derive(Debug)]
pub(crate) struct Item<'a, T> {
    pub object: &'a T,
    pub meta: &'a Meta,
    source: ObjectRef<'a>,
}

impl<T> Clone for Item<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Item<'_, T> {}

impl<'a, T> Item<'a, T> {
    /// The origin of a path in it.
    pub fn origin(&self, path: &str) -> Origin {
        self.source.decoded.origin(path, self.source.file)
    }

    /// Its identity.
    pub fn key(&self) -> &'a ObjectKey {
        &self.source.decoded.key
    }

    /// Unix seconds; objects without a creation time are the youngest.
    pub fn created(&self) -> i64 {
        created(self.meta)
    }
}

/// By kind.
#[derive(Debug, Default)]
pub(crate) struct Objects<'a> {
    pub namespaces: BTreeMap<&'a str, Item<'a, kubernetes::Namespace>>,
    pub services: Vec<Item<'a, kubernetes::Service>>,
    pub slices: Vec<Item<'a, kubernetes::EndpointSlice>>,
    pub pods: Vec<Item<'a, kubernetes::Pod>>,
    pub nodes: BTreeMap<&'a str, Item<'a, kubernetes::Node>>,
    pub routes: Vec<Item<'a, istio::VirtualService>>,
    pub destinations: Vec<Item<'a, istio::DestinationRule>>,
    pub gateways: Vec<Item<'a, istio::Gateway>>,
    pub entries: Vec<Item<'a, istio::ServiceEntry>>,
    pub workload_entries: Vec<Item<'a, istio::WorkloadEntry>>,
    pub peer_authentications: Vec<Item<'a, istio::PeerAuthentication>>,
    pub authorizations: Vec<Item<'a, istio::AuthorizationPolicy>>,
    pub exports: Vec<Item<'a, mcs::ServiceExport>>,
    pub peers: Vec<Item<'a, fairlead::Peer>>,
    pub processes: Vec<Item<'a, fairlead::Workload>>,
}

impl<'a> Objects<'a> {
    /// Sorts `all` by kind; `cluster` is whose they are.
    pub fn new(cluster: &ClusterId, all: &[ObjectRef<'a>], discovery: &[DiscoverySelector]) -> Self {
        let mut sorted: Vec<ObjectRef<'a>> =
            all.iter().filter(|object| &object.decoded.key.cluster == cluster).copied().collect();
        sorted.sort_by(|a, b| order(a).cmp(&order(b)));
        let hidden = hidden_namespaces(&sorted, discovery);
        let mut seen = BTreeSet::new();
        let mut objects = Self::default();
        for source in sorted {
            let key = &source.decoded.key;
            if hidden.contains(&*key.namespace) || !seen.insert((&key.kind, &key.namespace, &key.name)) {
                continue;
            }
            objects.add(source);
        }
        objects
    }

    fn add(&mut self, source: ObjectRef<'a>) {
        macro_rules! item {
            ($object:expr) => {
                Item { object: $object, meta: &$object.metadata, source }
            };
        }
        match &source.decoded.object {
            Object::Namespace(o) => drop(self.namespaces.insert(o.metadata.name.as_str(), item!(o))),
            Object::Service(o) => self.services.push(item!(o)),
            Object::EndpointSlice(o) => self.slices.push(item!(o)),
            Object::Pod(o) => self.pods.push(item!(o)),
            Object::Node(o) => drop(self.nodes.insert(o.metadata.name.as_str(), item!(o))),
            Object::VirtualService(o) => self.routes.push(item!(o)),
            Object::DestinationRule(o) => self.destinations.push(item!(&**o)),
            Object::Gateway(o) => self.gateways.push(item!(o)),
            Object::ServiceEntry(o) => self.entries.push(item!(o)),
            Object::WorkloadEntry(o) => self.workload_entries.push(item!(o)),
            Object::PeerAuthentication(o) => self.peer_authentications.push(item!(o)),
            Object::AuthorizationPolicy(o) => self.authorizations.push(item!(o)),
            Object::ServiceExport(o) => self.exports.push(item!(o)),
            Object::Peer(o) => self.peers.push(item!(o)),
            Object::Workload(o) => self.processes.push(item!(&**o)),
            // Read elsewhere (Mesh, ConfigMap, Secret), or not applied yet, which reading them has said.
            Object::ServiceAccount(_)
            | Object::Secret(_)
            | Object::ConfigMap(_)
            | Object::WorkloadGroup(_)
            | Object::Sidecar(_)
            | Object::RequestAuthentication(_)
            | Object::Telemetry(_)
            | Object::ProxyConfig(_)
            | Object::ServiceImport(_)
            | Object::Mesh(_) => {}
        }
    }
}

/// Oldest first, then by name, then by namespace; the rest only makes the order total.
fn order<'b>(object: &'b ObjectRef<'_>) -> (i64, &'b str, &'b str, &'b str, &'b str, u32) {
    let key = &object.decoded.key;
    (created(object.decoded.object.meta()), &key.name, &key.namespace, &key.kind, object.file, object.decoded.line)
}

fn created(meta: &Meta) -> i64 {
    meta.creation_timestamp.map_or(i64::MAX, |time| time.0)
}

/// Namespaces that no selector selects. A namespace without a Namespace object has no labels.
fn hidden_namespaces<'a>(all: &[ObjectRef<'a>], discovery: &[DiscoverySelector]) -> BTreeSet<&'a str> {
    if discovery.is_empty() {
        return BTreeSet::new();
    }
    let empty = BTreeMap::new();
    let labels: BTreeMap<&str, &BTreeMap<String, String>> = all
        .iter()
        .filter_map(|object| match &object.decoded.object {
            Object::Namespace(namespace) => Some((namespace.metadata.name.as_str(), &*namespace.metadata.labels)),
            _ => None,
        })
        .collect();
    let used = all.iter().map(|object| &*object.decoded.key.namespace).filter(|namespace| !namespace.is_empty());
    used.filter(|namespace| {
        let labels = labels.get(namespace).copied().unwrap_or(&empty);
        !discovery.iter().any(|selector| discovers(selector, labels))
    })
    .collect()
}

fn discovers(selector: &DiscoverySelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| expression.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !expression.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
