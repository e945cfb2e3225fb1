//! The collector validators write to.
//!
//! Never decides what a finding costs beyond error (the object) and warning (nothing).

use crate::field::{FieldPath, Finding};

/// Where validators put what they find.
pub(super) struct Check<'a> {
    findings: &'a mut Vec<Finding>,
}

impl<'a> Check<'a> {
    pub(super) fn new(findings: &'a mut Vec<Finding>) -> Self {
        Self { findings }
    }

    /// The object is refused.
    pub(super) fn error(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(Finding::error(path.clone(), message));
    }

    /// The object holds.
    pub(super) fn warning(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.push(Finding::warning(path.clone(), message));
    }

    /// An error if there is a problem.
    pub(super) fn problem(&mut self, path: &FieldPath, problem: Option<String>) {
        if let Some(message) = problem {
            self.error(path, message);
        }
    }

    fn push(&mut self, finding: Finding) {
        if self.findings.len() < crate::limits::FINDINGS_KEPT {
            self.findings.push(finding);
        }
    }
}
