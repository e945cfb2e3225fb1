//! What discovery carries: a name, a version, and bytes it never looks into.
//!
//! Everything is shared by reference: one resource is one allocation however many streams hold it. Invariant: two
//! resources of one type, name and version have the same body; whoever makes versions answers for it.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of a resource, unique within its type.
pub type Name = Arc<str>;

/// The version of a resource: compared for equality only.
pub type Version = Arc<str>;

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Name within its type.
    pub name: Name,
    /// Changes whenever the body does.
    pub version: Version,
    /// The encoded `google.protobuf.Any`.
    pub body: Bytes,
}

/// The resources of one type, by name. Shared as `Arc<Resources>`: a view that leaves a type alone shares the map
/// of the view before, and streams see at once that there is nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    by_name: BTreeMap<Name, Resource>,
}

impl Resource {
    /// A resource; `body` is an encoded `Any`.
    pub fn new(name: impl Into<Name>, version: impl Into<Version>, body: impl Into<Bytes>) -> Self {
        Resource { name: name.into(), version: version.into(), body: body.into() }
    }
}

impl Resources {
    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Resource> {
        self.by_name.get(name)
    }

    /// Whether there is a resource of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds a resource or replaces the one of its name.
    pub fn insert(&mut self, resource: Resource) {
        self.by_name.insert(resource.name.clone(), resource);
    }

    /// Takes a resource out.
    pub fn remove(&mut self, name: &str) -> Option<Resource> {
        self.by_name.remove(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.by_name.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let by_name = resources.into_iter().map(|r| (r.name.clone(), r)).collect();
        Resources { by_name }
    }
}
