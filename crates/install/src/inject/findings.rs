//! What is found in a pod while it is injected.
//!
//! Invariant: whoever refuses says which annotation or field, and what to do.

use super::fields::text;
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin, Severity};
use serde_json::Value;

pub(super) struct Findings {
    pod: ObjectKey,
    pub all: Vec<Diagnostic>,
}

impl Findings {
    /// About this pod; one that has no name yet goes by what its name will begin with.
    pub fn of(pod: &Value, namespace: &str, cluster: &str) -> Self {
        let metadata = &pod["metadata"];
        let name = text(metadata, "name").or_else(|| text(metadata, "generateName")).unwrap_or_default();
        let kind = text(pod, "kind").unwrap_or("Pod");
        Self { pod: ObjectKey::new(ClusterId::from(cluster), kind, namespace, name), all: Vec::new() }
    }

    pub fn refuse(&mut self, code: &str, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.all.push(Diagnostic::error(code, self.at(path), message).hint(hint));
    }

    pub fn warn(&mut self, code: &str, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.all.push(Diagnostic::warning(code, self.at(path), message).hint(hint));
    }

    pub fn refused(&self) -> bool {
        self.all.iter().any(|found| found.severity == Severity::Error)
    }

    fn at(&self, path: &str) -> Origin {
        Origin { object: self.pod.clone(), path: path.to_owned(), file: "".into(), line: 1 }
    }
}
