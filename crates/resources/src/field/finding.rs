//! A problem found in one object, before the object's identity and file are joined to it.
//!
//! Never decides what becomes of the object: that is `crate::decode`'s and `crate::guard`'s. Invariant: `code` is in
//! `crate::codes`.

use super::path::FieldPath;
use crate::codes;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Accepted, and probably not what was meant.
    Warning,
    /// The field, rule or object is refused.
    Error,
}

/// What the finding costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cost {
    /// Nothing is refused.
    Nothing,
    /// The rule that holds the path is refused, the rest of the object holds.
    Rule,
    /// The object is refused.
    Object,
    /// The object cannot be read as its kind: unknown fields and wrong types. For guards this is stronger than `Object`.
    Unreadable,
}

/// One problem at one place of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A code of `crate::codes`.
    pub code: &'static str,
    /// What it costs.
    pub cost: Cost,
    /// Where.
    pub path: FieldPath,
    /// The line in the file, where it is not that of `path` (text embedded in a ConfigMap).
    pub line: Option<u32>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it; empty when the message says it.
    pub hint: String,
}

impl Finding {
    /// A validation error: the object is refused.
    pub fn error(path: FieldPath, message: impl Into<String>) -> Self {
        Self::new(Level::Error, codes::SCHEMA, Cost::Object, path, message)
    }

    /// A validation warning: the object holds.
    pub fn warning(path: FieldPath, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, codes::SCHEMA_WARNING, Cost::Nothing, path, message)
    }

    /// Any finding.
    pub fn new(level: Level, code: &'static str, cost: Cost, path: FieldPath, message: impl Into<String>) -> Self {
        Self { level, code, cost, path, line: None, message: message.into(), hint: String::new() }
    }

    /// With a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}
