//! Labels and selectors of labels.

use std::collections::BTreeMap;

use super::check::Check;
use crate::field::FieldPath;
use crate::istio::{LabelSelector, PolicySelector};

/// Longest name and value of a label, Kubernetes.
const LABEL_CHARS: usize = 63;

/// `selector.matchLabels` of a policy.
pub(super) fn policy_selector(selector: Option<&PolicySelector>, at: &FieldPath, check: &mut Check<'_>) {
    let Some(selector) = selector else { return };
    if selector.match_labels.is_empty() {
        check.warning(at, "the selector has no labels: it selects the whole namespace");
    }
    selector_labels(&selector.match_labels, &at.key("matchLabels"), check);
}

/// `workloadSelector.labels` of a networking object.
pub(super) fn workload_selector(selector: Option<&LabelSelector>, at: &FieldPath, check: &mut Check<'_>) {
    let Some(selector) = selector else { return };
    if selector.labels.is_empty() {
        check.warning(at, "the selector has no labels: it selects the whole namespace");
    }
    selector_labels(&selector.labels, &at.key("labels"), check);
}

/// Labels that select: no wildcards, no empty keys.
pub(super) fn selector_labels(labels: &BTreeMap<String, String>, at: &FieldPath, check: &mut Check<'_>) {
    for (key, value) in labels {
        let at = at.key(key);
        if key.is_empty() {
            check.error(&at, format!("empty key in selector `={value}`"));
        }
        if key.contains('*') || value.contains('*') {
            check.error(&at, format!("wildcards are not supported in selector `{key}={value}`"));
        }
        if value.len() > LABEL_CHARS || key.len() > 253 + 1 + LABEL_CHARS {
            check.error(&at, "the label is too long");
        }
    }
}

/// Labels given to something: Kubernetes' syntax.
pub(super) fn labels(labels: &BTreeMap<String, String>, at: &FieldPath, check: &mut Check<'_>) {
    for (key, value) in labels {
        let at = at.key(key);
        let name = match key.split_once('/') {
            Some((prefix, name)) if super::names::fqdn(prefix).is_none() => name,
            Some(_) => "",
            None => key,
        };
        if !is_label_word(name) || name.is_empty() {
            check.error(&at, format!("`{key}` is not a valid label key"));
        }
        if !is_label_word(value) {
            check.error(&at, format!("`{value}` is not a valid label value"));
        }
    }
}

/// Letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; or nothing.
fn is_label_word(word: &str) -> bool {
    let inner = word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let edges = [word.bytes().next(), word.bytes().last()];
    word.len() <= LABEL_CHARS && inner && edges.iter().flatten().all(u8::is_ascii_alphanumeric)
}
