//! The Helm chart: its files are as the crate writes them.
//!
//! `UPDATE_GOLDEN=1` writes the files. What Helm itself makes of them is a step of the suite `kubernetes` (`xtask/src/cluster/chart.rs`).

use fairlead_install::{Values, chart, crds};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/fairlead")
}

#[test]
fn files_are_as_the_crate_writes_them() {
    let files = [
        ("templates/fairlead.yaml", chart::template()),
        ("values.yaml", chart::values()),
        ("crds/fairlead.yaml", chart::definitions()),
    ];
    for (file, text) in files {
        let path = folder().join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == text,
            "{file} differs; UPDATE_GOLDEN=1 writes it anew"
        );
        assert!(!text.contains("zz-") && !text.contains("4100"), "a mark is left in {file}");
    }
}

#[test]
fn the_version_is_the_programs() {
    let text = std::fs::read_to_string(folder().join("Chart.yaml")).unwrap();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(
        (&read["version"], &read["appVersion"]),
        (&env!("CARGO_PKG_VERSION").into(), &env!("CARGO_PKG_VERSION").into())
    );
}

#[test]
fn what_helm_reads_is_what_is_meant() {
    let values: Value = serde_saphyr::from_str(&chart::values()).unwrap();
    assert_eq!(values, Values::default().tree());
    let definitions: Vec<Value> = serde_saphyr::from_multiple(&chart::definitions()).unwrap();
    assert_eq!(definitions, crds::all());
}
