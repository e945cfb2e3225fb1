//! The lab at work: real namespaces, links, rules and processes, as whoever runs the test.
//!
//! The program is its own test runner, its own lab, and the programs that run in it: the first argument says which. No scenario
//! waits for time to pass; the whole is ended by an alarm if it hangs.

#![allow(clippy::unwrap_used)] // A test: clippy knows only those of the standard harness.

mod endings;
mod mesh;
mod programs;

use std::process::ExitCode;

use fairlead_lab::{EnterError, Role};

const SCENARIOS: [(&str, fn()); 6] = [
    ("this_machine_can_run_a_lab", || fairlead_lab::probe::probe().unwrap()),
    ("clusters_with_equal_addresses_capture_faults_and_processes", || inside("mesh", 0)),
    ("the_largest_lab_stands", || inside("largest", 0)),
    ("the_exit_code_and_signals_pass_through", endings::codes_and_signals),
    ("a_killed_lab_leaves_nothing_behind", endings::killed),
    ("a_refusal_names_the_setting", || inside("refusal", 0)),
];

fn main() -> ExitCode {
    let role = match fairlead_lab::role() {
        Ok(role) => role,
        Err(e) => panic!("{e}"),
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Role::Inside(lab) = role {
        return match words.as_slice() {
            ["mesh"] => run(mesh::scenario()),
            ["largest"] => run(mesh::largest()),
            ["refusal"] => endings::refused(),
            ["ending", how] => run(endings::inside(how, lab)),
            other => panic!("no such scenario: {other:?}"),
        };
    }
    match words.as_slice() {
        ["program", rest @ ..] => programs::main(rest),
        ["enter", rest @ ..] => {
            let arguments = rest.iter().map(|a| (*a).into()).collect();
            match fairlead_lab::enter_with(arguments, Vec::new()) {
                Ok(code) => ExitCode::from(code as u8),
                Err(e) => {
                    eprintln!("{e}");
                    ExitCode::from(if matches!(e, EnterError::Refused(_)) { 2 } else { 1 })
                }
            }
        }
        _ => run_all(&words),
    }
}

fn run_all(words: &[&str]) -> ExitCode {
    let list = words.contains(&"--list");
    let filters: Vec<&&str> = words.iter().filter(|w| !w.starts_with('-')).collect();
    let chosen: Vec<_> =
        SCENARIOS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(**f))).collect();
    if list {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    nix::unistd::alarm::set(120);
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, scenario) in &chosen {
        let passed = std::panic::catch_unwind(scenario).is_ok();
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    let (word, passed, out) =
        (if failed == 0 { "ok" } else { "FAILED" }, chosen.len() - failed, SCENARIOS.len() - chosen.len());
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out\n");
    ExitCode::from(u8::from(failed > 0))
}

/// Runs a scenario in a lab.
fn inside(scenario: &str, code: i32) {
    assert_eq!(fairlead_lab::enter_with(vec![scenario.into()], Vec::new()).unwrap(), code);
}

fn run(scenario: impl Future<Output = ()>) -> ExitCode {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(scenario);
    ExitCode::SUCCESS
}
