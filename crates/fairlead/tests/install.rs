//! `fairlead install` and its like as far as they go without a cluster: what is printed, and what is said when there is none.
//!
//! What they do to real clusters is the suite `kubernetes`. Invariant: nothing here needs one.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use serde_json::Value;
use std::process::{Command, Output};

fn fairlead(words: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: \"\"\n\
        clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: a, user: {}}]\n\
        contexts: [{name: east, context: {cluster: a, user: a}}, {name: west, context: {cluster: a, user: a}}]\n";
    std::fs::write(&config, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_fairlead")).args(words).env("KUBECONFIG", &config).output().unwrap()
}

fn refusal(words: &[&str]) -> String {
    let said = fairlead(words);
    assert_eq!(said.status.code(), Some(2), "{words:?}: {said:?}");
    String::from_utf8(said.stderr).unwrap()
}

#[test]
fn a_dry_run_prints_definitions_and_all_objects() {
    let values =
        fairlead_install::Values::default().set(&["cluster=east".into(), "control.replicas=3".into()]).unwrap();
    let rendered = fairlead_install::render(&values).unwrap();
    let expected: Vec<Value> = fairlead_install::crds::all().into_iter().chain(rendered.all().cloned()).collect();
    let words = ["install", "--cluster", "east", "--set", "control.replicas=3", "--dry-run"];
    let said = fairlead(&words);
    assert!(said.status.success(), "{said:?}");
    let printed: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8(said.stdout).unwrap()).unwrap();
    assert_eq!(printed, expected);
    let said = fairlead(&[&words[..], &["-o", "json"]].concat());
    let list: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(list["items"], Value::Array(expected));
}

#[test]
fn values_of_a_file_are_under_flags_and_those_under_set() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "cluster: a\nnetwork: a\nimage: a\ngateway: {replicas: 2}\n").unwrap();
    let name = file.path().to_str().unwrap();
    let said = fairlead(&[
        "install",
        "--dry-run",
        "-f",
        name,
        "--cluster",
        "b",
        "--network",
        "b",
        "--set",
        "network=c",
        "-o",
        "json",
    ]);
    let list: Value = serde_json::from_slice(&said.stdout).unwrap();
    let stored = list["items"].as_array().unwrap().iter().find(|o| o["metadata"]["name"] == "fairlead-values").unwrap();
    let values: Value = serde_json::from_str(stored["data"]["values.json"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&values["cluster"], &values["network"], &values["image"], &values["gateway"]["replicas"]),
        (&"b".into(), &"c".into(), &"a".into(), &2.into())
    );
}

#[test]
fn refusals_name_what_is_wrong_and_a_remedy() {
    let dry = |more: &[&str]| refusal(&[&["install", "--dry-run"], more].concat());
    assert!(dry(&[]).contains("cluster: is empty; name this cluster: --cluster east"));
    assert!(dry(&["--cluster", "East"]).contains("`East` is no DNS label"));
    assert!(dry(&["--cluster", "a", "--set", "gateway.replica=2"]).contains("gateway.replica: unknown field"));
    assert!(
        dry(&["--cluster", "a", "--set", "injection.cni=true"]).contains("injection.cni: follows from other values")
    );
    assert!(dry(&["--cluster", "a", "-f", "/no/such/file"]).contains("cannot read /no/such/file"));
    let text = refusal(&["uninstall"]);
    assert!(text.contains("no current context; choose with --context: east, west"), "{text}");
    let text = refusal(&["check", "--context", "north"]);
    assert!(text.contains("no context north; it has east, west"), "{text}");
    let text = refusal(&["get", "clusters", "--context", "east", "--socket", "x"]);
    assert!(text.contains("give one"), "{text}");
    let text = refusal(&["get", "clusters", "--kubeconfig", "/no/such/file"]);
    assert!(text.contains("/no/such/file"), "{text}");
}

#[test]
fn an_api_server_that_is_away_is_a_finding_with_a_remedy() {
    let said = fairlead(&["check", "--context", "east", "-o", "json"]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let rows: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((&rows[0]["check"], &rows[0]["state"]), (&"api".into(), &"failed".into()));
    assert!(!rows[0]["remedy"].as_str().unwrap().is_empty());
    let text = refusal(&["install", "--context", "east", "--cluster", "east"]);
    assert!(text.contains("cluster east: cannot read ConfigMap fairlead-values"), "{text}");
}
