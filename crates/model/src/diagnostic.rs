//! Problems in input, as `analyze` prints them.
//!
//! Invariant: a diagnostic names object, field path and remedy; nobody decides anything from its text.

use crate::origin::{ObjectKey, Origin};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

/// One finding. `code` is Istio's (`IST0101`) where Istio's analysers have one for it, else ours (`FL…`, listed in
/// docs/diagnostics.md).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Arc<str>,
    pub object: ObjectKey,
    pub path: String,
    pub line: u32,
    pub file: Arc<str>,
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Diagnostic {
    pub fn new(severity: Severity, code: &str, at: Origin, message: impl Into<String>) -> Self {
        Self {
            severity,
            code: code.into(),
            object: at.object,
            path: at.path,
            line: at.line,
            file: at.file,
            message: message.into(),
            hint: String::new(),
        }
    }

    pub fn error(code: &str, at: Origin, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, at, message)
    }

    pub fn warning(code: &str, at: Origin, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, at, message)
    }

    pub fn info(code: &str, at: Origin, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, code, at, message)
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// As `analyze` prints it and a webhook refuses with it; the place in a file is for who knows of files.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        write!(f, "{severity} {}: {}: {}", self.code, self.object, self.message)?;
        if !self.path.is_empty() {
            write!(f, " {}", self.path)?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n    {}", self.hint)?;
        }
        Ok(())
    }
}
