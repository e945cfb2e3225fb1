//! What every object has: name, namespace, labels, annotations, age.
//!
//! Never interprets labels or annotations. Invariant: `namespace` is empty exactly for cluster-scoped kinds.

use std::collections::BTreeMap;

use crate::field::Timestamp;
use fairlead_model::Shared;

message! {
    /// Kubernetes `ObjectMeta`, as far as a mesh needs it.
    pub struct Meta {
        /// The name, unique per kind and namespace.
        name: String,
        /// The namespace; `default` if a namespaced object names none, empty for cluster-scoped kinds.
        namespace: String,
        /// Labels.
        labels: Shared<BTreeMap<String, String>>,
        /// Annotations.
        annotations: Shared<BTreeMap<String, String>>,
        /// When the API server created it; absent in files. Objects without it sort as the youngest, by namespace and name.
        creation_timestamp: Option<Timestamp>,
        /// The API server's unique id; empty in files.
        uid: String,
        /// The API server's count of spec changes; 0 in files.
        generation: i64,
        /// The API server's version; empty in files.
        resource_version: String,
    }
}

impl Meta {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}
