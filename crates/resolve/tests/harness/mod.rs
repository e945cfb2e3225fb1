//! Meshes written as YAML text, resolved, and shown as JSON that cases can name parts of.
//!
//! Never decides anything: it decodes, calls the crate's own functions and prints.

// Every test uses its part of it, and a test that cannot read its input fails by panicking.
#![allow(dead_code, clippy::unwrap_used)]

pub mod digest;

use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::endpoint::{Health, WorkloadRef};
use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::{MemberState, ResolvedMesh};
use fairlead_model::summary::PeerStatus;
use fairlead_resolve::view::Peers;
use fairlead_resolve::{
    Audience, ClusterInput, ClusterState, ObjectRef, Observed, cluster, export_to, settings, view_with,
};
use fairlead_resources::{Decoded, Object, decode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A mesh of several clusters before it is resolved.
#[derive(Clone, Default)]
pub struct Written {
    pub mesh: Option<fairlead_resources::fairlead::Mesh>,
    pub clusters: BTreeMap<ClusterId, Vec<(Decoded, Arc<str>)>>,
    /// Problems found while reading.
    pub diagnostics: Vec<Diagnostic>,
}

/// The state of the world beside objects.
#[derive(Clone, Default)]
pub struct World {
    pub states: BTreeMap<ClusterId, MemberState>,
    pub peers: BTreeMap<ClusterId, PeerStatus>,
    pub health: BTreeMap<WorkloadRef, Health>,
    pub kubelets: bool,
    pub looked_up: BTreeMap<String, Vec<std::net::IpAddr>>,
}

impl Written {
    /// `spec` is `Mesh.spec` as YAML, `clusters` the text of each cluster's objects.
    pub fn new(spec: &str, clusters: &BTreeMap<String, String>) -> Self {
        let mut written = Self::default();
        let lines: Vec<String> = spec.lines().map(|line| format!("  {line}\n")).collect();
        let text = format!(
            "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: shop}}\nspec:\n{}",
            lines.concat()
        );
        let decoding = decode(&ClusterId::from(""), &Arc::from("mesh.yaml"), text.as_bytes());
        written.diagnostics.extend(decoding.diagnostics);
        written.mesh = decoding.objects.into_iter().find_map(|decoded| match decoded.object {
            Object::Mesh(mesh) => Some(mesh),
            _ => None,
        });
        for (name, text) in clusters {
            let file: Arc<str> = Arc::from(format!("clusters/{name}/objects.yaml"));
            let cluster = ClusterId::from(name.as_str());
            let decoding = decode(&cluster, &file, text.as_bytes());
            written.diagnostics.extend(decoding.diagnostics);
            let objects = decoding.objects.into_iter().map(|decoded| (decoded, file.clone())).collect();
            written.clusters.insert(cluster, objects);
        }
        written
    }

    /// As they hold in one cluster.
    pub fn settings(&self, name: &ClusterId) -> fairlead_resolve::Settings {
        let objects: Vec<ObjectRef<'_>> =
            self.clusters[name].iter().map(|(decoded, file)| ObjectRef { decoded, file }).collect();
        let all: BTreeSet<ClusterId> = self.clusters.keys().cloned().collect();
        settings("shop", self.mesh.as_ref(), &all, &objects)
    }

    pub fn state(&self, name: &ClusterId, world: &World) -> (ClusterState, Vec<Diagnostic>) {
        let objects: Vec<ObjectRef<'_>> =
            self.clusters[name].iter().map(|(decoded, file)| ObjectRef { decoded, file }).collect();
        let settings = self.settings(name);
        let observed = Observed {
            health: world.health.clone(),
            kubelets: world.kubelets,
            looked_up: world.looked_up.clone(),
            state: world.states.get(name).copied().unwrap_or_default(),
            ..Observed::default()
        };
        cluster(&ClusterInput { cluster: name, settings: &settings, objects: &objects, observed: &observed })
    }

    /// The mesh seen from `viewer`.
    pub fn view(
        &self,
        viewer: &ClusterId,
        world: &World,
        previous: Option<&ResolvedMesh>,
    ) -> (ResolvedMesh, Vec<Diagnostic>) {
        let (own, mut diagnostics) = self.state(viewer, world);
        let audience = Audience { cluster: viewer.clone(), networks: own.member.networks.clone() };
        let mut peers = Peers::new();
        for name in self.clusters.keys().filter(|name| *name != viewer) {
            let (state, _) = self.state(name, world);
            let status = world.peers.get(name).copied().unwrap_or_default();
            peers.insert(name.clone(), (export_to(&state, &audience), status));
        }
        let input =
            fairlead_resolve::ViewInput { state: &own, peers: &peers, generation: 1, previous, kept: &BTreeMap::new() };
        let (mesh, more) = view_with(&input);
        diagnostics.extend(more);
        (mesh, diagnostics)
    }
}
