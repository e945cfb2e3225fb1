//! A mesh directory that changes under the reader: save, rename, half-written file, removed file and folder.

use fairlead_sources::{ClusterObjects, DirectoryReader, watch};
use std::path::Path;

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: shop}\nspec: {host: a}\n";

fn reader(root: &Path) -> DirectoryReader {
    DirectoryReader::new("east".into(), root, &root.join("clusters/east"))
}

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join("clusters/east").join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn names(state: &ClusterObjects) -> Vec<String> {
    state.objects.iter().map(|o| format!("{}{}", o.key(), if o.stale { " (stale)" } else { "" })).collect()
}

#[test]
fn only_changes_are_told() {
    let root = tempfile::tempdir().unwrap();
    let mut reader = reader(root.path());
    let unknown = reader.read().unwrap();
    assert!(unknown.unavailable.is_some(), "never seen is unknown, not empty");
    write(root.path(), "a.yaml", SERVICE);
    assert_eq!(names(&reader.read().unwrap()), ["Service shop/a"]);
    assert!(reader.read().is_none());
    write(root.path(), "deep/r.yaml", RULE);
    write(root.path(), ".hidden.yaml", RULE);
    assert_eq!(names(&reader.read().unwrap()), ["DestinationRule shop/r", "Service shop/a"]);
    std::fs::rename(root.path().join("clusters/east/deep"), root.path().join("clusters/east/deeper")).unwrap();
    assert_eq!(reader.read().unwrap().objects.len(), 2);
    std::fs::remove_dir_all(root.path().join("clusters/east/deeper")).unwrap();
    assert_eq!(names(&reader.read().unwrap()), ["Service shop/a"]);
}

#[test]
fn last_good_versions_stay() {
    let root = tempfile::tempdir().unwrap();
    let mut reader = reader(root.path());
    write(root.path(), "all.yaml", &format!("{SERVICE}---\n{RULE}"));
    assert_eq!(reader.read().unwrap().objects.len(), 2);
    // Half-written: the second document is cut inside a flow mapping.
    write(root.path(), "all.yaml", &format!("{SERVICE}---\n{}", &RULE[..RULE.len() - 4]));
    let state = reader.read().unwrap();
    assert_eq!(names(&state), ["DestinationRule shop/r (stale)", "Service shop/a"]);
    assert!(!state.diagnostics.is_empty());
    // An unknown field refuses the object; its last good version serves on.
    write(root.path(), "all.yaml", &format!("{SERVICE}---\n{}", RULE.replace("host: a", "host: a, hosst: b")));
    assert_eq!(names(&reader.read().unwrap()), ["DestinationRule shop/r (stale)", "Service shop/a"]);
    write(root.path(), "all.yaml", SERVICE);
    assert_eq!(names(&reader.read().unwrap()), ["Service shop/a"]);
}

#[test]
fn a_folder_that_vanishes_keeps_its_objects() {
    let root = tempfile::tempdir().unwrap();
    let mut reader = reader(root.path());
    write(root.path(), "a.yaml", SERVICE);
    reader.read();
    std::fs::remove_dir_all(root.path().join("clusters/east")).unwrap();
    let state = reader.read().unwrap();
    assert!(state.unavailable.is_some());
    assert_eq!(names(&state), ["Service shop/a"]);
}

#[test]
fn large_files_and_duplicates_cost_themselves() {
    let root = tempfile::tempdir().unwrap();
    let mut reader = reader(root.path());
    write(root.path(), "a.yaml", SERVICE);
    write(root.path(), "b.yaml", SERVICE);
    write(root.path(), "huge.yaml", &"#".repeat(20 << 20));
    let state = reader.read().unwrap();
    assert_eq!(names(&state), ["Service shop/a"]);
    assert_eq!(state.diagnostics.len(), 2, "{:?}", state.diagnostics);
    assert!(reader.read().is_none());
}

#[tokio::test]
async fn a_watch_tells_of_a_saved_file() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a.yaml", SERVICE);
    let (tx, mut rx) = tokio::sync::mpsc::channel(4);
    tokio::spawn(watch(reader(root.path()), tx));
    assert_eq!(rx.recv().await.unwrap().objects.len(), 1);
    write(root.path(), "r.yaml", RULE);
    assert_eq!(rx.recv().await.unwrap().objects.len(), 2);
}
