//! What a run counted, and what failed in it.
//!
//! Invariant: nothing is counted as failed without a line that says what, so that the end of a run names everything a reader has to look for.

use std::ops::AddAssign;

/// Tests and facts of a suite.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    pub passed: usize,
    pub skipped: usize,
    /// A line for everything that failed.
    pub failures: Vec<String>,
}

impl Tally {
    pub fn passed(passed: usize) -> Self {
        Self { passed, ..Self::default() }
    }

    /// One failure, which is printed.
    pub fn failed(what: impl Into<String>) -> Self {
        let mut tally = Self::default();
        tally.fail(what);
        tally
    }

    /// Counts a failure, and prints it where it happened.
    pub fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("FAIL {what}");
        self.failures.push(what);
    }

    /// Counts a fact, and prints it with what speaks against it.
    pub fn note<T, E: std::fmt::Display>(&mut self, fact: &str, result: Result<T, E>) {
        match result {
            Ok(_) => {
                self.passed += 1;
                println!("ok   {fact}");
            }
            Err(why) => self.fail(format!("{fact}: {why:#}")),
        }
    }

    /// Counts what `cargo test` printed; of one that ended badly and names no test, the end itself.
    pub fn of_cargo_test(text: &str, succeeded: bool) -> Self {
        let mut tally = Self::default();
        let mut failed = 0;
        for line in text.lines() {
            let line = line.trim();
            if let Some(result) = line.strip_prefix("test result:") {
                tally.passed += count(result, "passed");
                tally.skipped += count(result, "ignored");
                failed += count(result, "failed");
            } else if let Some(name) = failed_test(line) {
                tally.failures.push(name.to_owned());
            }
        }
        // A test that could not do what it is for says so, and passes.
        let idle = text.lines().filter(|line| line.contains("SUITE DID NOT RUN")).count();
        tally.passed = tally.passed.saturating_sub(idle);
        tally.skipped += idle;
        for _ in tally.failures.len()..failed {
            tally.fail("a test of cargo test, whose name it did not print");
        }
        if !succeeded && tally.failures.is_empty() {
            tally.fail("cargo test ended badly, and counted no failed test");
        }
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

/// As the standard harness names it, or one of our own that tells in single lines.
fn failed_test(line: &str) -> Option<&str> {
    let standard = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
    standard.or_else(|| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
}

fn count(result: &str, word: &str) -> usize {
    result
        .split(';')
        .find(|part| part.contains(word))
        .and_then(|part| part.split_whitespace().find_map(|w| w.parse().ok()))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_named() {
        let text = "running 3 tests\n..F\nfailures:\n\n---- wire::cut stdout ----\n\nthread 'wire::cut' panicked\n\nfailures:\n    wire::cut\n\n\
            test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let tally = Tally::of_cargo_test(text, false);
        assert_eq!((tally.passed, tally.skipped, tally.failures), (2, 4, vec!["wire::cut".to_owned()]));
        let text = "test nothing is ever ejected ... FAILED\n     `a call` passes with it\ntest result: FAILED. 34 passed; 1 failed\n";
        let tally = Tally::of_cargo_test(text, false);
        assert_eq!((tally.passed, tally.failures), (34, vec!["nothing is ever ejected".to_owned()]));
    }

    #[test]
    fn an_end_without_a_failed_test_is_a_failure() {
        assert_eq!(Tally::of_cargo_test("test result: ok. 2 passed; 0 failed; 0 ignored", false).failures.len(), 1);
        assert_eq!(Tally::of_cargo_test("test result: FAILED. 2 passed; 2 failed", false).failures.len(), 2);
        assert_eq!(Tally::of_cargo_test("test result: ok. 2 passed; 0 failed", true).failures.len(), 0);
    }

    #[test]
    fn a_suite_that_did_not_run_is_skipped() {
        let tally = Tally::of_cargo_test("SUITE DID NOT RUN: envoy\ntest result: ok. 3 passed; 0 failed", true);
        assert_eq!((tally.passed, tally.skipped), (2, 1));
    }
}
