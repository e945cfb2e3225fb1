//! What comes in: encoded resources and their removal.

use bytes::Bytes;
use fairlead_proto::ResourceType;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One encoded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceType,
    /// As discovery names it; for Envoy's types the message's own name.
    pub name: Arc<str>,
    /// Opaque; equal versions of one name are equal resources.
    pub version: String,
    /// The encoded `Any`.
    pub body: Bytes,
}

/// One step from a snapshot to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Set(Resource),
    Remove { kind: ResourceType, name: Arc<str> },
}

/// A set of encoded resources by kind and name. Copies share what is not changed.
#[derive(Clone, Debug, Default)]
pub struct Resources(BTreeMap<ResourceType, Arc<BTreeMap<Arc<str>, Arc<Resource>>>>);

impl Resource {
    /// A resource from any spelling of its parts.
    pub fn new(
        kind: ResourceType,
        name: impl Into<Arc<str>>,
        version: impl Into<String>,
        body: impl Into<Bytes>,
    ) -> Self {
        Self { kind, name: name.into(), version: version.into(), body: body.into() }
    }
}

impl Resources {
    pub fn find(&self, kind: ResourceType, name: &str) -> Option<&Resource> {
        self.0.get(&kind)?.get(name).map(|resource| &**resource)
    }

    /// Sorted by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceType, &Arc<str>, &Resource)> {
        self.0.iter().flat_map(|(kind, table)| table.iter().map(|(name, resource)| (*kind, name, &**resource)))
    }

    pub fn insert(&mut self, resource: Resource) {
        let table = self.0.entry(resource.kind).or_default();
        Arc::make_mut(table).insert(resource.name.clone(), Arc::new(resource));
    }

    pub fn remove(&mut self, kind: ResourceType, name: &str) {
        if let Some(table) = self.0.get_mut(&kind).filter(|table| table.contains_key(name)) {
            Arc::make_mut(table).remove(name);
        }
    }

    /// All as changes that set them.
    pub fn into_changes(self) -> impl Iterator<Item = Change> {
        let tables = self.0.into_values().map(Arc::unwrap_or_clone);
        tables.flat_map(BTreeMap::into_values).map(|resource| Change::Set(Arc::unwrap_or_clone(resource)))
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut all = Self::default();
        resources.into_iter().for_each(|resource| all.insert(resource));
        all
    }
}
