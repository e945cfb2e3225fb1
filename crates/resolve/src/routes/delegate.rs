//! Delegation: a VirtualService without hosts continues a rule of another.
//!
//! Source: Istio, one level only: matches of root and delegate are combined pair by pair; a delegate's match that is no
//! subset of any root match drops the delegate's rule; the root gives only what the delegate leaves unset. Never changes
//! the order of rules. Invariant: a rule made here takes no request that its root rule would not have taken.

use super::http::http_rule;
use super::route_set::Names;
use crate::settings::export_defaults::visibility;
use fairlead_model::matching::{StringMatch, Visibility};
use fairlead_model::origin::Origin;
use fairlead_model::route::{HttpAction, HttpMatch, HttpRule};
use fairlead_resources::istio as written;
use std::collections::BTreeMap;

/// VirtualServices that others may delegate to, by namespace and name.
#[derive(Default)]
pub(crate) struct Delegates {
    by_name: BTreeMap<(String, String), Delegate>,
}

struct Delegate {
    visibility: Visibility,
    rules: Vec<HttpRule>,
}

/// Why a delegation leads nowhere, at the place it is written.
#[derive(Debug)]
pub(crate) struct Undelivered {
    pub origin: Origin,
    pub message: String,
    /// The delegate does not exist (for this namespace); else one of its rules fits no match of the root.
    pub missing: bool,
}

impl Delegates {
    /// Takes `service` in if it is a delegate; false: it has hosts.
    pub fn add(
        &mut self,
        service: &written::VirtualService,
        domain: &str,
        default_export: &[String],
        origin: &dyn Fn(&str) -> Origin,
    ) -> bool {
        if !service.spec.hosts.is_empty() {
            return false;
        }
        let namespace = service.metadata.namespace.as_str();
        let names = Names { namespace, domain };
        let rules =
            service.spec.http.iter().enumerate().map(|(at, rule)| http_rule(rule, &names, at, origin)).collect();
        let visibility = visibility(&service.spec.export_to, default_export, namespace);
        self.by_name.insert((namespace.to_owned(), service.metadata.name.clone()), Delegate { visibility, rules });
        true
    }

    /// The rules that take the place of `root`, whose action is not looked at unless it was refused.
    pub(super) fn continued(
        &self,
        root: &HttpRule,
        to: &written::Delegate,
        namespace: &str,
        problems: &mut Vec<Undelivered>,
    ) -> Vec<HttpRule> {
        let of = if to.namespace.is_empty() { namespace } else { to.namespace.as_str() };
        let found = self.by_name.get(&(of.to_owned(), to.name.clone()));
        let Some(delegate) = found.filter(|delegate| delegate.visibility.allows(namespace)) else {
            let why = if found.is_some() { "is not exported to" } else { "does not exist for" };
            let message = format!("delegate VirtualService {of}/{} {why} namespace {namespace}", to.name);
            problems.push(Undelivered { origin: root.origin.clone(), message, missing: true });
            return Vec::new();
        };
        let mut rules = Vec::new();
        for rule in &delegate.rules {
            match matches(&root.matches, &rule.matches) {
                Some(matches) => rules.push(merged(root, rule, matches)),
                None => {
                    let message = format!(
                        "no match of {} lets the delegate's matches through; this rule is left out",
                        root.origin
                    );
                    problems.push(Undelivered { origin: rule.origin.clone(), message, missing: false });
                }
            }
        }
        rules
    }
}

fn merged(root: &HttpRule, rule: &HttpRule, matches: Vec<HttpMatch>) -> HttpRule {
    let headers = if rule.headers == Default::default() { &root.headers } else { &rule.headers };
    let forwards = matches!(rule.action, HttpAction::Route(_));
    HttpRule {
        name: joined(&root.name, &rule.name),
        origin: rule.origin.clone(),
        matches,
        action: match &root.action {
            // What could not be taken of the root holds for all that continues it.
            HttpAction::Refused { reason } => HttpAction::Refused { reason: reason.clone() },
            _ => rule.action.clone(),
        },
        timeout: rule.timeout.or(root.timeout),
        retries: rule.retries.clone().or_else(|| root.retries.clone()),
        headers: headers.clone(),
        rewrite: rule.rewrite.clone().or_else(|| root.rewrite.clone()).filter(|_| forwards),
        fault: rule.fault.clone().or_else(|| root.fault.clone()),
    }
}

