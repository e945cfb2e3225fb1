//! What analysis needs to know of objects that the resolved mesh does not carry.
//!
//! Never used for resolving.

use crate::registry::{Draft, Objects};
use fairlead_model::endpoint::WorkloadRef;
use std::collections::BTreeMap;

/// Kept with a cluster's state for the analysis of views.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectFacts {}

impl ObjectFacts {
    pub fn new(_objects: &Objects<'_>, _drafts: &BTreeMap<WorkloadRef, Draft>) -> Self {
        Self {}
    }
}
