//! Plans and the effects of faults, from YAML to goldens (`UPDATE_GOLDEN=1` writes them).

#![allow(clippy::unwrap_used)] // A test: clippy knows only what is inside a test function.

use std::fmt::Write;
use std::path::Path;

use fairlead_lab::faults::{self, Fault, Faults};
use fairlead_lab::topology::{Spec, plan};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    why: String,
    spec: Spec,
    /// Each list is tried by itself.
    #[serde(default)]
    faults: Vec<Vec<Fault>>,
}

#[test]
fn goldens() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("cases");
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(cases).unwrap() {
        let directory = entry.unwrap().path();
        let case: Case =
            serde_saphyr::from_str(&std::fs::read_to_string(directory.join("case.yaml")).unwrap()).unwrap();
        let (golden, got) = (directory.join("golden.txt"), describe(&case));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden, got).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != got {
            wrong.push(format!("{}\n{got}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "not as the golden has it:\n{}", wrong.join("\n"));
}

fn describe(case: &Case) -> String {
    let mut text = format!("# {}\n", case.why);
    let plan = match plan(&case.spec) {
        Ok(plan) => plan,
        Err(e) => return format!("{text}{e}\n"),
    };
    if case.faults.is_empty() {
        write!(text, "{plan}").unwrap();
    }
    for list in &case.faults {
        let faults = list.iter().cloned().fold(Faults::default(), |faults, fault| faults.with(fault));
        let names: Vec<_> = faults.iter().map(ToString::to_string).collect();
        writeln!(text, "\n## {}", names.join(", ")).unwrap();
        match faults::tables(&plan, &faults) {
            Ok(tables) => tables.iter().for_each(|(name, table)| write!(text, "{name}: {table}").unwrap()),
            Err(unknown) => writeln!(text, "there is no {unknown}").unwrap(),
        }
        for name in plan.namespaces.keys() {
            if faults::down(&plan, &faults).iter().any(|d| d.covers(name, "echo")) {
                writeln!(text, "{name}: down").unwrap();
            }
        }
    }
    text
}
