//! The Helm chart: its files are as the crate writes them, and Helm renders what `fairlead install` applies.
//!
//! `UPDATE_GOLDEN=1` writes the files. What Helm itself makes of them is asked with the feature `helm`, which needs the program: `$HELM`,
//! or `helm` in $PATH. `go install helm.sh/helm/v3/cmd/helm@v3.22.0` makes one.

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

/// Helm itself.
#[cfg(feature = "helm")]
mod helm {
    use super::*;
    use fairlead_install::{VALUES_KEY, render};
    use std::collections::BTreeMap;
    use std::process::Command;

    const SETS: &[&[&str]] = &[
        &[],
        &["network=lan", "expose=nodeport", "control.replicas=3", "mesh.trust=shared", "mesh.profile=istio"],
        &[
            "revision=canary",
            "tags=[prod, default]",
            "gateway.enabled=false",
            "cni.enabled=true",
            "cni.binDir=/usr/libexec/cni",
        ],
        &[
            "expose=none",
            "tags=[a, b]",
            "image=registry.example:5000/fairlead:1",
            "imagePullPolicy=Always",
            "gateway.resources={requests: {cpu: 2, memory: 1Gi}}",
            "injection.nativeSidecars=false",
            "injection.image=other/proxy:2",
            "mesh.admission=open",
            "mesh.trustDomain=shop.example",
        ],
    ];

    fn by_name(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
        objects
            .into_iter()
            .map(|mut o| {
                // Text that holds JSON is compared as JSON: the order of keys is the writer's.
                for key in [VALUES_KEY, "settings.json"] {
                    if let Some(text) = o["data"][key].as_str() {
                        o["data"][key] = serde_json::from_str(text).unwrap();
                    }
                }
                (format!("{} {}", o["kind"], o["metadata"]["name"]), o)
            })
            .collect()
    }

    #[test]
    fn helm_renders_what_install_applies() {
        let helm = std::env::var_os("HELM").unwrap_or_else(|| "helm".into());
        let run = |args: &[&str]| {
            let out = Command::new(&helm).args(args).current_dir(folder()).output().unwrap();
            assert!(out.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        for pairs in SETS {
            let pairs: Vec<String> = ["cluster=east"].iter().chain(*pairs).map(|p| (*p).to_owned()).collect();
            let values = Values::default().set(&pairs).unwrap();
            let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
            std::fs::write(file.path(), values.tree().to_string()).unwrap();
            let name = file.path().to_str().unwrap();
            run(&["lint", "--quiet", "--values", name, "."]);
            let text = run(&["template", "fairlead", ".", "--kube-version", "1.35.0", "--values", name]);
            let theirs: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let theirs = by_name(theirs.into_iter().filter(|o| !o.is_null()));
            let ours = by_name(render(&values).unwrap().all().cloned());
            assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "{pairs:?}");
            for (key, object) in &ours {
                assert_eq!(&theirs[key], object, "{pairs:?}: {key}");
            }
        }
    }
}
