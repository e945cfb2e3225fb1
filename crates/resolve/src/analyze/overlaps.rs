//! Rules and matches that can never be used (IST0130, IST0131).
//!
//! Never reports what a single other rule does not cover. Rule (Istio): a second rule without matches is unreachable; a
//! match equal to an earlier one, or an HTTP path prefix below an earlier prefix under no stricter conditions, is useless;
//! a rule all of whose matches are equal to earlier ones is unreachable.

use super::codes;
use crate::registry::ClusterState;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::matching::StringMatch;
use fairlead_model::origin::Origin;
use fairlead_model::route::HttpMatch;

pub(super) fn rules(state: &ClusterState, diagnostics: &mut Vec<Diagnostic>) {
    for set in &state.routes {
        // A name only shows in logs.
        let unnamed = |one: &HttpMatch| HttpMatch { name: String::new(), ..one.clone() };
        let matches: Vec<Vec<HttpMatch>> =
            set.http.iter().map(|rule| rule.matches.iter().map(unnamed).collect()).collect();
        let http: Vec<_> =
            set.http.iter().zip(&matches).map(|(rule, matches)| (&rule.origin, matches.as_slice())).collect();
        check(&http, covers, diagnostics);
        let tls: Vec<_> = set.tls.iter().map(|rule| (&rule.origin, rule.matches.as_slice())).collect();
        check(&tls, |_, _| false, diagnostics);
        let tcp: Vec<_> = set.tcp.iter().map(|rule| (&rule.origin, rule.matches.as_slice())).collect();
        check(&tcp, |_, _| false, diagnostics);
    }
}

fn check<M: PartialEq>(rules: &[(&Origin, &[M])], covers: fn(&M, &M) -> bool, diagnostics: &mut Vec<Diagnostic>) {
    let mut without_match = false;
    let mut seen: Vec<(usize, &M)> = Vec::new();
    for (number, (origin, matches)) in rules.iter().enumerate() {
        if matches.is_empty() {
            if without_match {
                unreachable(origin, "only the last rule can do without matches", diagnostics);
            }
            without_match = true;
            continue;
        }
        let mut equal = 0;
        for (at, one) in matches.iter().enumerate() {
            let same = seen.iter().find(|(_, earlier)| *earlier == one);
            equal += usize::from(same.is_some());
            if let Some((by, _)) = same.or_else(|| seen.iter().find(|(_, earlier)| covers(earlier, one))) {
                let mut place = (*origin).clone();
                place.path = format!("{}.match[{at}]", place.path);
                let message = format!("match {at} of rule {number} is covered by rule {by}");
                diagnostics.push(
                    Diagnostic::info(codes::USELESS_MATCH, place, message)
                        .hint("remove the match, or move it before that rule"),
                );
            }
            if same.is_none() {
                seen.push((number, one));
            }
        }
        if equal == matches.len() {
            unreachable(origin, "all its matches are in earlier rules", diagnostics);
        }
    }
}

fn unreachable(origin: &Origin, why: &str, diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.push(
        Diagnostic::warning(codes::UNREACHABLE_RULE, origin.clone(), format!("the rule is never used: {why}"))
            .hint("reorder or remove the rule"),
    );
}

/// Whether `earlier` matches everything that `later` does: its path prefix is a prefix of the other's, and each of its
/// other conditions is absent or the same.
fn covers(earlier: &HttpMatch, later: &HttpMatch) -> bool {
    let (Some(StringMatch::Prefix(short)), Some(StringMatch::Prefix(long))) = (&earlier.uri, &later.uri) else {
        return false;
    };
    let same = |one: &Option<StringMatch>, other: &Option<StringMatch>| one.is_none() || one == other;
    let within = |few: &std::collections::BTreeMap<String, StringMatch>,
                  many: &std::collections::BTreeMap<String, StringMatch>| {
        few.iter().all(|(key, value)| many.get(key) == Some(value))
    };
    long.starts_with(short.as_str())
        && (earlier.ignore_uri_case || !later.ignore_uri_case)
        && same(&earlier.scheme, &later.scheme)
        && same(&earlier.method, &later.method)
        && same(&earlier.authority, &later.authority)
        && within(&earlier.headers, &later.headers)
        && within(&earlier.without_headers, &later.without_headers)
        && within(&earlier.query, &later.query)
        && (earlier.port.is_none() || earlier.port == later.port)
        && earlier.source_labels.iter().all(|(key, value)| later.source_labels.get(key) == Some(value))
        && (earlier.source_namespace.is_none() || earlier.source_namespace == later.source_namespace)
        && (earlier.gateways.is_empty() || earlier.gateways == later.gateways)
}
