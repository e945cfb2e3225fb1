//! A cluster's folder read again and again: only files whose bytes changed are decoded.
//!
//! Invariants: a file that cannot be read or is cut in the middle keeps what it last gave; an object that is refused keeps its last
//! good version, marked stale; an object that is gone from a file that could be read whole is gone. Two files with the same object:
//! the first path in order holds, the other is a diagnostic.

use crate::objects::{ClusterObjects, SourceObject, supersede};
use fairlead_calls::directory::yaml_files;
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin};
use fairlead_resources::{Decoded, codes, decode, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads one cluster's folder.
#[derive(Debug)]
pub struct DirectoryReader {
    cluster: ClusterId,
    /// The mesh directory: file names are told relative to it.
    root: PathBuf,
    folder: PathBuf,
    files: BTreeMap<Arc<str>, FileState>,
    /// Whether the folder was ever seen.
    known: bool,
}

#[derive(Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    /// What the file gives now: good objects, and last good versions of refused ones.
    objects: Vec<SourceObject>,
    diagnostics: Vec<Diagnostic>,
}

impl DirectoryReader {
    /// `folder` is `root/clusters/<cluster>` in a mesh directory.
    pub fn new(cluster: ClusterId, root: &Path, folder: &Path) -> Self {
        Self { cluster, root: root.to_owned(), folder: folder.to_owned(), files: BTreeMap::new(), known: false }
    }

    /// The folder that is read.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads what changed. `None`: nothing did. Before the folder was ever seen: an unavailable, empty state.
    pub fn read(&mut self) -> Option<ClusterObjects> {
        if !self.folder.is_dir() {
            let mut last = self.state();
            last.unavailable = Some(format!("{} is not there", self.folder.display()));
            return Some(last);
        }
        let first = !std::mem::replace(&mut self.known, true);
        let mut paths = Vec::new();
        yaml_files(&self.folder, 0, &mut paths);
        let mut changed = first;
        let mut seen = BTreeSet::new();
        for path in paths {
            let name = self.name_of(&path);
            seen.insert(name.clone());
            changed |= self.read_file(&path, name);
        }
        let before = self.files.len();
        self.files.retain(|name, _| seen.contains(name));
        changed |= self.files.len() != before;
        changed.then(|| self.state())
    }

    fn name_of(&self, path: &Path) -> Arc<str> {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into()
    }

    fn read_file(&mut self, path: &Path, name: Arc<str>) -> bool {
        let length = std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
        if length > limits::FILE_BYTES as u64 {
            return self.refuse_file(
                name,
                format!("the file has {length} bytes, more than {}", limits::FILE_BYTES),
                "split it",
            );
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) => {
                return self.refuse_file(
                    name,
                    format!("cannot be read: {e}"),
                    "make it readable for the control plane",
                );
            }
        };
        if self.files.get(&name).is_some_and(|state| state.bytes == bytes) {
            return false;
        }
        let decoding = decode(&self.cluster, &name, &bytes);
        // A document that could not even be parsed may hold any of the file's earlier objects.
        let cut = decoding.diagnostics.iter().any(|d| *d.code == *codes::SYNTAX || *d.code == *codes::FILE);
        let last = self.files.remove(&name).unwrap_or_default();
        let objects = merge(decoding.objects, &decoding.refused, cut, last.objects, &name);
        self.files.insert(name, FileState { bytes, objects, diagnostics: decoding.diagnostics });
        true
    }

    /// Keeps what the file gave before.
    fn refuse_file(&mut self, name: Arc<str>, message: String, hint: &str) -> bool {
        let state = self.files.entry(name.clone()).or_default();
        let object = ObjectKey::new(self.cluster.clone(), "File", "", name.clone());
        let at = Origin { object, path: String::new(), file: name, line: 1 };
        let diagnostic = Diagnostic::error(codes::FILE, at, message).hint(hint);
        if state.diagnostics == [diagnostic.clone()] {
            return false;
        }
        for object in &mut state.objects {
            object.stale = true;
        }
        state.bytes = Vec::new();
        state.diagnostics = vec![diagnostic];
        true
    }

    fn state(&self) -> ClusterObjects {
        let mut by_key: BTreeMap<ObjectKey, SourceObject> = BTreeMap::new();
        let mut diagnostics = Vec::new();
        for state in self.files.values() {
            diagnostics.extend(state.diagnostics.iter().cloned());
            for object in &state.objects {
                if let Some(other) = by_key.get(object.key()) {
                    diagnostics.push(duplicate(object, other));
                } else if by_key.len() >= limits::OBJECTS_PER_CLUSTER {
                    diagnostics.push(too_many(object));
                } else {
                    by_key.insert(object.key().clone(), object.clone());
                }
            }
        }
        ClusterObjects { objects: by_key.into_values().collect(), diagnostics, unavailable: None, newest_slice: 0 }
    }
}

/// New objects, with the last good version where the new one was refused (or, in a cut file, cannot be seen).
fn merge(
    new: Vec<Decoded>,
    refused: &[ObjectKey],
    cut: bool,
    last: Vec<SourceObject>,
    file: &Arc<str>,
) -> Vec<SourceObject> {
    let last_good = |key: &ObjectKey| last.iter().find(|o| o.key() == key && !o.decoded.refused);
    let present: BTreeSet<ObjectKey> = new.iter().map(|decoded| decoded.key.clone()).collect();
    let mut merged: Vec<SourceObject> = new
        .into_iter()
        .filter_map(|decoded| {
            let last = last_good(&decoded.key);
            supersede(Some(Arc::new(decoded)), last, file)
        })
        .collect();
    let hidden = last.iter().filter(|object| refused.contains(object.key()) || cut);
    merged.extend(hidden.filter(|o| !present.contains(o.key())).filter_map(|o| supersede(None, Some(o), file)));
    merged
}

fn duplicate(object: &SourceObject, other: &SourceObject) -> Diagnostic {
    let at = object.decoded.origin("", &object.file);
    let message =
        format!("{} is written twice: it already stands in {}:{}", object.key(), other.file, other.decoded.line);
    Diagnostic::error(codes::DUPLICATE, at, message).hint("remove one of the two; the first file in order holds")
}

fn too_many(object: &SourceObject) -> Diagnostic {
    let at = object.decoded.origin("", &object.file);
    let message =
        format!("the cluster has more than {} objects; {} is left out", limits::OBJECTS_PER_CLUSTER, object.key());
    Diagnostic::error(codes::OBJECT_COUNT, at, message).hint("use a Kubernetes source for clusters of this size")
}
