//! `envoy.config.route.v3.QueryParameterMatcher`.

use super::StringMatch;
use crate::error::{DecodeError, Decoded};
use fairlead_proto::envoy::route::{QueryParameterMatcher, query_parameter_matcher::QueryParameterMatchSpecifier};

/// One condition on a query parameter; of a repeated parameter the first value counts. Values are compared as they are
/// written, without percent-decoding (Envoy's `parseQueryString` for routing).
#[derive(Clone, Debug)]
pub struct QueryMatch {
    name: Box<str>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present(bool),
    Text(StringMatch),
}

impl QueryMatch {
    pub(crate) fn decode(matcher: &QueryParameterMatcher) -> Decoded<Self> {
        if matcher.name.is_empty() {
            return Err(DecodeError::new("name", "is required"));
        }
        let test = match &matcher.query_parameter_match_specifier {
            None => Test::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(wanted)) => Test::Present(*wanted),
            Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
                Test::Text(StringMatch::decode(text).map_err(|e| e.inside("string_match"))?)
            }
        };
        Ok(Self { name: matcher.name.as_str().into(), test })
    }

    /// Whether the query string (without `?`) satisfies the condition.
    pub fn is_match(&self, query: Option<&str>) -> bool {
        let mut values = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == &*self.name).then_some(value)
        });
        match (&self.test, values.next()) {
            (Test::Present(wanted), found) => found.is_some() == *wanted,
            (Test::Text(text), Some(value)) => text.is_match(value.as_bytes()),
            (Test::Text(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_counts_and_empty_is_a_value() {
        let exact = |text: &str| QueryMatch { name: "k".into(), test: Test::Text(StringMatch::exact(text)) };
        assert!(exact("1").is_match(Some("a=2&k=1&k=2")));
        assert!(!exact("2").is_match(Some("k=1&k=2")));
        assert!(exact("").is_match(Some("k")));
        assert!(!exact("").is_match(Some("kk=")));
        assert!(!exact("").is_match(None));
    }
}
