//! `envoy.type.matcher.v3.StringMatcher`.

use super::FullRegex;
use crate::error::{DecodeError, Decoded};
use fairlead_proto::envoy::matcher::{StringMatcher, string_matcher::MatchPattern};

/// How a text is compared. `ignore_case` folds ASCII only, as in Envoy, and does not touch regular expressions.
#[derive(Clone, Debug)]
pub enum StringMatch {
    Exact { text: Box<[u8]>, ignore_case: bool },
    Prefix { text: Box<[u8]>, ignore_case: bool },
    Suffix { text: Box<[u8]>, ignore_case: bool },
    Contains { text: Box<[u8]>, ignore_case: bool },
    Regex(FullRegex),
}

impl StringMatch {
    /// Compares case-sensitively with a fixed text.
    pub fn exact(text: &str) -> Self {
        Self::Exact { text: text.as_bytes().into(), ignore_case: false }
    }

    pub(crate) fn prefix(text: &str) -> Self {
        Self::Prefix { text: text.as_bytes().into(), ignore_case: false }
    }

    pub(crate) fn decode(matcher: &StringMatcher) -> Decoded<Self> {
        let ignore_case = matcher.ignore_case;
        let own = |text: &String| -> Box<[u8]> { text.as_bytes().into() };
        Ok(match &matcher.match_pattern {
            Some(MatchPattern::Exact(text)) => Self::Exact { text: own(text), ignore_case },
            Some(MatchPattern::Prefix(text)) => Self::Prefix { text: own(text), ignore_case },
            Some(MatchPattern::Suffix(text)) => Self::Suffix { text: own(text), ignore_case },
            Some(MatchPattern::Contains(text)) => Self::Contains { text: own(text), ignore_case },
            Some(MatchPattern::SafeRegex(regex)) => {
                Self::Regex(FullRegex::decode(regex).map_err(|e| e.inside("safe_regex"))?)
            }
            Some(MatchPattern::Custom(_)) => return Err(DecodeError::unsupported("custom")),
            None => return Err(DecodeError::new("match_pattern", "is required")),
        })
    }

    /// Whether `text` matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact { text: want, ignore_case } => same(text, want, *ignore_case),
            Self::Prefix { text: want, ignore_case } => {
                text.get(..want.len()).is_some_and(|head| same(head, want, *ignore_case))
            }
            Self::Suffix { text: want, ignore_case } => {
                text.len().checked_sub(want.len()).is_some_and(|start| same(&text[start..], want, *ignore_case))
            }
            Self::Contains { text: want, ignore_case } => {
                want.is_empty() || text.windows(want.len()).any(|part| same(part, want, *ignore_case))
            }
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn same(a: &[u8], b: &[u8], ignore_case: bool) -> bool {
    if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
}
