//! `selector`, `targetRef` and `targetRefs` of policies: at most one of them, and of allowed kinds.

use super::check::Check;
use super::labels;
use crate::field::FieldPath;
use crate::istio::{PolicySelector, TargetReference};

/// Group and kind of what a policy may be attached to.
const TARGETS: [(&str, &str); 4] = [
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// Checks them.
pub(super) fn check(
    selector: Option<&PolicySelector>,
    target: Option<&TargetReference>,
    targets: &[TargetReference],
    at: &FieldPath,
    check: &mut Check<'_>,
) {
    labels::policy_selector(selector, &at.key("selector"), check);
    let written = [selector.is_some(), target.is_some(), !targets.is_empty()];
    if written.iter().filter(|written| **written).count() > 1 {
        let field = if targets.is_empty() { "targetRef" } else { "targetRefs" };
        check.error(&at.key(field), "only one of selector and targetRefs may be set");
    }
    if let Some(target) = target {
        reference(target, &at.key("targetRef"), check);
    }
    if targets.len() > 16 {
        check.error(&at.key("targetRefs"), "at most 16 targets");
    }
    for (index, target) in targets.iter().enumerate() {
        reference(target, &at.key("targetRefs").index(index), check);
    }
}

fn reference(target: &TargetReference, at: &FieldPath, check: &mut Check<'_>) {
    if target.name.is_empty() {
        check.error(&at.key("name"), "the target's name must be set");
    }
    if !target.namespace.is_empty() {
        check.error(&at.key("namespace"), "a target in another namespace is not supported");
    }
    let group = if target.group == "core" { "" } else { target.group.as_str() };
    if !TARGETS.contains(&(group, target.kind.as_str())) {
        let message = format!(
            "`{}/{}` cannot be a target; use Service, ServiceEntry, Gateway or GatewayClass",
            group, target.kind
        );
        check.error(&at.key("kind"), message);
    }
}
