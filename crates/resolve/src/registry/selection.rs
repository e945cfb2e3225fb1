//! Workloads by label, so that a selector does not scan all of them.
//!
//! Never returns a workload of another namespace. Invariant: results are sorted by name.

use super::Draft;
use fairlead_model::endpoint::WorkloadRef;
use fairlead_model::matching::{Labels, selects};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Workloads by (namespace, label, value).
pub(super) struct Selection<'a> {
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Draft>>,
}

impl<'a> Selection<'a> {
    /// `used`: labels that selectors name; by no other is anybody looked for.
    pub fn new(drafts: &'a BTreeMap<WorkloadRef, Draft>, used: &BTreeSet<&str>) -> Self {
        let mut by_label: HashMap<_, Vec<&'a Draft>> = HashMap::new();
        for draft in drafts.values() {
            for (key, value) in draft.labels.iter().filter(|(key, _)| used.contains(key.as_str())) {
                by_label.entry((draft.key.namespace.as_str(), key.as_str(), value.as_str())).or_default().push(draft);
            }
        }
        Self { by_label }
    }

    /// Workloads of `namespace` that carry all of `selector`; an empty selector selects none (Kubernetes).
    pub fn select(&self, namespace: &str, selector: &Labels) -> Vec<&'a Draft> {
        let lists = selector.iter().map(|(key, value)| self.by_label.get(&(namespace, key.as_str(), value.as_str())));
        let Some(lists) = lists.collect::<Option<Vec<_>>>() else { return Vec::new() };
        let Some(shortest) = lists.into_iter().min_by_key(|list| list.len()) else { return Vec::new() };
        shortest.iter().filter(|draft| selects(selector, &draft.labels)).copied().collect()
    }
}
