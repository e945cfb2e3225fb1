//! AuthorizationPolicies: do they select anything, do their namespaces exist?
//!
//! Never reports a namespace in a mesh of several clusters: callers may come from anywhere.

use super::codes;
use crate::registry::{ClusterState, Objects};
use crate::security::trust_domain::parse;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::matching::{StringMatch, selects};
use std::collections::BTreeSet;

/// IST0127 and, in a mesh of one cluster, IST0101.
pub(super) fn selectors(state: &ClusterState, objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let root = &state.settings.root_namespace;
    let known = namespaces(state, objects);
    let alone = state.settings.clusters.len() <= 1;
    for item in objects.authorizations.iter().filter(|item| !item.object.unreadable) {
        let namespace = &item.meta.namespace;
        if let Some(selector) = item.object.spec.selector.as_ref().filter(|selector| !selector.match_labels.is_empty())
        {
            let here =
                state.workloads.values().filter(|workload| namespace == root || &workload.key.namespace == namespace);
            if !here.into_iter().any(|workload| selects(&selector.match_labels, &workload.labels)) {
                let place = if namespace == root { "the mesh".to_owned() } else { format!("namespace {namespace}") };
                diagnostics.push(
                    Diagnostic::warning(
                        codes::NO_WORKLOAD,
                        item.origin("spec.selector"),
                        format!("the selector selects no workload in {place}"),
                    )
                    .hint("correct the labels"),
                );
            }
        }
        if !alone {
            continue;
        }
        for (at, rule) in item.object.spec.rules.iter().enumerate() {
            for (from, source) in rule.from.iter().enumerate() {
                let Some(source) = &source.source else { continue };
                for (field, names) in [("namespaces", &source.namespaces), ("notNamespaces", &source.not_namespaces)] {
                    for (number, name) in names.iter().enumerate().filter(|(_, name)| !exists(name, &known)) {
                        let path = format!("spec.rules[{at}].from[{from}].source.{field}[{number}]");
                        diagnostics.push(
                            Diagnostic::error(
                                codes::NOT_FOUND,
                                item.origin(&path),
                                format!("namespace {name} does not exist"),
                            )
                            .hint("correct the name"),
                        );
                    }
                }
            }
        }
    }
}

fn exists(name: &str, known: &BTreeSet<&str>) -> bool {
    match parse(name) {
        StringMatch::Prefix(prefix) => known.iter().any(|known| known.starts_with(&prefix)),
        StringMatch::Suffix(suffix) => known.iter().any(|known| known.ends_with(&suffix)),
        StringMatch::Exact(exact) => known.contains(exact.as_str()),
        StringMatch::Present | StringMatch::Regex(_) => true,
    }
}

fn namespaces<'a>(state: &'a ClusterState, objects: &Objects<'a>) -> BTreeSet<&'a str> {
    let mut known: BTreeSet<&str> = objects.namespaces.keys().copied().collect();
    known.extend(state.workloads.keys().map(|key| key.namespace.as_str()));
    known.extend(state.services.keys().map(|key| key.namespace.as_str()));
    known
}
