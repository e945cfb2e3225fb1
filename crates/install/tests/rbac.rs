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
