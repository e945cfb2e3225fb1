//! What is known of a cluster: one table a kind, sorted, with the last good version of what was refused.
//!
//! Pure but for handing good versions to whoever keeps them. Invariants: a list replaces a table at once, never piecemeal; what did
//! not change stays the same allocation; an object that is gone leaves neither a version nor a diagnostic.

use super::Keep;
use super::convert::Version;
use crate::objects::{SourceObject, supersede};
use fairlead_model::{Diagnostic, ObjectKey};
use fairlead_resources::{Decoded, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All tables. By name of kind, as object keys sort.
#[derive(Default)]
pub struct Tables {
    tables: BTreeMap<&'static str, Table>,
    keep: Option<Arc<dyn Keep>>,
    no_file: Arc<str>,
}

#[derive(Default)]
struct Table {
    /// Sorted by key.
    objects: Vec<SourceObject>,
    diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
}

impl Tables {
    pub fn new(keep: Option<Arc<dyn Keep>>) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Takes versions that were kept over a restart: as if they had been read, and without keeping them anew.
    pub fn restore(&mut self, kind: Kind, versions: Vec<Version>) {
        let keep = self.keep.take();
        self.replace(kind, versions);
        self.keep = keep;
    }

    /// A whole list of a kind. Whether anything changed.
    pub fn replace(&mut self, kind: Kind, versions: Vec<Version>) -> bool {
        let listed: BTreeSet<ObjectKey> = versions.iter().map(|v| v.key.clone()).collect();
        let last = std::mem::take(&mut self.table(kind).objects);
        let mut changed = false;
        let mut diagnostics = BTreeMap::new();
        let mut objects = Vec::with_capacity(versions.len());
        for version in versions {
            let found = last.binary_search_by(|o| o.key().cmp(&version.key)).ok().and_then(|at| last.get(at));
            if let (Some(json), true) = (version.json, is_news(found, version.decoded.as_ref())) {
                self.keep(&version.key, json);
            }
            if !version.diagnostics.is_empty() {
                diagnostics.insert(version.key.clone(), version.diagnostics);
            }
            let next = settle(version.decoded, found, &self.no_file);
            changed |= !is_same(found, next.as_ref());
            objects.extend(next);
        }
        for gone in last.iter().filter(|o| !listed.contains(o.key())) {
            changed = true;
            self.forget(gone.key());
        }
        objects.sort_by(|a, b| a.key().cmp(b.key()));
        objects.dedup_by(|a, b| a.key() == b.key());
        objects.shrink_to_fit();
        let table = self.table(kind);
        changed |= table.diagnostics != diagnostics;
        table.diagnostics = diagnostics;
        table.objects = objects;
        changed
    }

    /// A new version of one object. Whether anything changed.
    pub fn apply(&mut self, kind: Kind, version: Version) -> bool {
        let no_file = self.no_file.clone();
        let table = self.table(kind);
        let at = table.objects.binary_search_by(|o| o.key().cmp(&version.key));
        let found = at.ok().and_then(|at| table.objects.get(at));
        let news = is_news(found, version.decoded.as_ref());
        let next = settle(version.decoded, found, &no_file);
        let mut changed = !is_same(found, next.as_ref());
        match (at, next) {
            (Ok(at), Some(next)) => table.objects[at] = next,
            (Err(at), Some(next)) => table.objects.insert(at, next),
            (_, None) => {}
        }
        let before = table.diagnostics.remove(&version.key).unwrap_or_default();
        changed |= before != version.diagnostics;
        if !version.diagnostics.is_empty() {
            table.diagnostics.insert(version.key.clone(), version.diagnostics);
        }
        if let (Some(json), true) = (version.json, news) {
            self.keep(&version.key, json);
        }
        changed
    }

    /// An object is gone. Whether anything changed.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        let table = self.table(kind);
        let told = table.diagnostics.remove(key).is_some();
        let Ok(at) = table.objects.binary_search_by(|o| o.key().cmp(key)) else { return told };
        table.objects.remove(at);
        self.forget(key);
        true
    }

    /// All objects, sorted by key.
    pub fn objects(&self) -> Vec<SourceObject> {
        let mut all = Vec::with_capacity(self.tables.values().map(|t| t.objects.len()).sum());
        all.extend(self.tables.values().flat_map(|t| t.objects.iter().cloned()));
        all
    }

    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.tables.values().flat_map(|t| t.diagnostics.values()).flatten()
    }

    /// Whether any version of a kind's objects is held.
    pub fn holds(&self, kind: Kind) -> bool {
        self.tables.get(kind.as_str()).is_some_and(|t| !t.objects.is_empty())
    }

    fn table(&mut self, kind: Kind) -> &mut Table {
        self.tables.entry(kind.as_str()).or_default()
    }

    fn keep(&self, key: &ObjectKey, json: Vec<u8>) {
        if let Some(keep) = &self.keep {
            keep.keep(key, json);
        }
    }

    fn forget(&self, key: &ObjectKey) {
        if let Some(keep) = &self.keep {
            keep.forget(key);
        }
    }
}

/// What holds now: the allocation of before where the object is equal.
fn settle(decoded: Option<Arc<Decoded>>, last: Option<&SourceObject>, no_file: &Arc<str>) -> Option<SourceObject> {
    let equal = |last: &&SourceObject| decoded.as_deref().is_some_and(|new| is_equal(new, &last.decoded));
    match last.filter(equal) {
        Some(last) => Some(SourceObject { stale: false, ..last.clone() }),
        None => supersede(decoded, last, no_file),
    }
}

fn is_equal(a: &Decoded, b: &Decoded) -> bool {
    a.refused == b.refused && a.object == b.object
}

/// Whether a version that was not refused differs from what is held.
fn is_news(last: Option<&SourceObject>, new: Option<&Arc<Decoded>>) -> bool {
    new.is_some_and(|new| last.is_none_or(|last| !is_equal(new, &last.decoded)))
}

fn is_same(a: Option<&SourceObject>, b: Option<&SourceObject>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(&a.decoded, &b.decoded) && a.stale == b.stale,
        (a, b) => a.is_none() && b.is_none(),
    }
}
