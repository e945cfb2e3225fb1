//! Diagnostics about references between objects, with Istio's codes where Istio's analysers have them.
//!
//! Never decides anything: the mesh is resolved without it. Invariant: the list is sorted and free of duplicates, so that
//! the order of input does not show.

mod facts;
mod single;

pub(crate) use facts::ObjectFacts;
pub(crate) use single::{external_name, host_taken, refused_by_profile};

use crate::registry::{ClusterState, Objects};
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::mesh::ResolvedMesh;

/// What can be told from the cluster's own objects.
pub(crate) fn own_objects(_state: &ClusterState, _objects: &Objects<'_>, _diagnostics: &mut Vec<Diagnostic>) {}

/// What depends on the services that exist for the viewer.
pub(crate) fn references(_state: &ClusterState, _mesh: &ResolvedMesh, _diagnostics: &mut Vec<Diagnostic>) {}

/// Sorts by object and place.
pub(crate) fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| (&a.object, &a.file, a.line, &a.path, a).cmp(&(&b.object, &b.file, b.line, &b.path, b)));
    diagnostics.dedup();
}
