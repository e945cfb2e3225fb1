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
    /// Relative to the mesh directory; empty when the object is an API server's.
    pub file: Arc<str>,
    /// Its source now has a version that was refused; this is the last good one.
    pub stale: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ClusterObjects {
    pub objects: Vec<SourceObject>,
    pub diagnostics: Vec<Diagnostic>,
    /// Why the source does not answer now, if it does not: everything above is then the last known.
    pub unavailable: Option<String>,
    /// Of an API server: the resource version of the newest EndpointSlice that was read since the start; 0 when none was. Replicas compare
    /// by it who has heard more of which endpoints are dead.
    pub newest_slice: u64,
}

impl SourceObject {
    pub fn key(&self) -> &ObjectKey {
        &self.decoded.key
    }
}

/// What holds of an object after a version of it was read that is `new`, or was refused without leaving anything.
/// Invariant: a refused version never replaces a good one.
pub(crate) fn supersede(
    new: Option<Arc<Decoded>>,
    last: Option<&SourceObject>,
    file: &Arc<str>,
) -> Option<SourceObject> {
    let keep = |last: &SourceObject| SourceObject { stale: true, ..last.clone() };
    match new {
        Some(new) if new.refused && last.is_some_and(|last| !last.decoded.refused) => last.map(keep),
        Some(decoded) => Some(SourceObject { decoded, file: file.clone(), stale: false }),
        None => last.map(keep),
    }
}
