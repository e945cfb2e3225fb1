//! `exportTo`: `.`, `*`, `~` (services only) or namespaces.

use std::collections::HashSet;

use super::check::Check;
use super::names;
use crate::field::FieldPath;

/// Checks `exportTo` of an object in `namespace`; only services may be exported to nobody (`~`).
pub(super) fn check(list: &[String], namespace: &str, is_service: bool, at: &FieldPath, check: &mut Check<'_>) {
    let mut seen = HashSet::new();
    for (index, entry) in list.iter().enumerate() {
        let at = at.index(index);
        match entry.as_str() {
            "~" if !is_service => check.error(&at, "exportTo `~` (nobody) is not allowed for this kind"),
            "." | "*" | "~" => {}
            name if names::is_dns_label(name) => {}
            _ => check.error(&at, format!("`{entry}` is not `.`, `*` or a namespace")),
        }
        let same = if entry == "." { namespace } else { entry.as_str() };
        if !seen.insert(same) {
            check.error(&at, format!("`{entry}` is a duplicate"));
        }
    }
    if list.len() > 1 {
        if list.iter().any(|entry| entry == "*") {
            check.error(at, "`*` (everybody) cannot be combined with other entries");
        }
        if is_service && list.iter().any(|entry| entry == "~") {
            check.error(at, "`~` (nobody) cannot be combined with other entries");
        }
    }
}
