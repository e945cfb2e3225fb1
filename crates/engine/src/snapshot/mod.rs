//! The immutable state a proxy serves from: all resources of all kinds, decoded, joined by name.
//!
//! Invariant: a snapshot never changes; the next one shares every resource that did not change. A resource that could not
//! be decoded leaves the last good one of its name in place.

mod build;
mod change;

pub use change::{Change, Resource, Resources};

use crate::listener::Listener;
use crate::route::RouteConfig;
use crate::upstream::{ClusterKind, Endpoints, EnvoyCluster};
use ahash::AHashMap;
use bytes::Bytes;
use fairlead_model::names::NameTable;
use fairlead_proto::ResourceType;
use std::net::SocketAddr;
use std::sync::Arc;

type Table<T> = Arc<AHashMap<Arc<str>, Arc<T>>>;

/// One generation of everything.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: u64,
    listeners: Table<Listener>,
    /// Listeners that are found by original destination, by their address.
    by_address: Arc<AHashMap<SocketAddr, Arc<Listener>>>,
    routes: Table<RouteConfig>,
    clusters: Table<EnvoyCluster>,
    endpoints: Table<Endpoints>,
    names: Option<Arc<NameTable>>,
    raw: Arc<Resources>,
}

impl Snapshot {
    /// Number of snapshots before this one, along `previous`.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    /// In no particular order.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.values()
    }

    /// The listener of exactly this address, whether or not it is bound.
    pub fn listener_at(&self, address: SocketAddr) -> Option<&Arc<Listener>> {
        self.by_address.get(&address)
    }

    pub fn route_config(&self, name: &str) -> Option<&Arc<RouteConfig>> {
        self.routes.get(name)
    }

    pub fn route_configs(&self) -> impl Iterator<Item = &Arc<RouteConfig>> {
        self.routes.values()
    }

    /// The routes of a connection manager; `None` while its route configuration has not come.
    pub fn routes_of<'a>(&'a self, manager: &'a crate::listener::HttpManager) -> Option<&'a Arc<RouteConfig>> {
        match &manager.routes {
            crate::listener::Routes::Inline(config) => Some(config),
            crate::listener::Routes::Rds(name) => self.routes.get(name),
        }
    }

    pub fn cluster(&self, name: &str) -> Option<&Arc<EnvoyCluster>> {
        self.clusters.get(name)
    }

    pub fn clusters(&self) -> impl Iterator<Item = &Arc<EnvoyCluster>> {
        self.clusters.values()
    }

    /// The `ClusterLoadAssignment` of this name.
    pub fn assignment(&self, name: &str) -> Option<&Arc<Endpoints>> {
        self.endpoints.get(name)
    }

    /// The endpoints of an Envoy cluster, names still unresolved; `None` for ORIGINAL_DST and while its assignment has not come.
    pub fn endpoints_of<'a>(&'a self, cluster: &'a EnvoyCluster) -> Option<&'a Arc<Endpoints>> {
        match &cluster.kind {
            ClusterKind::Static(endpoints) | ClusterKind::Dns { endpoints, .. } => Some(endpoints),
            ClusterKind::Eds(name) => self.endpoints.get(name),
            ClusterKind::OriginalDst => None,
        }
    }

    /// The name index, if it has come.
    pub fn names(&self) -> Option<&Arc<NameTable>> {
        self.names.as_ref()
    }

    /// The resources as they came, sorted by kind and name (for `/config_dump` and for saving).
    pub fn resources(&self) -> impl Iterator<Item = (ResourceType, &Arc<str>, &Resource)> {
        self.raw.iter()
    }

    /// Version and encoded `Any` of one resource.
    pub fn resource(&self, kind: ResourceType, name: &str) -> Option<(&str, &Bytes)> {
        self.raw.find(kind, name).map(|resource| (resource.version.as_str(), &resource.body))
    }
}
