//! Folders of YAML: what is written, and what must be in the resolved mesh or its diagnostics.
//!
//! A case: `why`, `mesh` (Mesh.spec), `clusters` (objects as text by cluster), `given` (drained, revoked, stale,
//! unreachable clusters; unhealthy workloads), `expect` by viewer, and `istio` with what differs under profile `istio`
//! (the same input is then resolved twice).

// A test that cannot read its input fails by panicking.
#![allow(clippy::unwrap_used)]

mod harness;
#[path = "harness/subset.rs"]
mod subset;

use fairlead_model::endpoint::{Health, WorkloadRef};
use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::MemberState;
use harness::{World, Written, digest};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    why: String,
    #[serde(default)]
    mesh: String,
    clusters: BTreeMap<String, String>,
    #[serde(default)]
    given: Given,
    /// Under the profile that `mesh` names (default `fairlead`).
    #[serde(default)]
    expect: BTreeMap<String, Value>,
    /// Under profile `istio`.
    #[serde(default)]
    istio: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    drained: Vec<String>,
    revoked: Vec<String>,
    stale: Vec<String>,
    unreachable: Vec<String>,
    unhealthy: Vec<String>,
    healthy: Vec<String>,
    /// Pods are of a Kubernetes cluster.
    kubelets: bool,
    /// Addresses of load balancers' names.
    looked_up: BTreeMap<String, Vec<std::net::IpAddr>>,
}

#[test]
fn every_case_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 40, "the cases are missing");
    let only = std::env::var("CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for file in files.iter().filter(|file| file.display().to_string().contains(&only)) {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let text = std::fs::read_to_string(file).unwrap();
        let case: Case = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(case.why.len() > 20, "{name}: say why");
        run(&name, &case, &case.mesh, &case.expect, &mut failures);
        if !case.istio.is_empty() {
            run(
                &format!("{name} (istio)"),
                &case,
                &format!("profile: istio\n{}", case.mesh),
                &case.istio,
                &mut failures,
            );
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

fn run(name: &str, case: &Case, mesh: &str, expect: &BTreeMap<String, Value>, failures: &mut Vec<String>) {
    let written = Written::new(mesh, &case.clusters);
    let world = world(&case.given);
    for (viewer, expected) in expect {
        let (mesh, mut diagnostics) = written.view(&ClusterId::from(viewer.as_str()), &world, None);
        diagnostics.extend(written.diagnostics.iter().filter(|one| one.object.cluster.as_str() == viewer).cloned());
        let got = digest::digest(&mesh, &diagnostics);
        for difference in subset::differences(expected, &got) {
            failures.push(format!("{name}: {viewer}{difference}"));
        }
    }
}

fn world(given: &Given) -> World {
    let mut world = World::default();
    for cluster in &given.drained {
        world.states.insert(ClusterId::from(cluster.as_str()), MemberState::Draining);
    }
    for cluster in &given.revoked {
        world.states.insert(ClusterId::from(cluster.as_str()), MemberState::Revoked);
    }
    for cluster in &given.stale {
        world.peers.entry(ClusterId::from(cluster.as_str())).or_default().stale = true;
    }
    for cluster in &given.unreachable {
        world.peers.entry(ClusterId::from(cluster.as_str())).or_default().unreachable = true;
    }
    for (text, health) in given
        .unhealthy
        .iter()
        .map(|text| (text, Health::Unhealthy))
        .chain(given.healthy.iter().map(|text| (text, Health::Healthy)))
    {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let workload = WorkloadRef { cluster: next().into(), namespace: next().into(), name: next().into() };
        world.health.insert(workload, health);
    }
    world.kubelets = given.kubelets;
    world.looked_up.clone_from(&given.looked_up);
    world
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "yaml") {
            files.push(path);
        }
    }
}