/// Compatible pairs; `None` if some match of the delegate is in none of the root's.
fn matches(root: &[HttpMatch], delegate: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() || delegate.is_empty() {
        return Some(if root.is_empty() { delegate.to_vec() } else { root.to_vec() });
    }
    let mut pairs = Vec::new();
    for inner in delegate {
        let before = pairs.len();
        pairs.extend(root.iter().filter(|outer| !conflict(outer, inner)).map(|outer| both(outer, inner)));
        if pairs.len() == before {
            return None;
        }
    }
    Some(pairs)
}

fn both(root: &HttpMatch, inner: &HttpMatch) -> HttpMatch {
    let over = |root: &BTreeMap<String, StringMatch>, inner: &BTreeMap<String, StringMatch>| {
        root.iter().chain(inner).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let one = |root: &Option<StringMatch>, inner: &Option<StringMatch>| inner.clone().or_else(|| root.clone());
    HttpMatch {
        name: joined(&root.name, &inner.name),
        uri: one(&root.uri, &inner.uri),
        // Equal where both have a path, else one of them goes with the path that is taken.
        ignore_uri_case: if inner.uri.is_some() { inner.ignore_uri_case } else { root.ignore_uri_case },
        scheme: one(&root.scheme, &inner.scheme),
        method: one(&root.method, &inner.method),
        authority: one(&root.authority, &inner.authority),
        headers: over(&root.headers, &inner.headers),
        without_headers: over(&root.without_headers, &inner.without_headers),
        query: over(&root.query, &inner.query),
        port: inner.port.or(root.port),
        source_labels: root
            .source_labels
            .iter()
            .chain(&inner.source_labels)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        source_namespace: inner.source_namespace.clone().or_else(|| root.source_namespace.clone()),
        gateways: if inner.gateways.is_empty() { root.gateways.clone() } else { inner.gateways.clone() },
    }
}

fn conflict(root: &HttpMatch, inner: &HttpMatch) -> bool {
    let singles = [
        (&root.uri, &inner.uri),
        (&root.scheme, &inner.scheme),
        (&root.method, &inner.method),
        (&root.authority, &inner.authority),
    ];
    let maps =
        [(&root.headers, &inner.headers), (&root.without_headers, &inner.without_headers), (&root.query, &inner.query)];
    let differ = |a: Option<&str>, b: Option<&str>| matches!((a, b), (Some(a), Some(b)) if a != b);
    singles.iter().any(|(outer, leaf)| outside(outer.as_ref(), leaf.as_ref()))
        || maps.iter().any(|(outer, leaf)| leaf.iter().any(|(key, value)| outside(outer.get(key), Some(value))))
        || root.ignore_uri_case != inner.ignore_uri_case
        || matches!((root.port, inner.port), (Some(a), Some(b)) if a != b)
        || differ(root.source_namespace.as_deref(), inner.source_namespace.as_deref())
        || inner.source_labels.iter().any(|(key, value)| root.source_labels.get(key).is_some_and(|own| own != value))
        || (!root.gateways.is_empty() && inner.gateways.iter().any(|gateway| !root.gateways.contains(gateway)))
}

/// Whether `inner` may match something that `root` does not, as far as Istio can tell: a regular expression on one side
/// forbids anything on the other.
fn outside(root: Option<&StringMatch>, inner: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix};
    let (Some(root), Some(inner)) = (root, inner) else { return false };
    match (root, inner) {
        (Exact(all), Exact(part)) => all != part,
        (Prefix(all), Exact(part) | Prefix(part)) => !part.starts_with(all.as_str()),
        _ => true,
    }
}

/// Names of root and delegate with a dash between, where both have one (Istio).
fn joined(root: &str, inner: &str) -> String {
    match (root, inner) {
        ("", name) | (name, "") => name.to_owned(),
        (root, inner) => format!("{root}-{inner}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_of_a_match() {
        let (exact, prefix) = (|t: &str| StringMatch::Exact(t.into()), |t: &str| StringMatch::Prefix(t.into()));
        let regex = |t: &str| StringMatch::Regex(t.into());
        for (root, inner, expected) in [
            (prefix("/a"), prefix("/a/b"), false),
            (prefix("/a"), exact("/ab"), false),
            (prefix("/a/b"), prefix("/a"), true),
            (exact("/a"), prefix("/a"), true),
            (exact("/a"), exact("/a"), false),
            (regex(".*"), exact("/a"), true),
            (prefix("/"), regex("/a"), true),
        ] {
            assert_eq!(outside(Some(&root), Some(&inner)), expected, "{root:?} {inner:?}");
        }
        assert!(!outside(None, Some(&regex("/a"))) && !outside(Some(&regex("/a")), None));
    }
}
