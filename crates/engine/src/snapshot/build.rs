//! From one snapshot and some changes to the next.

use super::{Change, Resource, Snapshot, Table};
use crate::error::{DecodeError, Decoded, Rejected};
use crate::listener::Listener;
use crate::route::RouteConfig;
use crate::upstream::{Endpoints, EnvoyCluster};
use ahash::AHashMap;
use fairlead_proto::{JsonResource, ResourceType, any, envoy};
use std::sync::Arc;

/// A resource as long as this is refused before it is parsed.
const MAX_RESOURCE: usize = 16 << 20;

impl Snapshot {
    /// Applies `changes` in order. Resources whose version is the one already held are not decoded again; those that
    /// cannot be decoded are returned and leave what was there.
    ///
    /// Errors inside a route configuration that cost only a route do not reject it: see [`RouteConfig::errors`].
    pub fn build(
        previous: Option<&Arc<Snapshot>>,
        changes: impl IntoIterator<Item = Change>,
    ) -> (Arc<Snapshot>, Vec<Rejected>) {
        let mut next = match previous {
            Some(previous) => Snapshot { generation: previous.generation + 1, ..Snapshot::clone(previous) },
            None => Snapshot::default(),
        };
        let mut rejected = Vec::new();
        let mut listeners_changed = false;
        for change in changes {
            match change {
                Change::Remove { kind, name } => {
                    listeners_changed |= kind == ResourceType::Listener;
                    next.remove(kind, &name);
                }
                Change::Set(resource) => {
                    let held = next.raw.find(resource.kind, &resource.name);
                    if held.is_some_and(|held| held.version == resource.version && !held.version.is_empty()) {
                        continue;
                    }
                    listeners_changed |= resource.kind == ResourceType::Listener;
                    match next.set(&resource) {
                        Ok(()) => Arc::make_mut(&mut next.raw).insert(resource),
                        Err(error) => rejected.push(Rejected {
                            kind: resource.kind,
                            name: resource.name.to_string(),
                            version: resource.version,
                            error,
                        }),
                    }
                }
            }
        }
        if listeners_changed {
            next.index_listeners();
        }
        (Arc::new(next), rejected)
    }

    fn set(&mut self, resource: &Resource) -> Decoded<()> {
        if resource.body.len() > MAX_RESOURCE {
            return Err(DecodeError::new("", format!("is longer than {MAX_RESOURCE} bytes")));
        }
        let name = &resource.name;
        match resource.kind {
            ResourceType::Listener => {
                let listener: envoy::listener::Listener = any::unpack_bytes(&resource.body)?;
                same_name(name, &listener.name)?;
                put(&mut self.listeners, name, Listener::decode(&listener)?);
            }
            ResourceType::RouteConfiguration => {
                let config: envoy::route::RouteConfiguration = any::unpack_bytes(&resource.body)?;
                same_name(name, &config.name)?;
                put(&mut self.routes, name, RouteConfig::decode(&config)?);
            }
            ResourceType::Cluster => {
                let cluster: envoy::cluster::Cluster = any::unpack_bytes(&resource.body)?;
                same_name(name, &cluster.name)?;
                put(&mut self.clusters, name, EnvoyCluster::decode(&cluster)?);
            }
            ResourceType::ClusterLoadAssignment => {
                let assignment: envoy::endpoint::ClusterLoadAssignment = any::unpack_bytes(&resource.body)?;
                same_name(name, &assignment.cluster_name)?;
                put(&mut self.endpoints, name, Endpoints::decode(&assignment, false)?);
            }
            ResourceType::NameTable => {
                let (_, json) = JsonResource::from_any_bytes(&resource.body)?;
                let names = serde_json::from_slice(&json.json)
                    .map_err(|e| DecodeError::new("json", format!("is no name table: {e}")))?;
                self.names = Some(Arc::new(names));
            }
            other => return Err(DecodeError::new("", format!("resources of type {other} are not for a data plane"))),
        }
        Ok(())
    }

    fn remove(&mut self, kind: ResourceType, name: &str) {
        match kind {
            ResourceType::Listener => drop(Arc::make_mut(&mut self.listeners).remove(name)),
            ResourceType::RouteConfiguration => drop(Arc::make_mut(&mut self.routes).remove(name)),
            ResourceType::Cluster => drop(Arc::make_mut(&mut self.clusters).remove(name)),
            ResourceType::ClusterLoadAssignment => drop(Arc::make_mut(&mut self.endpoints).remove(name)),
            ResourceType::NameTable => self.names = None,
            _ => {}
        }
        Arc::make_mut(&mut self.raw).remove(kind, name);
    }

    fn index_listeners(&mut self) {
        let mut listeners: Vec<_> = self.listeners.values().collect();
        // Two listeners on one address are a mistake upstream; the smaller name wins, whatever the order of arrival.
        listeners.sort_by(|a, b| b.name.cmp(&a.name));
        let with_address = listeners.into_iter().filter_map(|listener| Some((listener.address?, listener.clone())));
        self.by_address = Arc::new(with_address.collect::<AHashMap<_, _>>());
    }
}

fn put<T>(table: &mut Table<T>, name: &Arc<str>, value: T) {
    Arc::make_mut(table).insert(name.clone(), Arc::new(value));
}

fn same_name(asked: &str, own: &str) -> Decoded<()> {
    if asked == own {
        return Ok(());
    }
    Err(DecodeError::new("name", format!("is {own:?} inside the resource named {asked:?}")))
}
