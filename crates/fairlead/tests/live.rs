//! A small mesh, run as a user without privileges and without any installed tool.
//!
//! Invariant: it needs nothing of the machine but the kernel: no root, an empty PATH; and it leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Nobody, in every distribution.
const NOBODY: u32 = 65534;

#[test]
fn a_pair_of_clusters() {
    let meshes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/meshes");
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Where the project lies may be closed to others.
    copy(&meshes, &home.path().join("meshes"));
    let binary = home.path().join("fairlead");
    std::fs::copy(env!("CARGO_BIN_EXE_fairlead"), &binary).unwrap();
    let state = home.path().join("tmp");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o1777)).unwrap();

    let mut command = Command::new(&binary);
    command.args(["up", "meshes/pair", "--check", "-o", "json"]).current_dir(home.path());
    command.env_clear().env("PATH", "").env("TMPDIR", &state);
    if std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0) {
        command.uid(NOBODY).gid(NOBODY);
    }
    let done = command.output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    let rows: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}\n{told}"));
    let failed: Vec<_> =
        rows.as_array().unwrap().iter().filter(|row| row["pass"] != serde_json::Value::Bool(true)).collect();
    assert!(failed.is_empty(), "{}\n{told}", serde_json::to_string_pretty(&failed).unwrap());
    assert_eq!(done.status.code(), Some(0), "{told}");
    let left: Vec<PathBuf> = labs(&state);
    assert!(left.is_empty(), "{left:?}");
    let ours = |pid: &PathBuf| std::fs::read_link(pid.join("exe")).is_ok_and(|exe| exe.starts_with(home.path()));
    let running: Vec<PathBuf> = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path()).filter(ours).collect();
    assert!(running.is_empty(), "{running:?}");
}

/// State folders of labs, beside the note of the last one.
fn labs(state: &Path) -> Vec<PathBuf> {
    let users = std::fs::read_dir(state).unwrap().flatten().map(|e| e.path());
    users
        .flat_map(|user| std::fs::read_dir(user).into_iter().flatten().flatten().map(|e| e.path()))
        .filter(|p| p.is_dir())
        .collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
