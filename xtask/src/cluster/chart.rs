//! The Helm chart, by Helm itself: it passes its lint, renders what `fairlead install` applies, and installs into a real cluster.
//!
//! Invariant: the cluster's list of objects is at the end what it was at the beginning, and that is one of the facts.

use super::bed::Bed;
use super::command::output;
use super::enter;
use super::install::{as_before, objects, succeeded};
use crate::tally::Tally;
use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

const CHART: &str = "charts/fairlead";
/// Values that are rendered both ways, beside the cluster's name.
const SETS: &[&[(&str, &str)]] = &[
    &[],
    &[
        ("network", "lan"),
        ("expose", "nodeport"),
        ("control.replicas", "3"),
        ("mesh.trust", "shared"),
        ("mesh.profile", "istio"),
    ],
    &[
        ("revision", "canary"),
        ("tags", r#"["prod", "default"]"#),
        ("gateway.enabled", "false"),
        ("cni.enabled", "true"),
        ("cni.binDir", "/usr/libexec/cni"),
    ],
    &[
        ("expose", "none"),
        ("tags", r#"["a", "b"]"#),
        ("image", "registry.example:5000/fairlead:1"),
        ("imagePullPolicy", "Always"),
        ("gateway.resources", r#"{"requests": {"cpu": 2, "memory": "1Gi"}}"#),
        ("injection.nativeSidecars", "false"),
        ("injection.image", "other/proxy:2"),
        ("mesh.admission", "open"),
        ("mesh.trustDomain", "shop.example"),
    ],
];
/// Keys of ConfigMaps that hold JSON, which is compared as JSON.
const JSON_KEYS: &[&str] = &["values.json", "settings.json"];

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let helm = bed.bin().join("helm");
    for set in SETS {
        let names: Vec<_> = set.iter().map(|(name, _)| *name).collect();
        let fact = format!("Helm renders what install applies: {}", names.join(" "));
        tally.note(fact.trim_end_matches([':', ' ']), same(&helm, bed, set)?);
    }
    let before = objects(bed, 1)?;
    let installed = on_cluster(bed, &helm, &mut tally);
    let said = enter::fairlead(bed)?.args(["uninstall", "--context", "c1", "--crds"]).output()?;
    tally.note("fairlead uninstall takes what Helm leaves", succeeded(&said));
    as_before(bed, 1, &before, &mut tally)?;
    installed?;
    Ok(tally)
}

fn on_cluster(bed: &Bed, helm: &std::path::Path, tally: &mut Tally) -> anyhow::Result<()> {
    let run = |words: &[&str]| -> anyhow::Result<std::process::Output> {
        let mut command = enter::lan(bed)?;
        Ok(command
            .arg(helm)
            .args(["--kube-context", "c1", "--kubeconfig"])
            .arg(bed.kubeconfig())
            .args(words)
            .output()?)
    };
    let said = run(&["install", "fairlead", CHART, "--set", "cluster=east", "--wait", "--timeout", "2m"])?;
    tally.note("helm install, until all of it is ready", succeeded(&said));
    let said = enter::fairlead(bed)?.args(["check", "--context", "c1"]).output()?;
    tally.note("check is content with it", succeeded(&said));
    let said = run(&["uninstall", "fairlead", "--wait", "--timeout", "1m"])?;
    tally.note("helm uninstall", succeeded(&said));
    Ok(())
}

/// Whether the chart passes the lint with these values, and gives the objects of `fairlead install --dry-run`.
fn same(helm: &std::path::Path, bed: &Bed, set: &[(&str, &str)]) -> anyhow::Result<Result<(), String>> {
    let mut ours = enter::fairlead(bed)?;
    ours.args(["install", "--dry-run", "--output", "json", "--cluster", "east"]);
    ours.args(set.iter().flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")]));
    let ours: Value = serde_json::from_str(&output(&mut ours)?).context("what --dry-run printed")?;
    let ours = by_name(ours.as_array().or(ours["items"].as_array()).cloned().unwrap_or_default());
    let mut values = vec!["--set-json".to_owned(), "cluster=\"east\"".to_owned()];
    for (name, value) in set {
        // What is no JSON is a text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(*value));
        values.extend(["--set-json".to_owned(), format!("{name}={value}")]);
    }
    let lint = Command::new(helm).args(["lint", "--quiet", CHART]).args(&values).output()?;
    if let Err(why) = succeeded(&lint) {
        return Ok(Err(why));
    }
    let mut template = Command::new(helm);
    template.args(["template", "fairlead", CHART, "--include-crds", "--kube-version", "1.35.0"]).args(&values);
    let theirs: Vec<Value> = serde_saphyr::from_multiple(&output(&mut template)?)?;
    let theirs = by_name(theirs.into_iter().filter(|object| !object.is_null()));
    let differing: Vec<_> =
        ours.keys().chain(theirs.keys()).filter(|name| ours.get(*name) != theirs.get(*name)).collect();
    if ours.is_empty() || !differing.is_empty() {
        return Ok(Err(format!("of {} objects differ {differing:?}", ours.len())));
    }
    Ok(Ok(()))
}

fn by_name(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let named = |mut object: Value| {
        for key in JSON_KEYS {
            if let Some(text) = object["data"][key].as_str() {
                object["data"][key] = serde_json::from_str(text).unwrap_or_default();
            }
        }
        (format!("{} {}", object["kind"], object["metadata"]["name"]), object)
    };
    objects.into_iter().map(named).collect()
}
