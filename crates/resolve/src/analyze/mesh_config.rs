//! MeshConfig and MeshNetworks: what is written and does nothing.
//!
//! Never reports a field that is acted on.

use super::codes;
use crate::registry::ClusterState;
use crate::settings::Settings;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::origin::{ObjectKey, Origin};
use std::sync::Arc;

/// FL0408.
pub(super) fn without_effect(state: &ClusterState, settings: &Settings, diagnostics: &mut Vec<Diagnostic>) {
    for (field, own) in &settings.without_effect {
        let (kind, namespace, name, path) = match own {
            true => ("ConfigMap", "istio-system", "istio", format!("data.mesh.{field}")),
            false => ("Mesh", "", state.settings.name.as_str(), format!("spec.meshConfig.{field}")),
        };
        let message = format!("MeshConfig field `{field}` has no effect here");
        diagnostics.push(
            Diagnostic::info(codes::WITHOUT_EFFECT, at(state, kind, namespace, name, path), message)
                .hint("do not rely on the field"),
        );
    }
}

/// IST0126, on the object that Istio's analyser names.
pub(super) fn registries(state: &ClusterState, settings: &Settings, diagnostics: &mut Vec<Diagnostic>) {
    for (network, written) in &settings.networks.networks {
        for registry in written.endpoints.iter().filter_map(|one| one.from_registry.as_ref()) {
            if !state.settings.clusters.contains_key(registry.as_str()) {
                let place =
                    at(state, "MeshNetworks", "istio-system", "meshnetworks", format!("networks.{network}.endpoints"));
                let message = format!("network {network} names registry {registry}, which is no cluster of the mesh");
                diagnostics
                    .push(Diagnostic::error(codes::UNKNOWN_REGISTRY, place, message).hint("correct fromRegistry"));
            }
        }
    }
}

fn at(state: &ClusterState, kind: &str, namespace: &str, name: &str, path: String) -> Origin {
    let object = ObjectKey::new(state.cluster.clone(), kind, namespace, name);
    Origin { object, path, file: Arc::from(""), line: 0 }
}
