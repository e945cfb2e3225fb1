//! Diagnostics about references between objects, with Istio's codes where Istio's analysers have them.
//!
//! Never decides anything: the mesh is resolved without it. Invariant: the list is sorted and free of duplicates, so that
//! the order of input does not show.

mod authorization;
pub mod codes;
mod destinations;
mod entries;
mod gateways;
mod mesh_config;
mod overlaps;
mod routes;
mod services;
mod single;

pub(crate) use single::{delegation, external_name, host_taken, refused_by_profile};

use crate::registry::{ClusterState, Objects};
use crate::settings::Settings;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::mesh::ResolvedMesh;

/// What can be told from the cluster's own objects.
pub(crate) fn own_objects(
    state: &ClusterState,
    objects: &Objects<'_>,
    settings: &Settings,
    diagnostics: &mut Vec<Diagnostic>,
) {
    mesh_config::without_effect(state, settings, diagnostics);
    mesh_config::registries(state, settings, diagnostics);
    services::without_effect(objects, diagnostics);
    services::same_addresses(objects, diagnostics);
    services::undeclared_ports(objects, diagnostics);
    services::export_audiences(state, diagnostics);
    entries::addresses(objects, &state.settings, settings.auto_allocate, diagnostics);
    entries::endpoints(objects, diagnostics);
    destinations::certificates(objects, diagnostics);
    gateways::selectors(state, objects, diagnostics);
    gateways::conflicts(objects, diagnostics);
    gateways::certificates(objects, diagnostics);
    authorization::selectors(state, objects, diagnostics);
    routes::gateways(state, diagnostics);
    routes::same_hosts(state, diagnostics);
    overlaps::rules(state, diagnostics);
}

/// What depends on the services that exist for the viewer.
pub(crate) fn references(state: &ClusterState, mesh: &ResolvedMesh, diagnostics: &mut Vec<Diagnostic>) {
    let hosts = services::Hosts::new(mesh);
    routes::destinations(state, &hosts, diagnostics);
    destinations::hosts(state, &hosts, diagnostics);
}

/// Sorts by object and place.
pub(crate) fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| (&a.object, &a.file, a.line, &a.path, a).cmp(&(&b.object, &b.file, b.line, &b.path, b)));
    diagnostics.dedup();
}
