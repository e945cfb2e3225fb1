//! What a machine can check of the structure: crate edges, file lengths, module docs, goldens, the behaviours table.
//!
//! Invariant: every rule here is one sentence of ARCHITECTURE.md; a finding names file and remedy.

use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates by level; an edge may only point to a lower level. `testkit` is a dev-dependency of anyone.
const LEVELS: &[(&str, u8)] = &[
    ("model", 0),
    ("proto", 0),
    ("runtime", 0),
    ("resources", 1),
    ("identity", 1),
    ("calls", 1),
    ("xds", 1),
    ("sources", 2),
    ("peering", 2),
    ("resolve", 2),
    ("xdsgen", 2),
    ("engine", 2),
    ("transport", 2),
    ("capture", 2),
    ("proxy", 3),
    ("walk", 3),
    ("lab", 3),
    ("install", 3),
    ("control", 4),
    ("fairlead", 5),
];

/// Edges that the levels would allow and the design forbids: (crate, what it must never see).
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("model", &["tokio", "prost", "envoy-types"]),
    ("resources", &["fairlead-proto", "envoy-types", "tokio"]),
    ("xds", &["fairlead-model"]),
    ("sources", &["fairlead-xds", "fairlead-proto"]),
    ("resolve", &["fairlead-proto", "envoy-types", "tokio"]),
    ("xdsgen", &["fairlead-resources", "tokio"]),
    ("engine", &["tokio", "fairlead-resources", "hyper"]),
    ("proxy", &["fairlead-resources", "fairlead-resolve", "fairlead-xdsgen"]),
    ("walk", &["tokio", "hyper"]),
    ("capture", &["tokio", "hyper", "kube", "k8s-openapi"]),
    ("install", &["tokio", "kube", "k8s-openapi", "hyper", "fairlead-resolve"]),
    ("lab", &["fairlead-resolve", "fairlead-xdsgen", "fairlead-engine"]),
];

const MAX_LINES: usize = 800;

pub fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    edges(root, &mut faults)?;
    let sources = rust_files(root)?;
    for file in &sources {
        let text = std::fs::read_to_string(file)?;
        let lines = text.lines().count();
        if lines > MAX_LINES {
            faults
                .push(format!("{}: {lines} lines, more than {MAX_LINES}: split it by responsibility", file.display()));
        }
        let is_module = file.components().any(|c| c.as_os_str() == "src");
        if is_module && !text.trim_start_matches("#![allow(unsafe_code)]").trim_start().starts_with("//!") {
            faults.push(format!(
                "{}: no module docs (`//!`): say what it is for and which invariant it keeps",
                file.display()
            ));
        }
    }
    goldens(root, &sources, &mut faults)?;
    behaviours(root, &mut faults)?;
    links(root, &mut faults)?;
    Ok(faults)
}

fn edges(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let levels: BTreeMap<_, _> = LEVELS.iter().copied().collect();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let manifest = path.join("Cargo.toml");
        let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
        let dependencies = dependencies(&text);
        if name == "testkit" {
            continue;
        }
        let Some(level) = levels.get(name.as_str()) else {
            faults.push(format!("crates/{name}: not in the table of levels (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in &dependencies {
            let Some(short) = dependency.strip_prefix("fairlead-") else { continue };
            if levels.get(short).is_some_and(|other| other >= level) {
                faults.push(format!("crates/{name} depends on {short}: edges point down only"));
            }
        }
        let forbidden = FORBIDDEN.iter().find(|(c, _)| *c == name).map_or(&[][..], |(_, f)| *f);
        for bad in forbidden.iter().filter(|f| dependencies.contains(**f)) {
            faults.push(format!("crates/{name} must never see {bad}"));
        }
    }
    Ok(())
}

/// Names in `[dependencies]`, not dev- or build-dependencies.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside && let Some(name) = line.split(['.', '=', ' ']).next().filter(|n| !n.is_empty()) {
            names.insert(name.to_owned());
        }
    }
    names
}

fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for top in ["crates", "xtask"] {
        walk(&root.join(top), &mut |p| {
            if p.extension().is_some_and(|e| e == "rs") {
                files.push(p.to_owned());
            }
        })?;
    }
    files.sort();
    Ok(files)
}

fn walk(path: &Path, visit: &mut impl FnMut(&Path)) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                walk(&path, visit)?;
            }
        } else {
            visit(&path);
        }
    }
    Ok(())
}

/// A folder of cases that no test names is never read: `tests/cases/<area>` must occur in a source of its crate.
fn goldens(root: &Path, sources: &[PathBuf], faults: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root.join("crates"))? {
        let krate = entry?.path();
        let cases = krate.join("tests/cases");
        if !cases.is_dir() {
            continue;
        }
        let code: String =
            sources.iter().filter(|s| s.starts_with(&krate)).filter_map(|s| std::fs::read_to_string(s).ok()).collect();
        if code.contains("tests/cases\"") || code.contains("\"cases\"") {
            continue; // the whole tree is read
        }
        for area in std::fs::read_dir(&cases)? {
            let area = area?.path();
            let name = area.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let stem = name.split('.').next().unwrap_or(&name);
            if !code.contains(stem) {
                faults.push(format!("{}: no test of its crate reads it", area.display()));
            }
        }
    }
    Ok(())
}

/// Rows of docs/behaviours.md: `| behaviour | path | symbol |`; the file must exist and hold the symbol.
fn behaviours(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let path = root.join("docs/behaviours.md");
    let Ok(text) = std::fs::read_to_string(&path) else {
        faults.push("docs/behaviours.md is missing".into());
        return Ok(());
    };
    let mut rows = 0;
    for (number, line) in text.lines().enumerate() {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(|c| c.trim().trim_matches('`')).collect();
        let [_, file, symbol] = cells[..] else { continue };
        if !file.contains(".rs") {
            continue;
        }
        rows += 1;
        let found = std::fs::read_to_string(root.join(file)).map(|code| code.contains(symbol));
        match found {
            Ok(true) => {}
            Ok(false) => faults.push(format!("docs/behaviours.md:{}: {file} has no `{symbol}`", number + 1)),
            Err(_) => faults.push(format!("docs/behaviours.md:{}: {file} does not exist", number + 1)),
        }
    }
    if rows < 40 {
        faults.push(format!("docs/behaviours.md lists {rows} behaviours, fewer than 40"));
    }
    Ok(())
}

/// Relative links in the documents lead somewhere.
fn links(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].iter().map(|d| root.join(d)).collect();
    walk(&root.join("docs"), &mut |p| {
        if p.extension().is_some_and(|e| e == "md") {
            documents.push(p.to_owned());
        }
    })?;
    for document in documents {
        let Ok(text) = std::fs::read_to_string(&document) else {
            faults.push(format!("{} is missing", document.display()));
            continue;
        };
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let base = document.parent().unwrap_or(root);
            if !base.join(target).exists() {
                faults.push(format!("{}: link to {target} leads nowhere", document.display()));
            }
        }
    }
    Ok(())
}
