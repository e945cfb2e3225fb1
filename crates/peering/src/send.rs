//! A cluster's summary for one audience, as resources.
//!
//! Invariant: equal summaries give equal resources, byte for byte.

use crate::{REVISION, SELF, STATEMENT};
use fairlead_identity::SignedStatement;
use fairlead_model::summary::ClusterSummary;
use fairlead_proto::{JsonResource, ResourceType};
use fairlead_xds::{Resource, Resources, ResourceView, Snapshot};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// What one peer may see at one moment.
#[derive(Debug)]
pub struct PeerView(Snapshot);

impl PeerView {
    pub fn new(generation: u64, summary: &ClusterSummary, statements: &[SignedStatement]) -> Self {
        let mut snapshot = Snapshot::new(generation);
        for (kind, resources) in resources(summary, statements) {
            snapshot = snapshot.share(kind.url(), Arc::new(resources));
        }
        Self(snapshot)
    }
}

impl ResourceView for PeerView {
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    fn resources(&self, type_url: &str) -> Option<Arc<Resources>> {
        self.0.resources(type_url)
    }
}

/// Members, services (`namespace/name`) and endpoints (`namespace/name/id`).
pub fn resources(summary: &ClusterSummary, statements: &[SignedStatement]) -> Vec<(ResourceType, Resources)> {
    let mut members = Resources::default();
    insert(&mut members, ResourceType::PeerMember, SELF, &summary.member);
    for statement in statements {
        let name = format!("{STATEMENT}{}", digest(statement.body.as_bytes()));
        insert(&mut members, ResourceType::PeerMember, &name, statement);
    }
    let mut services = Resources::default();
    for (name, service) in &summary.services {
        insert(&mut services, ResourceType::PeerServiceSummary, name, service);
    }
    let mut endpoints = Resources::default();
    for (service, list) in &summary.endpoints {
        for endpoint in list {
            insert(&mut endpoints, ResourceType::PeerEndpoint, &format!("{service}/{}", endpoint.id), endpoint);
        }
    }
    vec![
        (ResourceType::PeerMember, members),
        (ResourceType::PeerServiceSummary, services),
        (ResourceType::PeerEndpoint, endpoints),
    ]
}

fn insert<T: Serialize>(into: &mut Resources, kind: ResourceType, name: &str, value: &T) {
    match serde_json::to_vec(value) {
        Ok(json) => {
            let version = digest(&json);
            let body = JsonResource::new(REVISION, json).to_any_bytes(kind);
            into.insert(Resource::new(name, version.as_str(), body));
        }
        Err(e) => tracing::error!("{kind} {name} cannot be written: {e}"),
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..12].iter().map(|b| format!("{b:02x}")).collect()
}
