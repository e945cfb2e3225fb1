//! `DestinationRule`.

use std::collections::HashSet;

use super::check::Check;
use super::{export_to, labels, names, traffic_policy};
use crate::field::FieldPath;
use crate::istio::DestinationRuleSpec;
use crate::meta::Meta;

/// Checks a DestinationRule.
pub(super) fn check(spec: &DestinationRuleSpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    check.problem(&at.key("host"), names::wildcard(&spec.host));
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy::check(policy, &at.key("trafficPolicy"), check);
    }
    let mut seen = HashSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let at = at.key("subsets").index(index);
        if subset.name.is_empty() {
            check.error(&at.key("name"), "the subset's name cannot be empty");
        } else if !names::is_dns_label(&subset.name.to_ascii_lowercase().replace(['_', '.'], "-")) {
            check.error(&at.key("name"), format!("`{}` is not a valid subset name", subset.name));
        }
        if !seen.insert(subset.name.as_str()) {
            check.error(&at.key("name"), format!("duplicate subset name `{}`", subset.name));
        }
        labels::labels(&subset.labels, &at.key("labels"), check);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy::check(policy, &at.key("trafficPolicy"), check);
        }
    }
    labels::policy_selector(spec.workload_selector.as_ref(), &at.key("workloadSelector"), check);
    export_to::check(&spec.export_to, &meta.namespace, false, &at.key("exportTo"), check);
    if spec.workload_selector.is_some() {
        let at = at.key("exportTo");
        match spec.export_to.as_slice() {
            [] => {}
            [only] if only == "." || *only == meta.namespace => {}
            [_] => check.error(&at, "with a workloadSelector, exportTo is the own namespace only"),
            _ => check.error(&at, "with a workloadSelector, exportTo has at most one entry"),
        }
    }
}
