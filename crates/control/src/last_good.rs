//! The last good version of every file on disk, so that a restart with a broken file still serves what held before.
//!
//! While the process runs the directory source keeps last good objects itself; this is for the start after. Kept: a file's bytes when
//! nothing in it was refused. Invariants: an object that its author removed is gone; what is served from here is marked stale and
//! says so.

use crate::codes::STALE_OBJECT;
use crate::keeper::Keeper;
use crate::store::{Bucket, Store};
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, diagnostic::Severity};
use fairlead_resources::{Decoded, codes, decode};
use fairlead_sources::{ClusterObjects, SourceObject};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Files of one cluster as they last were good.
pub struct LastGood {
    cluster: ClusterId,
    /// The mesh directory, to which file names are relative.
    root: PathBuf,
    files: BTreeMap<Arc<str>, Good>,
}

struct Good {
    bytes: Vec<u8>,
    objects: Vec<Arc<Decoded>>,
}

impl LastGood {
    pub fn load(cluster: ClusterId, root: PathBuf, store: &Store) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        for (file, bytes) in store.all_bytes(Bucket::LastGood)? {
            let file: Arc<str> = file.into();
            if let Some(good) = good(&cluster, &file, bytes) {
                files.insert(file, good);
            }
        }
        Ok(Self { cluster, root, files })
    }

    /// Completes what was read by what was good before, and remembers what is good now. Touches the disk.
    pub fn complete(&mut self, mut read: ClusterObjects, keeper: &Keeper) -> ClusterObjects {
        if read.unavailable.is_none() {
            self.remember(&read, keeper);
        }
        self.add_missing(&mut read);
        let mut diagnostics: Vec<Diagnostic> = read.objects.iter().filter(|o| o.stale).map(stale).collect();
        read.diagnostics.append(&mut diagnostics);
        read
    }

    fn remember(&mut self, read: &ClusterObjects, keeper: &Keeper) {
        let files: BTreeSet<&Arc<str>> = read.objects.iter().map(|o| &o.file).collect();
        for file in files {
            let Ok(bytes) = std::fs::read(self.root.join(&**file)) else { continue };
            if self.files.get(file).is_some_and(|known| known.bytes == bytes) {
                continue;
            }
            if let Some(good) = good(&self.cluster, file, bytes) {
                keeper.save_bytes(Bucket::LastGood, file.to_string(), good.bytes.clone());
                self.files.insert(file.clone(), good);
            }
        }
        let root = &self.root;
        self.files.retain(|file, _| {
            // An empty file, or none, holds nothing that could be missing.
            let there = std::fs::metadata(root.join(&**file)).is_ok_and(|m| m.len() > 0);
            if !there {
                keeper.remove(Bucket::LastGood, file.to_string());
            }
            there
        });
    }

    /// Puts the last good version of what was refused back.
    fn add_missing(&self, read: &mut ClusterObjects) {
        let refused: BTreeSet<(&Arc<str>, &ObjectKey)> =
            read.diagnostics.iter().filter(|d| d.severity == Severity::Error).map(|d| (&d.file, &d.object)).collect();
        let cut = |d: &&Diagnostic| *d.code == *codes::SYNTAX || *d.code == *codes::FILE;
        let cut: BTreeSet<&Arc<str>> = read.diagnostics.iter().filter(cut).map(|d| &d.file).collect();
        // Closed stand-ins of refused guards give way to what held before, as in the source itself.
        let present: BTreeMap<&ObjectKey, bool> = read.objects.iter().map(|o| (o.key(), o.decoded.refused)).collect();
        let mut back: Vec<SourceObject> = Vec::new();
        for (file, good) in &self.files {
            for decoded in &good.objects {
                let hidden =
                    read.unavailable.is_some() || cut.contains(file) || refused.contains(&(file, &decoded.key));
                let wanted = match present.get(&decoded.key) {
                    None => hidden,
                    Some(is_stand_in) => *is_stand_in && hidden,
                };
                if wanted && !back.iter().any(|o| o.key() == &decoded.key) {
                    back.push(SourceObject { decoded: decoded.clone(), file: file.clone(), stale: true });
                }
            }
        }
        if back.is_empty() {
            return;
        }
        read.objects.retain(|o| !back.iter().any(|b| b.key() == o.key()));
        read.objects.extend(back);
        read.objects.sort_by(|a, b| a.key().cmp(b.key()));
    }
}

/// What a file gives, if nothing in it is refused.
fn good(cluster: &ClusterId, file: &Arc<str>, bytes: Vec<u8>) -> Option<Good> {
    let decoding = decode(cluster, file, &bytes);
    let cut = decoding.diagnostics.iter().any(|d| *d.code == *codes::SYNTAX || *d.code == *codes::FILE);
    let whole = !cut && decoding.refused.is_empty() && decoding.objects.iter().all(|o| !o.refused);
    whole.then(|| Good { bytes, objects: decoding.objects.into_iter().map(Arc::new).collect() })
}

/// What is said of an object whose last good version serves.
pub fn stale(object: &SourceObject) -> Diagnostic {
    let at = object.decoded.origin("", &object.file);
    let message =
        format!("{} as it is written now was refused; its last good version serves (stale-object)", object.key());
    Diagnostic::warning(STALE_OBJECT, at, message).hint("correct what its other diagnostics name, or remove the object")
}
