//! Regular expressions as Envoy's `safe_regex`: RE2 syntax, always matched against the whole text.
//!
//! Invariant: matching takes time linear in the text; an expression that would compile to an absurd size is refused.

use crate::error::{DecodeError, Decoded};
use fairlead_proto::envoy::matcher::RegexMatcher;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use std::sync::Arc;

/// A compiled expression that must match the whole text.
#[derive(Clone, Debug)]
pub struct FullRegex {
    source: Arc<str>,
    regex: Regex,
}

/// Bytes a compiled expression may take. RE2's default program size in Envoy is 100 instructions of warning, no limit;
/// this bounds what a stranger's policy may cost.
const COMPILED_SIZE_LIMIT: usize = 1 << 20;
/// Istio's webhook refuses longer ones too (1,024); this leaves room for namespaces and identities joined by `|`.
const SOURCE_LIMIT: usize = 16 << 10;

impl FullRegex {
    /// Compiles `source` for matching whole texts.
    ///
    /// # Errors
    /// When it is no expression in RE2's syntax, or too large.
    pub fn new(source: &str) -> Decoded<Self> {
        if source.len() > SOURCE_LIMIT {
            return Err(DecodeError::new("regex", format!("is longer than {SOURCE_LIMIT} bytes")));
        }
        let regex = Regex::builder()
            .configure(Regex::config().nfa_size_limit(Some(COMPILED_SIZE_LIMIT)))
            .syntax(syntax::Config::new().utf8(false))
            .build(&format!(r"\A(?:{source})\z"))
            .map_err(|e| DecodeError::new("regex", format!("{source:?} is no RE2 expression: {e}")))?;
        Ok(Self { source: source.into(), regex })
    }

    pub(crate) fn decode(matcher: &RegexMatcher) -> Decoded<Self> {
        Self::new(&matcher.regex)
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_match() {
        let regex = FullRegex::new("/a|/b.*").unwrap();
        assert!(regex.is_match(b"/a") && regex.is_match(b"/bcd"));
        assert!(!regex.is_match(b"/ab") && !regex.is_match(b"x/a"));
    }

    #[test]
    fn bad_and_huge_expressions_are_errors() {
        assert!(FullRegex::new("(").is_err());
        assert!(FullRegex::new("(a{1000}){1000}").is_err());
    }
}
