//! The control plane's rights: each rule has code that needs it, and each watched kind a rule.
//!
//! Sources are read as text, since the crate that renders roles must not depend on those that use them.

use fairlead_install::rbac::{Names, RULES, Reach};
use std::collections::BTreeSet;
use std::path::Path;

fn source(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_rule_is_needed_by_code() {
    for rule in RULES {
        let (file, word) = rule.reader;
        assert!(source(file).contains(word), "{file} has no `{word}`: who needs {:?}?", rule.resources);
    }
}

/// What code writes with, verb by verb; server-side apply creates what is not there.
const WRITES: &[(&str, &[&str])] = &[
    ("create", &[".create(", "Patch::Apply", "Recorder"]),
    ("update", &[".replace("]),
    ("patch", &[".patch(", ".patch_status(", "Recorder"]),
    ("delete", &[".delete("]),
];

#[test]
fn every_verb_that_writes_is_one_that_the_code_uses() {
    for rule in RULES {
        // What tests of the file do is no need of the program's.
        let text = source(rule.reader.0);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for verb in rule.verbs.iter().filter(|verb| !["get", "list", "watch"].contains(verb)) {
            let (_, words) = WRITES.iter().find(|(known, _)| known == verb).unwrap_or_else(|| panic!("{verb}"));
            assert!(words.iter().any(|word| code.contains(word)), "{} never does {verb}: {rule:?}", rule.reader.0);
        }
    }
}

#[test]
fn proxies_have_no_rights_and_no_token_for_the_api_server() {
    let values = fairlead_install::Values {
        cluster: "east".into(),
        cni: fairlead_install::CniValues { enabled: true, ..Default::default() },
        ..Default::default()
    };
    let all: Vec<serde_json::Value> = fairlead_install::render(&values).unwrap().all().into_iter().cloned().collect();
    let subjects: BTreeSet<&str> = all
        .iter()
        .filter_map(|object| object["subjects"].as_array())
        .flatten()
        .filter_map(|subject| subject["name"].as_str())
        .collect();
    assert_eq!(subjects, BTreeSet::from(["fairlead-cni", "fairlead-control"]));
    let gateway: Vec<_> = all.iter().filter(|o| o["metadata"]["name"] == "fairlead-eastwest").collect();
    let account = gateway.iter().find(|o| o["kind"] == "ServiceAccount").unwrap();
    assert_eq!(account["automountServiceAccountToken"], false);
    let deployment = gateway.iter().find(|o| o["kind"] == "Deployment").unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["automountServiceAccountToken"], false);
}

/// The table of watched kinds is the list of what may be listed and watched.
#[test]
fn what_is_watched_may_be_read_and_nothing_else() {
    let text = source("crates/sources/src/kubernetes/kinds.rs");
    let table = text.split("WATCHED: &[Watched] = &[").nth(1).unwrap().split("];").next().unwrap();
    let mut watched = BTreeSet::new();
    for entry in table.split("Kind::").skip(1) {
        watched.insert(entry.split('"').nth(1).unwrap().to_owned());
    }
    assert!(watched.len() > 20, "{watched:?}");
    let sources = |r: &&fairlead_install::rbac::Rule| r.reader.0.contains("/sources/");
    let granted: BTreeSet<String> =
        RULES.iter().filter(sources).flat_map(|r| r.resources.iter().map(|x| (*x).to_owned())).collect();
    assert_eq!(watched, granted);
}

#[test]
fn nothing_is_granted_wholesale() {
    for rule in RULES {
        let words = rule.resources.iter().chain(rule.verbs).chain([&rule.group]);
        assert!(!words.into_iter().any(|w| w.contains('*')), "{rule:?}");
        let secret = rule.resources.contains(&"secrets");
        assert!(!secret || rule.reach == Reach::Own, "secrets of others: {rule:?}");
        let writes = rule.verbs.iter().any(|v| !["get", "list", "watch"].contains(v));
        // Nothing that a user wrote: what is said of it.
        let says = rule.resources == ["events"] || rule.resources.iter().all(|r| r.ends_with("/status"));
        let bounded =
            rule.reach == Reach::Own || rule.names != Names::Any || rule.resources == ["tokenreviews"] || says;
        assert!(!writes || bounded, "writes anything anywhere: {rule:?}");
    }
}
