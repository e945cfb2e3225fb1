//! What the tests of generation share: meshes written in YAML, and where Envoy's descriptors are.
#![allow(dead_code)]

pub mod envoy;
pub mod fixture;
pub mod render;
mod values;

use fairlead_xdsgen::json::Descriptors;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The descriptor set that `envoy-types` ships beside its sources.
pub fn descriptors() -> Descriptors {
    // Only this platform's packages are sure to be there without asking a registry.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|p| p["name"] == "envoy-types"))
        .and_then(|package| package["manifest_path"].as_str())
        .expect("envoy-types is a dependency");
    let set = Path::new(manifest).parent().expect("a folder").join("src/generated/types.bin");
    Descriptors::decode(&std::fs::read(&set).expect("the descriptor set is shipped")).expect("it is readable")
}

pub fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// The workspace's `target` folder.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    }
}
