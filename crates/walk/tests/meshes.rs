//! Every mesh directory of the repository: its tables pass offline, its diagnostics are those it lists, its explanations are golden.

use fairlead_calls::{Call, Given, Mode, compare};
use fairlead_model::Severity;
use fairlead_walk::{Mesh, explain, follow};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn meshes() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["examples", "tests/meshes"]
        .iter()
        .flat_map(|top| std::fs::read_dir(root().join(top)).into_iter().flatten().flatten())
        .map(|e| e.path())
        .filter(|p| p.join("mesh.yaml").exists() || p.join("clusters").is_dir())
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Whether every field that is written is so.
fn holds(wanted: &Value, found: &Value) -> bool {
    match wanted {
        Value::Object(fields) => fields.iter().all(|(k, v)| holds(v, &found[k])),
        other => other == found,
    }
}

#[test]
fn every_call_gets_what_it_must() {
    let mut failed = Vec::new();
    for path in meshes() {
        let mesh = Mesh::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for call in &mesh.table.calls {
            let world = mesh.world(&call.call.given).unwrap();
            for (caller, got) in follow(&mesh, &world, call).unwrap() {
                let faults = compare(&call.call, &got, mesh.names(), Mode::Offline).unwrap();
                if !faults.is_empty() {
                    let at = format!("{} {}:{} ({caller})", path.display(), call.file, call.line);
                    failed.push(format!("{at} {}: {}", call.call.why, faults.join("; ")));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn only_the_errors_that_are_expected() {
    for path in meshes() {
        let mesh = Mesh::open_objects(&path).unwrap();
        let wanted: Vec<Value> = std::fs::read_to_string(path.join("diagnostics.yaml"))
            .map(|text| serde_saphyr::from_str(&text).unwrap())
            .unwrap_or_default();
        let found: Vec<Value> = mesh.diagnostics.iter().map(|d| serde_json::to_value(d).unwrap()).collect();
        for one in &wanted {
            assert!(found.iter().any(|f| holds(one, f)), "{}: {one} is not reported", path.display());
        }
        let errors = mesh.diagnostics.iter().zip(&found).filter(|(d, _)| d.severity == Severity::Error);
        for (_, error) in errors {
            assert!(wanted.iter().any(|w| holds(w, error)), "{}: unexpected {error}", path.display());
        }
    }
}

#[test]
fn no_proxy_refuses_what_is_generated_for_it() {
    for path in meshes() {
        let mesh = Mesh::open_objects(&path).unwrap();
        let world = mesh.world(&Given::default()).unwrap();
        for workload in world.workloads() {
            world.snapshot(workload);
        }
        assert_eq!(world.refusals(), Vec::<String>::new(), "{}", path.display());
    }
}

/// `UPDATE_GOLDEN=1` writes what is told now.
#[test]
fn the_shop_explains_itself() {
    let mesh = Mesh::open_objects(&root().join("examples/shop")).unwrap();
    let cases = [
        ("split", "east/shop/frontend", "GET http://reviews.shop:9080/", Given::default()),
        ("denied", "west/shop/crawler", "GET http://catalog:9080/", Given::default()),
        ("unresolved", "east/shop/frontend", "GET http://vault.shop:9080/", Given::default()),
        (
            "failover",
            "east/shop/frontend",
            "GET http://catalog:9080/",
            Given { down: vec!["east/shop/catalog".into()], ..Given::default() },
        ),
        ("tcp", "north/shop/frontend", "tcp://ledger.shop:5432", Given::default()),
    ];
    for (name, from, request, given) in cases {
        let world = mesh.world(&given).unwrap();
        let call = Call {
            why: name.into(),
            from: from.into(),
            request: request.into(),
            at: None,
            headers: Default::default(),
            body: None,
            client: None,
            given,
            times: None,
            tolerance: None,
            expect: Default::default(),
        };
        let told = serde_json::to_string_pretty(&explain(&mesh, &world, from, &call).unwrap()).unwrap() + "\n";
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(format!("explain-{name}.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(told == wanted, "{} differs; see `cargo xtask golden`\n{told}", golden.display());
    }
}
