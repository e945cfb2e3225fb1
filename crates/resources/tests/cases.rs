//! Runs every case of `tests/cases`: the first document says what to expect of the rest.
//!
//! `expect` lists all diagnostics in any order (only the keys written are compared; `hint` and `message` are parts);
//! `objects` and `refused` list `Kind namespace/name` in order.

// Helpers outside #[test] functions may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fairlead_model::{ClusterId, Diagnostic};
use fairlead_resources::yaml::{Document, Node, Value, compose};
use fairlead_resources::{Decoding, codes, decode};

#[test]
fn every_case() {
    let mut files = Vec::new();
    collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases")), &mut files);
    assert!(files.len() > 20, "cases found: {}", files.len());
    let problems: Vec<String> = files.iter().flat_map(|file| run(file)).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}

fn run(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let name =
        format!("{}/{}", file.parent().unwrap().file_name().unwrap().display(), file.file_name().unwrap().display());
    let (head, body) = text.split_once("\n---\n").unwrap_or_else(|| panic!("{name}: no input"));
    let header = compose(Document { text: head, first_line: 1 }).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(header.text_at("why").is_some_and(|why| why.len() > 10), "{name}: why is missing");
    // Blank lines instead of the header keep the file's line numbers.
    let input = "\n".repeat(head.matches('\n').count() + 2) + body;
    let got = decode(&ClusterId::new("east"), &Arc::from("input.yaml"), input.as_bytes());
    let mut problems = compare(&header, &got);
    problems.iter_mut().for_each(|problem| *problem = format!("{name}: {problem}"));
    problems
}

fn compare(header: &Node, got: &Decoding) -> Vec<String> {
    let mut problems = Vec::new();
    let mut left: Vec<&Diagnostic> = got.diagnostics.iter().collect();
    for expected in items(header, "expect") {
        match left.iter().position(|diagnostic| matches(expected, diagnostic)) {
            Some(index) => drop(left.remove(index)),
            None => problems.push(format!("line {}: expected diagnostic is missing", expected.line)),
        }
    }
    for extra in left {
        problems.push(format!("unexpected: {extra:?}"));
    }
    for diagnostic in &got.diagnostics {
        if !codes::ALL.iter().any(|code| code.code == &*diagnostic.code) {
            problems.push(format!("code {} is in no table", diagnostic.code));
        }
    }
    let objects: Vec<String> = got.objects.iter().map(|decoded| decoded.key.to_string()).collect();
    let refused: Vec<String> = got.refused.iter().map(ToString::to_string).collect();
    for (field, got) in [("objects", objects), ("refused", refused)] {
        let expected: Vec<String> =
            items(header, field).iter().map(|item| item.text().unwrap().replace("\"\"", "")).collect();
        if expected != got {
            problems.push(format!("{field}: expected {expected:?}, got {got:?}"));
        }
    }
    problems
}

fn items<'a>(header: &'a Node, key: &str) -> &'a [Node] {
    match header.child(key).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn matches(expected: &Node, diagnostic: &Diagnostic) -> bool {
    let text = |key: &str| expected.text_at(key);
    let severity = format!("{:?}", diagnostic.severity).to_lowercase();
    text("severity") == Some(severity.as_str())
        && text("code") == Some(&*diagnostic.code)
        && text("path").is_none_or(|path| path == diagnostic.path)
        && text("hint").is_none_or(|hint| diagnostic.hint.contains(hint))
        && text("message").is_none_or(|message| diagnostic.message.contains(message))
        && expected.child("line").is_none_or(|line| line.value == Value::Int(i64::from(diagnostic.line)))
}
