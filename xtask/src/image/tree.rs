//! The files of an image: taken from this machine, put where the image shall have them.
//!
//! Invariant: a tree is ordered by path and has every parent folder, so that equal files give equal images.

use super::archive::{Archive, Kind};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

#[derive(Debug)]
enum Entry {
    Folder(u32),
    File(Vec<u8>, u32),
    Link(String),
}

/// Files by path, without the leading slash.
#[derive(Debug)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Default for Tree {
    /// With the folders that a container runtime mounts over.
    fn default() -> Self {
        let folders = ["dev", "etc", "proc", "run", "sys", "var"].map(|name| (name.to_owned(), Entry::Folder(0o755)));
        let tmp = ("tmp".to_owned(), Entry::Folder(0o1777));
        Self { entries: folders.into_iter().chain([tmp]).collect() }
    }
}

impl Tree {
    /// Copies a file, and whether it may be executed.
    pub fn file(&mut self, path: &str, source: &Path) -> anyhow::Result<()> {
        let content = fs::read(source).with_context(|| source.display().to_string())?;
        let executable = fs::metadata(source)?.permissions().mode() & 0o111 != 0;
        self.put(path, Entry::File(content, if executable { 0o755 } else { 0o644 }));
        Ok(())
    }

    pub fn text(&mut self, path: &str, text: &str) {
        self.put(path, Entry::File(text.as_bytes().to_vec(), 0o644));
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link(target.to_owned()));
    }

    /// All files below a folder; none when it does not exist.
    pub fn folder(&mut self, path: &str, source: &Path) -> anyhow::Result<()> {
        let Ok(entries) = fs::read_dir(source) else { return Ok(()) };
        for entry in entries {
            let from = entry?.path();
            let to = format!("{path}/{}", from.file_name().unwrap_or_default().to_string_lossy());
            if from.is_dir() { self.folder(&to, &from)? } else { self.file(&to, &from)? }
        }
        Ok(())
    }

    /// A program with the libraries that it is linked with, at the paths where its loader looks for them.
    pub fn program(&mut self, path: &str, source: &Path) -> anyhow::Result<()> {
        self.file(path, source)?;
        let listed = Command::new("ldd").arg(source).output().context("cannot run `ldd` (package libc-bin)")?;
        for library in libraries(&String::from_utf8_lossy(&listed.stdout))
            .with_context(|| format!("{} cannot be put into an image", source.display()))?
        {
            self.file(&library, Path::new(&library))?;
        }
        Ok(())
    }

    /// The layer of an image.
    pub fn archive(&self) -> anyhow::Result<Vec<u8>> {
        let mut archive = Archive::default();
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder(mode) => archive.add(path, *mode, Kind::Folder)?,
                Entry::File(content, mode) => archive.add(path, *mode, Kind::File(content))?,
                Entry::Link(target) => archive.add(path, 0o777, Kind::Link(target))?,
            }
        }
        Ok(archive.finish())
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Folder(0o755));
        }
        self.entries.insert(path.to_owned(), entry);
    }
}

/// Paths in what `ldd` prints: `name => /path (address)` or `/path (address)`. The kernel's own has no path; a static program has none.
fn libraries(listed: &str) -> anyhow::Result<Vec<String>> {
    if let Some(line) = listed.lines().find(|line| line.contains("not found")) {
        anyhow::bail!("a library is missing here: {}", line.trim());
    }
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_that_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f1)\n";
        assert_eq!(libraries(listed).unwrap(), ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tstatically linked\n").unwrap(), [] as [&str; 0]);
        let error = libraries("\tlibx.so => not found\n").unwrap_err().to_string();
        assert!(error.contains("libx.so"), "{error}");
    }

    #[test]
    fn the_order_of_making_does_not_matter_and_parents_are_there() {
        let make = |paths: [&str; 2]| {
            let mut tree = Tree::default();
            for path in paths {
                tree.text(path, path);
            }
            tree.archive().unwrap()
        };
        assert_eq!(make(["/a/b/one", "/a/two"]), make(["/a/two", "/a/b/one"]));
        let mut tree = Tree::default();
        tree.link("/usr/local/bin/x", "y");
        assert!(["usr", "usr/local", "usr/local/bin", "tmp"].iter().all(|path| tree.entries.contains_key(*path)));
    }
}
