//! HTTP matches that an earlier one of the same VirtualService leaves nothing to.

use super::check::Check;
use crate::field::FieldPath;
use crate::istio::{HttpMatch, HttpRoute, StringMatch};

/// Comparisons per VirtualService; a generated one with thousands of matches is not worth a quadratic search.
const COMPARISONS: usize = 100_000;

/// Warns about matches that can never be reached.
pub(super) fn check(rules: &[HttpRoute], at: &FieldPath, check: &mut Check<'_>) {
    let mut earlier: Vec<(usize, usize, &HttpMatch)> = Vec::new();
    let mut comparisons = 0;
    for (number, route) in rules.iter().enumerate() {
        for (index, block) in route.matches.iter().enumerate() {
            comparisons += earlier.len();
            if comparisons > COMPARISONS {
                return;
            }
            if let Some((rule, other, _)) = earlier.iter().find(|(_, _, first)| covers(first, block)) {
                let path = at.index(number).key("match").index(index);
                check.warning(&path, format!("never used: http[{rule}].match[{other}] matches all of it before"));
            }
            earlier.push((number, index, block));
        }
    }
}

/// Whether all that `later` matches, `first` matches too.
fn covers(first: &HttpMatch, later: &HttpMatch) -> bool {
    let uri = match (&first.uri, &later.uri) {
        (None | Some(StringMatch::Presence), _) => true,
        (Some(_), None) => false,
        (Some(StringMatch::Prefix(prefix)), Some(StringMatch::Prefix(text) | StringMatch::Exact(text))) => {
            text.starts_with(prefix.as_str())
        }
        (Some(a), Some(b)) => a == b,
    };
    uri && first.ignore_uri_case == later.ignore_uri_case
        && part(&first.scheme, &later.scheme)
        && part(&first.method, &later.method)
        && part(&first.authority, &later.authority)
        && first.headers.iter().all(|(name, value)| later.headers.get(name) == Some(value))
        && first.without_headers.iter().all(|(name, value)| later.without_headers.get(name) == Some(value))
        && first.query_params.iter().all(|(name, value)| later.query_params.get(name) == Some(value))
        && (first.port == 0 || first.port == later.port)
        && (first.source_namespace.is_empty() || first.source_namespace == later.source_namespace)
        && first.source_labels.iter().all(|(name, value)| later.source_labels.get(name) == Some(value))
        && (first.gateways.is_empty() || first.gateways == later.gateways)
}

fn part(first: &Option<StringMatch>, later: &Option<StringMatch>) -> bool {
    first.is_none() || first == later
}
