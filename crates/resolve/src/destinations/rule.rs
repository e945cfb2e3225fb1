//! One DestinationRule with its names expanded.
//!
//! Never looks at other rules.

use super::Layer;
use crate::routes::host;
use crate::settings::export_defaults::visibility;
use fairlead_model::matching::{Labels, Visibility};
use fairlead_model::origin::Origin;
use fairlead_resources::istio::DestinationRule;

/// A DestinationRule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub origin: Origin,
    pub namespace: String,
    /// Fully qualified.
    pub host: String,
    pub visibility: Visibility,
    pub selector: Option<Labels>,
    pub policy: Option<Layer>,
    pub subsets: Vec<RuleSubset>,
}

/// One of its subsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleSubset {
    pub name: String,
    pub labels: Labels,
    pub policy: Option<Layer>,
    pub origin: Origin,
}

impl Rule {
    /// `origin` gives the origin of a path inside the object.
    pub fn new(
        rule: &DestinationRule,
        domain: &str,
        default_export: &[String],
        origin: impl Fn(&str) -> Origin,
    ) -> Self {
        let namespace = rule.metadata.namespace.clone();
        let subsets = rule.spec.subsets.iter().enumerate().map(|(index, subset)| RuleSubset {
            name: subset.name.clone(),
            labels: subset.labels.clone(),
            policy: subset.traffic_policy.as_ref().map(Layer::new),
            origin: origin(&format!("spec.subsets[{index}]")),
        });
        Self {
            origin: origin(""),
            host: host::expand(&rule.spec.host, &namespace, domain),
            visibility: visibility(&rule.spec.export_to, default_export, &namespace),
            selector: rule.spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone()),
            policy: rule.spec.traffic_policy.as_ref().map(Layer::new),
            subsets: subsets.collect(),
            namespace,
        }
    }

    /// Whether only its own namespace sees it.
    pub fn is_private(&self) -> bool {
        match &self.visibility {
            Visibility::Public => false,
            Visibility::Namespaces(set) => set.len() == 1 && set.contains(&self.namespace),
        }
    }
}
