//! What a check found.
//!
//! Invariant: only a good finding has no remedy.

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Good,
    /// Works, and will not for long, or not for all.
    Doubtful,
    Bad,
    /// Not tried.
    Skipped,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub check: &'static str,
    pub state: State,
    pub message: String,
    pub remedy: String,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Good => "ok",
            State::Doubtful => "warning",
            State::Bad => "failed",
            State::Skipped => "skipped",
        }
    }
}

impl Finding {
    pub fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, state: State::Good, message: message.into(), remedy: String::new() }
    }

    pub fn doubtful(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Doubtful, message: message.into(), remedy: remedy.into() }
    }

    pub fn bad(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Bad, message: message.into(), remedy: remedy.into() }
    }

    pub fn skipped(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Skipped, message: message.into(), remedy: remedy.into() }
    }
}
