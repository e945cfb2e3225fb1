//! `DestinationRule`: policies for traffic to a host, and its subsets.
//!
//! Never looks up or merges rules.

use std::collections::BTreeMap;

use super::{PolicySelector, TrafficPolicy};
use crate::meta::Meta;

message! {
    /// Client-side policy of a host.
    pub struct DestinationRule {
        /// Identity.
        metadata: Meta,
        /// The policy.
        spec: DestinationRuleSpec,
    }
}

message! {
    /// `DestinationRule.spec`.
    pub struct DestinationRuleSpec {
        /// The service; short names are in the rule's namespace.
        host: String,
        /// The host's policy.
        traffic_policy: Option<TrafficPolicy>,
        /// Named subsets.
        subsets: Vec<Subset>,
        /// Namespaces that see it.
        export_to: Vec<String>,
        /// Clients it applies to, in its own namespace.
        workload_selector: Option<PolicySelector>,
    }
}

message! {
    /// Endpoints with these labels, and their policy.
    pub struct Subset {
        /// Its name.
        name: String,
        /// All must match; empty takes all endpoints.
        labels: BTreeMap<String, String>,
        /// Overrides the host's policy block by block.
        traffic_policy: Option<TrafficPolicy>,
    }
}
