//! HTTP rules.
//!
//! Never lets a refused rule's traffic fall to a later rule: it keeps its place and answers 500.

use super::action;
use super::backends::{Target, backends, header_operations, port_number};
use super::route_set::{Names, gateway_refs};
use crate::settings::retry_policy;
use fairlead_model::matching::StringMatch;
use fairlead_model::origin::Origin;
use fairlead_model::route::{HttpAction, HttpMatch, HttpRule};
use fairlead_resources::istio as written;
use std::collections::BTreeMap;

/// Keys of `headers` that Istio ignores: they have fields of their own.
const NOT_HEADERS: [&str; 4] = ["uri", "scheme", "method", "authority"];

pub(super) fn http_rule(
    rule: &written::HttpRoute,
    names: &Names<'_>,
    index: usize,
    origin: &dyn Fn(&str) -> Origin,
) -> HttpRule {
    let path = format!("spec.http[{index}]");
    let targets = rule.route.iter().map(|target| Target {
        destination: target.destination.as_ref(),
        weight: target.weight,
        headers: target.headers.as_ref(),
    });
    let backends = backends(targets, names.namespace, names.domain, |at| origin(&format!("{path}.route[{at}]")));
    let action = if rule.refused {
        HttpAction::Refused { reason: "a field of the rule is not implemented".into() }
    } else if let Some(redirect) = &rule.redirect {
        action::redirect(redirect)
    } else if let Some(response) = &rule.direct_response {
        action::direct_response(response)
    } else if backends.is_empty() && rule.delegate.is_none() {
        HttpAction::Refused { reason: "the rule has no destination with a weight".into() }
    } else {
        HttpAction::Route(backends)
    };
    HttpRule {
        name: rule.name.clone(),
        origin: origin(&path),
        matches: rule.matches.iter().map(|one| http_match(one, names)).collect(),
        action,
        timeout: rule.timeout.map(|span| span.duration()),
        retries: rule.retries.as_ref().map(retry_policy),
        headers: rule.headers.as_ref().map(header_operations).unwrap_or_default(),
        rewrite: rule.rewrite.as_ref().map(action::rewrite),
        fault: rule.fault.as_ref().and_then(action::fault),
    }
}

fn http_match(one: &written::HttpMatch, names: &Names<'_>) -> HttpMatch {
    HttpMatch {
        name: one.name.clone(),
        uri: one.uri.as_ref().map(string_match),
        ignore_uri_case: one.ignore_uri_case,
        scheme: one.scheme.as_ref().map(string_match),
        method: one.method.as_ref().map(string_match),
        authority: one.authority.as_ref().map(string_match),
        headers: headers(&one.headers),
        without_headers: headers(&one.without_headers),
        query: one.query_params.iter().map(|(key, value)| (key.clone(), string_match(value))).collect(),
        port: port_number(one.port),
        source_labels: one.source_labels.clone(),
        source_namespace: Some(one.source_namespace.clone()).filter(|namespace| !namespace.is_empty()),
        gateways: gateway_refs(&one.gateways, names.namespace),
    }
}

fn headers(written: &BTreeMap<String, written::StringMatch>) -> BTreeMap<String, StringMatch> {
    let kept = written.iter().filter(|(key, _)| !NOT_HEADERS.contains(&key.as_str()));
    kept.map(|(key, value)| (key.to_ascii_lowercase(), string_match(value))).collect()
}

/// The regex `*`, which is no valid regex, is Istio's older way to ask for presence.
fn string_match(written: &written::StringMatch) -> StringMatch {
    match written {
        written::StringMatch::Exact(text) => StringMatch::Exact(text.clone()),
        written::StringMatch::Prefix(text) => StringMatch::Prefix(text.clone()),
        written::StringMatch::Regex(text) if text == "*" => StringMatch::Present,
        written::StringMatch::Regex(text) => StringMatch::Regex(text.clone()),
        written::StringMatch::Presence => StringMatch::Present,
    }
}
