//! The files of a mesh directory.
//!
//! Reads bytes and gives them their place (mesh, cluster, table); what is in them is for others. Invariant: the same directory
//! gives the same list in the same order, whatever the file system's order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file larger than this is not read (a diagnostic says so); objects of a mesh are a few kilobytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// Folders deeper than this are not entered (a loop of links would never end).
const MAX_DEPTH: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the mesh directory, with `/`.
    pub path: String,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct MeshDirectory {
    /// The folder's name: default of the mesh's.
    pub name: String,
    pub root: PathBuf,
    pub mesh: Option<SourceFile>,
    pub clusters: BTreeMap<String, Vec<SourceFile>>,
    pub tables: Vec<SourceFile>,
    pub diagnostics: Option<SourceFile>,
    /// Files that were not read, with the reason.
    pub refused: Vec<(String, String)>,
}

impl MeshDirectory {
    /// Errors when `root` is no readable directory, or holds neither `mesh.yaml` nor `clusters/`.
    pub fn read(root: &Path) -> std::io::Result<Self> {
        let name =
            root.canonicalize()?.file_name().map_or_else(|| "mesh".to_owned(), |n| n.to_string_lossy().into_owned());
        let mut dir = Self { name, root: root.to_owned(), ..Self::default() };
        std::fs::read_dir(root)?;
        dir.mesh = dir.file("mesh.yaml");
        dir.diagnostics = dir.file("diagnostics.yaml");
        let calls = dir.file("calls.yaml");
        dir.tables.extend(calls);
        let mut paths = Vec::new();
        yaml_files(&root.join("calls"), 0, &mut paths);
        for path in paths {
            if let Some(file) = dir.load(&path) {
                dir.tables.push(file);
            }
        }
        dir.tables.sort_by(|a, b| a.path.cmp(&b.path));
        let clusters = root.join("clusters");
        if dir.mesh.is_none() && !clusters.is_dir() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!("{} is no mesh directory: it has neither mesh.yaml nor clusters/", root.display()),
            ));
        }
        for cluster in subfolders(&clusters) {
            let mut paths = Vec::new();
            yaml_files(&clusters.join(&cluster), 0, &mut paths);
            let files = paths.iter().filter_map(|p| dir.load(p)).collect();
            dir.clusters.insert(cluster, files);
        }
        Ok(dir)
    }

    fn file(&mut self, name: &str) -> Option<SourceFile> {
        let path = self.root.join(name);
        path.is_file().then(|| self.load(&path)).flatten()
    }

    fn load(&mut self, path: &Path) -> Option<SourceFile> {
        let relative = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        let read = std::fs::metadata(path).and_then(|meta| {
            if meta.len() > MAX_FILE_BYTES {
                let message = format!("{} bytes, more than the limit of {MAX_FILE_BYTES}", meta.len());
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
            }
            std::fs::read(path)
        });
        match read {
            Ok(bytes) => Some(SourceFile { path: relative, bytes }),
            Err(e) => {
                self.refused.push((relative, e.to_string()));
                None
            }
        }
    }
}

/// Names of the folders in `path`, sorted; hidden ones left out.
pub fn subfolders(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| !n.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// `*.yaml`, `*.yml` and `*.json` below `path`, sorted; hidden files and editors' temporary files left out.
pub fn yaml_files(path: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        if entry.is_dir() {
            if depth < MAX_DEPTH {
                yaml_files(&entry, depth + 1, found);
            }
        } else if matches!(entry.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")) {
            found.push(entry);
        }
    }
}
