//! What one client may see at one moment.
//!
//! A view never changes: a new state is a new view. Whoever makes views decides scope; discovery compares the view
//! with what the client has and sends the difference.

use crate::{Resource, Resources};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An immutable state of everything one client may see.
pub trait ResourceView: Send + Sync + 'static {
    /// Number of the state; reported back when the client has taken it. Compared for equality only.
    fn generation(&self) -> u64;

    /// How new this state is, as the client is to repeat it to another server when it reconnects: opaque here.
    /// Empty when nobody needs it.
    fn freshness(&self) -> &str {
        ""
    }

    /// Everything the client may have of a type. `None` is the same as an empty map.
    fn resources(&self, type_url: &str) -> Option<Arc<Resources>>;

    /// Why a name that was asked for is not among [`ResourceView::resources`].
    fn absence(&self, _type_url: &str, _name: &str) -> Absence {
        Absence::Unknown
    }
}

/// Why a resource is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It does not exist: the client is told so, and told again should it appear.
    Unknown,
    /// It is being made: the client is told nothing until a later view has it or says otherwise.
    Pending,
    /// The client may not have it, or it cannot be made: it is told why.
    Refused {
        /// A gRPC status code, such as 7 (`PERMISSION_DENIED`).
        code: i32,
        /// For people.
        message: String,
    },
}

/// A view that is just a value.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: u64,
    freshness: String,
    types: BTreeMap<Arc<str>, Arc<Resources>>,
}

impl Snapshot {
    /// An empty state.
    pub fn new(generation: u64) -> Self {
        Snapshot { generation, ..Snapshot::default() }
    }

    /// Sets the freshness token.
    pub fn fresh(mut self, token: impl Into<String>) -> Self {
        self.freshness = token.into();
        self
    }

    /// Sets all resources of a type.
    pub fn with(self, type_url: &str, resources: impl IntoIterator<Item = Resource>) -> Self {
        self.share(type_url, Arc::new(resources.into_iter().collect()))
    }

    /// Sets all resources of a type to a map that other views may hold too.
    pub fn share(mut self, type_url: &str, resources: Arc<Resources>) -> Self {
        self.types.insert(type_url.into(), resources);
        self
    }
}

impl ResourceView for Snapshot {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn freshness(&self) -> &str {
        &self.freshness
    }

    fn resources(&self, type_url: &str) -> Option<Arc<Resources>> {
        self.types.get(type_url).cloned()
    }
}
