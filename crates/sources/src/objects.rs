//! All objects of one cluster at one moment.
//!
//! Invariant: sorted by key, one object a key; shared with the state before where nothing changed.

use fairlead_model::{Diagnostic, ObjectKey};
use fairlead_resources::Decoded;
use std::sync::Arc;

/// One object as its source has it.
#[derive(Debug, Clone)]
pub struct SourceObject {
    pub decoded: Arc<Decoded>,
    /// Relative to the mesh directory.
    pub file: Arc<str>,
    /// The file now holds a version that was refused; this is the last good one.
    pub stale: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ClusterObjects {
    pub objects: Vec<SourceObject>,
    pub diagnostics: Vec<Diagnostic>,
    /// Why the source does not answer now, if it does not: everything above is then the last known.
    pub unavailable: Option<String>,
}

impl SourceObject {
    pub fn key(&self) -> &ObjectKey {
        &self.decoded.key
    }
}
