//! Rules by namespace and host, and the lookup.
//!
//! Never scans all rules for one service: exact hosts by key, patterns in a short list, most specific first.

use super::merge::{Settled, merge};
use super::{MeshDefaults, Rule};
use fairlead_model::matching::{Labels, Visibility, host_covers};
use fairlead_model::policy::{DestinationPolicy, ScopedPolicy};
use fairlead_model::service::ServiceKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All DestinationRules of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct DestinationIndex {
    root: String,
    defaults: MeshDefaults,
    /// By namespace: what its own callers look up.
    local: BTreeMap<String, Hosts>,
    /// By namespace: what callers of other namespaces may look up.
    exported: BTreeMap<String, Hosts>,
    /// Host or pattern to the namespaces that have local rules for it.
    namespaces: Hosts<BTreeSet<String>>,
    /// As written, oldest first.
    pub rules: Vec<Rule>,
}

/// Values by exact host or by pattern.
#[derive(Clone, Debug)]
struct Hosts<T = Vec<Settled>> {
    exact: BTreeMap<String, T>,
    /// Most specific (longest) first.
    patterns: Vec<(String, T)>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), patterns: Vec::new() }
    }
}

impl<T> Hosts<T> {
    fn new(values: BTreeMap<String, T>) -> Self {
        let mut hosts = Self::default();
        for (host, value) in values {
            if host.starts_with('*') {
                hosts.patterns.push((host, value));
            } else {
                hosts.exact.insert(host, value);
            }
        }
        hosts.patterns.sort_by_key(|(pattern, _)| Reverse(pattern.len()));
        hosts
    }

    /// The value of the most specific host that covers `host`.
    fn best(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| {
            self.patterns.iter().find(|(pattern, _)| pattern == host || host_covers(pattern, host)).map(|(_, v)| v)
        })
    }

    fn all<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a T> {
        let covering = self.patterns.iter().filter(move |(pattern, _)| pattern == host || host_covers(pattern, host));
        self.exact.get(host).into_iter().chain(covering.map(|(_, value)| value))
    }
}

impl DestinationIndex {
    /// `rules` oldest first; `root` is the root namespace.
    pub fn new(rules: Vec<Rule>, root: &str, defaults: MeshDefaults) -> Self {
        let mut local: BTreeMap<String, BTreeMap<String, Vec<&Rule>>> = BTreeMap::new();
        let mut exported: BTreeMap<String, BTreeMap<String, Vec<&Rule>>> = BTreeMap::new();
        let mut namespaces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for rule in &rules {
            // In the root namespace only private rules are meant for its own callers; the others are everybody's.
            let for_own =
                if rule.namespace == root { rule.is_private() } else { rule.visibility.allows(&rule.namespace) };
            if for_own {
                local.entry(rule.namespace.clone()).or_default().entry(rule.host.clone()).or_default().push(rule);
                namespaces.entry(rule.host.clone()).or_default().insert(rule.namespace.clone());
            }
            if !rule.is_private() {
                exported.entry(rule.namespace.clone()).or_default().entry(rule.host.clone()).or_default().push(rule);
            }
        }
        let merged = |found: BTreeMap<String, BTreeMap<String, Vec<&Rule>>>| -> BTreeMap<String, Hosts> {
            let one = |hosts: BTreeMap<String, Vec<&Rule>>| {
                Hosts::new(hosts.into_iter().map(|(host, rules)| (host, merge(rules.into_iter(), &defaults))).collect())
            };
            found.into_iter().map(|(namespace, hosts)| (namespace, one(hosts))).collect()
        };
        Self {
            root: root.to_owned(),
            defaults,
            local: merged(local),
            exported: merged(exported),
            namespaces: Hosts::new(namespaces),
            rules,
        }
    }

    /// Policies for callers of a service, most preferred first: the first whose scope holds the caller is the only one.
    pub fn policies(&self, service: &ServiceKey) -> Vec<ScopedPolicy> {
        let mut found = Vec::new();
        let namespaces: BTreeSet<&String> = self.namespaces.all(&service.host).flatten().collect();
        for namespace in namespaces {
            let Some(groups) = self.local.get(namespace).and_then(|hosts| hosts.best(&service.host)) else { continue };
            let scope = || Some(BTreeSet::from([namespace.clone()]));
            for group in groups.iter().filter(|group| group.selector.is_some()) {
                let labels = group.selector.clone().unwrap_or_default();
                found.push(ScopedPolicy { namespaces: scope(), labels, policy: group.policy.clone() });
            }
            // The namespace has rules for the host, so no other namespace's are looked at, even if none of them selects the
            // caller.
            let general = groups.iter().find(|group| group.selector.is_none());
            let policy = general.map_or_else(|| Arc::new(self.built_in()), |group| group.policy.clone());
            found.push(ScopedPolicy { namespaces: scope(), labels: Labels::new(), policy });
        }
        self.push_exported(&service.namespace, &service.host, &mut found);
        if service.namespace != self.root {
            self.push_exported(&self.root, &service.host, &mut found);
        }
        if !self.defaults.is_empty() {
            let policy = Arc::new(self.built_in());
            found.push(ScopedPolicy { namespaces: None, labels: Labels::new(), policy });
        }
        found
    }

    fn push_exported(&self, namespace: &str, host: &str, found: &mut Vec<ScopedPolicy>) {
        let Some(groups) = self.exported.get(namespace).and_then(|hosts| hosts.best(host)) else { return };
        for group in groups.iter().filter(|group| group.selector.is_none()) {
            let namespaces = match &group.visibility {
                Visibility::Public => None,
                Visibility::Namespaces(set) => Some(set.clone()),
            };
            found.push(ScopedPolicy { namespaces, labels: Labels::new(), policy: group.policy.clone() });
        }
    }

    /// What holds where no rule does.
    fn built_in(&self) -> DestinationPolicy {
        DestinationPolicy { policy: super::Layer::default().settled(&self.defaults), ..DestinationPolicy::default() }
    }
}
