//! Regular expressions: length, syntax, and what RE2 does not have.
//!
//! Never keeps a compiled expression. The `regex` crate accepts RE2's syntax (no look-around, no back-references), and its
//! size limit bounds memory.

use super::check::Check;
use crate::field::FieldPath;
use crate::limits;

/// An RE2 expression of bounded length and size.
pub(super) fn check(expression: &str, at: &FieldPath, check: &mut Check<'_>) {
    let chars = expression.chars().count();
    if chars > limits::REGEX_CHARS {
        check.error(at, format!("the regular expression has {chars} characters, more than {}", limits::REGEX_CHARS));
        return;
    }
    let built = regex::RegexBuilder::new(expression).size_limit(limits::REGEX_COMPILED_BYTES).build();
    if let Err(error) = built {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        check.error(at, format!("`{expression}` is not an RE2 regular expression: {last}"));
    }
}
