//! Where a thing came from: the object a user wrote, the path inside it, and the file and line.
//!
//! Invariant: an origin is for reading only. No decision depends on one.

use crate::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Names an object that a user wrote. `kind` is the Kubernetes kind (`VirtualService`); `namespace` is empty for
/// cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    pub cluster: ClusterId,
    pub kind: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// One object, the path inside it (`spec.http[1]`), and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    pub object: ObjectKey,
    /// Field path from the object's root, empty for the object as a whole.
    #[serde(default)]
    pub path: String,
    /// File relative to the mesh directory; empty when the object came from an API server.
    #[serde(default)]
    pub file: Arc<str>,
    /// 1-based line of `path` in `file`; 0 when unknown.
    #[serde(default)]
    pub line: u32,
}

impl ObjectKey {
    pub fn new(
        cluster: impl Into<ClusterId>,
        kind: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
    ) -> Self {
        Self { cluster: cluster.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

/// `VirtualService shop/reviews`, or `Namespace shop` for cluster-scoped kinds.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// `VirtualService shop/reviews http[1]`: the path without its leading `spec.`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.strip_prefix("spec.").unwrap_or(&self.path);
        if path.is_empty() { self.object.fmt(f) } else { write!(f, "{} {path}", self.object) }
    }
}
