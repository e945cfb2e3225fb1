//! Path normalisation against a table, and its properties.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::listener::{EscapedSlashes, PathRules};
use fairlead_engine::normalize::{self, Normalized};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rules: String,
    path: String,
    gets: String,
}

fn rules(name: &str) -> PathRules {
    let slashes = |escaped_slashes| PathRules { normalize: true, merge_slashes: true, escaped_slashes };
    match name {
        "none" => PathRules::default(),
        "base" => PathRules { normalize: true, ..PathRules::default() },
        "merge" => slashes(EscapedSlashes::Keep),
        "decode" => slashes(EscapedSlashes::UnescapeAndForward),
        "reject" => slashes(EscapedSlashes::Reject),
        "redirect" => slashes(EscapedSlashes::UnescapeAndRedirect),
        other => panic!("{other}"),
    }
}

#[test]
fn table() {
    for case in support::cases::<Case>("paths/normalize.yaml") {
        let got = match normalize::path(&rules(&case.rules), &case.path) {
            Normalized::Forward(path) => path.into_owned(),
            Normalized::Redirect(path) => format!("redirect {path}"),
            Normalized::Reject => "reject".to_owned(),
        };
        assert_eq!(got, case.gets, "{} {}", case.rules, case.path);
    }
}

proptest! {
    /// Of whole escapes only: a bare `%` before an escaped digit makes a new escape, in Envoy too.
    #[test]
    fn normalising_twice_changes_nothing(path in "/([a-c./\\\\0-9A-F]|%[0-9A-F]{2}){0,16}(\\?[a-z/.]{0,8})?") {
        for name in ["base", "merge"] {
            let rules = rules(name);
            if let Normalized::Forward(once) = normalize::path(&rules, &path) {
                prop_assert!(!once.split('?').next().unwrap_or_default().split('/').any(|part| part == ".." || part == "."));
                let once = once.into_owned();
                prop_assert_eq!(normalize::path(&rules, &once), Normalized::Forward(once.as_str().into()));
            }
        }
    }

    #[test]
    fn nothing_panics(path in "\\PC{0,64}") {
        for name in ["none", "base", "merge", "decode", "reject", "redirect"] {
            let _ = normalize::path(&rules(name), &path);
        }
    }
}
