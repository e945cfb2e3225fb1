//! Matches of a rule in Envoy's form.
//!
//! Source: Istio's documentation and code: prefixes are plain string prefixes, regexes match as a whole, an empty match of a header or
//! parameter asks for its presence, a missing header is an empty one for `withoutHeaders`.

use crate::wire::{bool_value, quote, regex, string_matcher};
use fairlead_model::matching::StringMatch;
use fairlead_model::route::HttpMatch;
use fairlead_proto::envoy::route::{
    self, HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};

pub fn route_match(when: &HttpMatch) -> RouteMatch {
    let path = match &when.uri {
        None | Some(StringMatch::Present) => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Suffix(suffix)) => PathSpecifier::SafeRegex(regex(format!(".*{}", quote(suffix)))),
        Some(StringMatch::Regex(text)) => PathSpecifier::SafeRegex(regex(text.clone())),
    };
    let folded = when.ignore_uri_case && matches!(path, PathSpecifier::Path(_) | PathSpecifier::Prefix(_));
    let mut headers: Vec<HeaderMatcher> = when.headers.iter().map(|(name, wanted)| header(name, wanted)).collect();
    for (name, wanted) in &when.without_headers {
        let mut matcher = header(name, wanted);
        matcher.invert_match = true;
        // "Not this value" holds for a header that is not there.
        matcher.treat_missing_header_as_empty =
            !matches!(matcher.header_match_specifier, Some(HeaderMatchSpecifier::PresentMatch(_)));
        headers.push(matcher);
    }
    let pseudo = [(":method", &when.method), (":authority", &when.authority), (":scheme", &when.scheme)];
    headers.extend(pseudo.into_iter().filter_map(|(name, wanted)| Some(header(name, wanted.as_ref()?))));
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: if folded { bool_value(false) } else { None },
        headers,
        query_parameters: when.query.iter().map(|(name, wanted)| parameter(name, wanted)).collect(),
        ..Default::default()
    }
}

fn header(name: &str, wanted: &StringMatch) -> HeaderMatcher {
    let specifier = match wanted {
        StringMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
        // Istio reads this invalid regex as presence.
        StringMatch::Regex(text) if text == "*" => HeaderMatchSpecifier::PresentMatch(true),
        wanted => HeaderMatchSpecifier::StringMatch(string_matcher(wanted, false)),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

fn parameter(name: &str, wanted: &StringMatch) -> QueryParameterMatcher {
    let specifier = match wanted {
        StringMatch::Present => QueryParameterMatchSpecifier::PresentMatch(true),
        wanted => QueryParameterMatchSpecifier::StringMatch(string_matcher(wanted, false)),
    };
    route::QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}
