//! `WorkloadEntry`: one workload that is not a Pod.

use std::collections::BTreeMap;

use crate::meta::Meta;

message! {
    /// A workload that is not a Pod.
    pub struct WorkloadEntry {
        /// Identity; its labels count as the workload's, beside those of the spec.
        metadata: Meta,
        /// The workload.
        spec: WorkloadEntrySpec,
    }
}

message! {
    /// `WorkloadEntry.spec`, also an endpoint of a ServiceEntry.
    pub struct WorkloadEntrySpec {
        /// IP, name (DNS resolution only), `unix://` path; may be empty if `network` is set.
        address: String,
        /// Port name to number; beats the service's `targetPort`.
        ports: BTreeMap<String, u32>,
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Its network.
        network: String,
        /// `region/zone/subzone`.
        locality: String,
        /// Load-balancing weight; 0 is 1.
        weight: u32,
        /// Its account; empty is `default`.
        service_account: String,
    }
}

impl WorkloadEntry {
    /// All labels: the spec's, then those of the metadata that the spec does not have.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = (*self.metadata.labels).clone();
        labels.extend(self.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        labels
    }
}
