//! Rewriting of paths on their way to the upstream (`prefix_rewrite`, `regex_rewrite`).
//!
//! Invariant: the query is never looked at and stays. Source: Envoy's route action.

use super::PathMatch;
use crate::error::{DecodeError, Decoded};
use fairlead_proto::envoy::matcher::RegexMatchAndSubstitute;
use regex_automata::meta::Regex;
use std::sync::Arc;

/// What happens to a path.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// The first `matched` bytes are replaced; `None` where the match was no prefix: the whole path.
    Prefix { matched: Option<usize>, with: Box<str> },
    /// Every occurrence is replaced.
    Regex { regex: Arc<Regex>, with: Arc<[Piece]> },
}

/// A piece of a substitution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(Box<str>),
    /// Group 0 is all that matched.
    Group(usize),
}

/// As for [`crate::matching::FullRegex`].
const COMPILED_SIZE_LIMIT: usize = 1 << 20;

impl PathRewrite {
    pub(super) fn prefix(with: &str, matching: &PathMatch) -> Self {
        let matched = match matching {
            PathMatch::Prefix { text, .. } | PathMatch::SeparatedPrefix { text, .. } => Some(text.len()),
            PathMatch::Exact { .. } | PathMatch::Regex(_) | PathMatch::Template(_) => None,
        };
        Self::Prefix { matched, with: with.into() }
    }

    pub(super) fn regex(rewrite: &RegexMatchAndSubstitute) -> Decoded<Self> {
        let source = rewrite.pattern.as_ref().map(|pattern| pattern.regex.as_str()).unwrap_or_default();
        let regex = Regex::builder()
            .configure(Regex::config().nfa_size_limit(Some(COMPILED_SIZE_LIMIT)))
            .build(source)
            .map_err(|e| DecodeError::new("pattern.regex", format!("{source:?} is no RE2 expression: {e}")))?;
        let with = pieces(&rewrite.substitution);
        let with =
            with.ok_or_else(|| DecodeError::new("substitution", "a backslash must precede a digit or a backslash"))?;
        let groups = regex.captures_len();
        if with.iter().any(|piece| matches!(piece, Piece::Group(group) if *group >= groups)) {
            return Err(DecodeError::new("substitution", "names a group that the pattern does not have"));
        }
        Ok(Self::Regex { regex: Arc::new(regex), with: with.into() })
    }

    /// The new path, with the query of the old one.
    pub fn apply(&self, path: &str) -> String {
        let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
        match self {
            Self::Prefix { matched, with } => {
                let rest = matched.and_then(|matched| path.get(matched..)).unwrap_or_default();
                format!("{with}{rest}{query}")
            }
            Self::Regex { regex, with } => {
                let mut out = String::with_capacity(path.len() + query.len());
                let mut copied = 0;
                for found in regex.captures_iter(path) {
                    let Some(whole) = found.get_match() else { continue };
                    out.push_str(path.get(copied..whole.start()).unwrap_or_default());
                    for piece in with.iter() {
                        match piece {
                            Piece::Text(text) => out.push_str(text),
                            Piece::Group(group) => {
                                let span = found.get_group(*group);
                                out.push_str(span.and_then(|span| path.get(span.start..span.end)).unwrap_or_default());
                            }
                        }
                    }
                    copied = whole.end();
                }
                out.push_str(path.get(copied..).unwrap_or_default());
                out.push_str(query);
                out
            }
        }
    }
}

/// RE2's substitutions: `\0` to `\9` are groups, `\\` is a backslash. `None`: another escape.
fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            literal.push(c);
            continue;
        }
        match rest.next()? {
            '\\' => literal.push('\\'),
            digit => {
                let group = digit.to_digit(10)? as usize;
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
                }
                pieces.push(Piece::Group(group));
            }
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Some(pieces)
}
