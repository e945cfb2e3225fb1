//! `ConfigMap`, of which only `istio-system/istio` (MeshConfig and MeshNetworks) is interpreted.
//!
//! Never interprets another ConfigMap's data.

use std::collections::BTreeMap;

use crate::istio::{MeshConfig, MeshNetworks};
use crate::meta::Meta;

message! {
    /// A Kubernetes ConfigMap.
    pub struct ConfigMap {
        /// Identity.
        metadata: Meta,
        /// Text values.
        data: BTreeMap<String, String>,
    } with {
        /// The key `mesh`, if this is Istio's ConfigMap.
        mesh: Option<Box<MeshConfig>>,
        /// The key `meshNetworks`, if this is Istio's ConfigMap.
        networks: Option<Box<MeshNetworks>>,
    }
}

impl ConfigMap {
    /// Whether this is Istio's mesh configuration: `istio` in `istio-system`. Revisions (`istio-<rev>`) are not read.
    pub fn is_mesh_config(&self) -> bool {
        self.metadata.namespace == "istio-system" && self.metadata.name == "istio"
    }
}
