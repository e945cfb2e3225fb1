//! `envoy.config.route.v3.HeaderMatcher`, with the pseudo-headers `:method`, `:path`, `:authority` and `:scheme`.
//!
//! A header that occurs several times is compared as one value joined by commas, as Envoy does.

use super::StringMatch;
use crate::error::{DecodeError, Decoded};
use crate::request::RequestHead;
use fairlead_proto::envoy::route::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use http::HeaderName;
use smallvec::SmallVec;
use std::ops::Range;

/// Which part of the request head a matcher reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderKey {
    Method,
    Path,
    Authority,
    Scheme,
    Named(HeaderName),
}

/// One condition on a header.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    key: HeaderKey,
    test: Test,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Clone, Debug)]
enum Test {
    Text(StringMatch),
    /// Half-open range of a decimal integer.
    Range(Range<i64>),
    /// `true`: must be there; `false`: must not.
    Present(bool),
}

impl HeaderKey {
    /// Reads a header name; `host` is the authority, as in Envoy.
    ///
    /// # Errors
    /// When it is no header name.
    pub fn parse(name: &str) -> Decoded<Self> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            lower => Self::Named(
                HeaderName::from_bytes(lower.as_bytes())
                    .map_err(|_| DecodeError::new("name", format!("{name:?} is no header name")))?,
            ),
        })
    }

    /// Calls `test` with the header's value, all values joined by commas; `None` when the header is missing.
    pub fn read<T>(&self, head: &RequestHead<'_>, test: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let name = match self {
            Self::Method => return test(Some(head.method.as_bytes())),
            Self::Path => return test(Some(head.path.as_bytes())),
            Self::Authority => return test(Some(head.authority.as_bytes())),
            Self::Scheme => return test(Some(head.scheme.as_bytes())),
            Self::Named(name) => name,
        };
        let mut values = head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => test(None),
            (Some(one), None) => test(Some(one.as_bytes())),
            (Some(first), Some(second)) => {
                let mut joined: SmallVec<[u8; 128]> = SmallVec::from_slice(first.as_bytes());
                for value in std::iter::once(second).chain(values) {
                    joined.push(b',');
                    joined.extend_from_slice(value.as_bytes());
                }
                test(Some(&joined))
            }
        }
    }
}

impl HeaderMatch {
    /// A condition that the header's value matches.
    pub fn text(key: HeaderKey, value: StringMatch) -> Self {
        Self { key, test: Test::Text(value), invert: false, missing_is_empty: false }
    }

    /// The method this matcher demands, if it is nothing but an exact one.
    pub fn exact_method(&self) -> Option<&[u8]> {
        match (&self.key, &self.test, self.invert) {
            (HeaderKey::Method, Test::Text(StringMatch::Exact { text, .. }), false) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn decode(matcher: &HeaderMatcher) -> Decoded<Self> {
        let key = HeaderKey::parse(&matcher.name)?;
        let test = match &matcher.header_match_specifier {
            // Envoy: no specifier means presence.
            None => Test::Present(true),
            Some(HeaderMatchSpecifier::PresentMatch(wanted)) => Test::Present(*wanted),
            Some(HeaderMatchSpecifier::StringMatch(text)) => {
                Test::Text(StringMatch::decode(text).map_err(|e| e.inside("string_match"))?)
            }
            // Of the older field Envoy takes the empty text for presence.
            Some(HeaderMatchSpecifier::ExactMatch(text)) if text.is_empty() => Test::Present(true),
            Some(HeaderMatchSpecifier::ExactMatch(text)) => Test::Text(StringMatch::exact(text)),
            Some(HeaderMatchSpecifier::PrefixMatch(text)) => Test::Text(StringMatch::prefix(text)),
            Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
                Test::Text(StringMatch::Suffix { text: text.as_bytes().into(), ignore_case: false })
            }
            Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
                Test::Text(StringMatch::Contains { text: text.as_bytes().into(), ignore_case: false })
            }
            Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => Test::Text(StringMatch::Regex(
                super::FullRegex::decode(regex).map_err(|e| e.inside("safe_regex_match"))?,
            )),
            Some(HeaderMatchSpecifier::RangeMatch(range)) => Test::Range(range.start..range.end),
        };
        let missing_is_empty = matcher.treat_missing_header_as_empty;
        Ok(Self { key, test, invert: matcher.invert_match, missing_is_empty })
    }

    /// Whether the head satisfies the condition.
    ///
    /// A missing header fails every condition, inverted ones too, unless the condition is about presence or treats a
    /// missing header as empty (Envoy's `HeaderUtility`).
    pub fn is_match(&self, head: &RequestHead<'_>) -> bool {
        self.key.read(head, |value| self.holds(value))
    }

    /// [`Self::is_match`] for a connection that has no request head: every header is missing.
    pub fn holds_without_head(&self) -> bool {
        self.holds(None)
    }

    fn holds(&self, value: Option<&[u8]>) -> bool {
        if let Test::Present(wanted) = self.test {
            return (value.is_some() == wanted) != self.invert;
        }
        let value = match value {
            Some(value) => value,
            None if self.missing_is_empty => b"",
            None => return false,
        };
        let holds = match &self.test {
            Test::Text(text) => text.is_match(value),
            Test::Range(range) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| range.contains(&number)),
            Test::Present(_) => false,
        };
        holds != self.invert
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn head(headers: &HeaderMap) -> RequestHead<'_> {
        RequestHead { method: "GET", path: "/", authority: "a", scheme: "http", headers }
    }

    fn matcher(specifier: Option<HeaderMatchSpecifier>, invert: bool, empty: bool) -> HeaderMatch {
        HeaderMatch::decode(&HeaderMatcher {
            name: "X-User".into(),
            invert_match: invert,
            treat_missing_header_as_empty: empty,
            header_match_specifier: specifier,
        })
        .unwrap()
    }

    #[test]
    fn missing_headers_as_envoy_has_them() {
        let none = HeaderMap::new();
        let exact = || Some(HeaderMatchSpecifier::ExactMatch("a".into()));
        assert!(!matcher(exact(), false, false).is_match(&head(&none)));
        assert!(!matcher(exact(), true, false).is_match(&head(&none)));
        assert!(matcher(exact(), true, true).is_match(&head(&none)));
        assert!(matcher(Some(HeaderMatchSpecifier::PresentMatch(true)), true, false).is_match(&head(&none)));
        assert!(matcher(Some(HeaderMatchSpecifier::PresentMatch(false)), false, false).is_match(&head(&none)));
    }

    #[test]
    fn repeated_headers_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("a"));
        headers.append("x-user", HeaderValue::from_static("b"));
        assert!(matcher(Some(HeaderMatchSpecifier::ExactMatch("a,b".into())), false, false).is_match(&head(&headers)));
    }

    #[test]
    fn ranges_are_half_open() {
        let range = fairlead_proto::envoy::types::Int64Range { start: -2, end: 10 };
        let matcher = matcher(Some(HeaderMatchSpecifier::RangeMatch(range)), false, false);
        for (text, holds) in [("-2", true), ("9", true), ("10", false), ("x", false), ("9.5", false)] {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("x-user"), HeaderValue::from_static(text))]);
            assert_eq!(matcher.is_match(&head(&headers)), holds, "{text}");
        }
    }
}
