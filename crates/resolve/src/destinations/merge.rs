//! Rules of one namespace for the same host, merged.
//!
//! Never merges rules with different selectors or audiences. Invariant (Istio): rules come oldest first; a later rule only
//! adds subsets with new names, and its policy only counts if no earlier one has any; a rule whose audience is larger than
//! an earlier one's is merged into it and also stands on its own.

use super::{Layer, MeshDefaults, Rule, RuleSubset};
use fairlead_model::matching::{Labels, Visibility};
use fairlead_model::origin::Origin;
use fairlead_model::policy::{DestinationPolicy, Subset};
use std::sync::Arc;

/// Rules that act as one.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub visibility: Visibility,
    pub selector: Option<Labels>,
    policy: Option<Layer>,
    subsets: Vec<RuleSubset>,
    origins: Vec<Origin>,
}

/// A group with everything settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub visibility: Visibility,
    pub selector: Option<Labels>,
    pub policy: Arc<DestinationPolicy>,
}

impl Group {
    fn new(rule: &Rule) -> Self {
        let mut group = Self {
            visibility: rule.visibility.clone(),
            selector: rule.selector.clone(),
            policy: None,
            subsets: Vec::new(),
            origins: Vec::new(),
        };
        group.take(rule);
        group
    }

    fn take(&mut self, rule: &Rule) {
        for subset in &rule.subsets {
            if !self.subsets.iter().any(|known| known.name == subset.name) {
                self.subsets.push(subset.clone());
            }
        }
        if self.policy.is_none() {
            self.policy.clone_from(&rule.policy);
        }
        self.origins.push(rule.origin.clone());
    }

    fn settle(&self, defaults: &MeshDefaults) -> Settled {
        let service = self.policy.clone().unwrap_or_default();
        let subsets = self.subsets.iter().map(|subset| {
            let layer = subset.policy.as_ref().map_or_else(|| service.clone(), |own| service.overridden_by(own));
            let settled = Subset {
                labels: subset.labels.clone(),
                policy: layer.settled(defaults),
                origin: Some(subset.origin.clone()),
            };
            (subset.name.clone(), settled)
        });
        Settled {
            visibility: self.visibility.clone(),
            selector: self.selector.clone(),
            policy: Arc::new(DestinationPolicy {
                policy: service.settled(defaults),
                subsets: subsets.collect(),
                origins: self.origins.clone(),
            }),
        }
    }
}

/// Merges rules of one namespace and host, oldest first.
pub(super) fn merge<'a>(rules: impl Iterator<Item = &'a Rule>, defaults: &MeshDefaults) -> Vec<Settled> {
    let mut groups: Vec<Group> = Vec::new();
    for rule in rules {
        let mut alone = true;
        for group in groups.iter_mut().filter(|group| group.selector == rule.selector) {
            if group.visibility == rule.visibility {
                group.take(rule);
                alone = false;
            } else if is_larger(&rule.visibility, &group.visibility) {
                group.take(rule);
            }
        }
        if alone {
            groups.push(Group::new(rule));
        }
    }
    groups.iter().map(|group| group.settle(defaults)).collect()
}

fn is_larger(one: &Visibility, other: &Visibility) -> bool {
    match (one, other) {
        (Visibility::Public, Visibility::Namespaces(_)) => true,
        (Visibility::Namespaces(one), Visibility::Namespaces(other)) => one.is_superset(other),
        (_, Visibility::Public) => false,
    }
}
