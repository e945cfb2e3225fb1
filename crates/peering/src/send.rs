//! A cluster's summary for one audience, as resources.
//!
//! Invariants: equal summaries give equal resources, byte for byte; what did not change since the last view is not encoded again.

use crate::progress::{Content, Progress, Told};
use crate::{CLOCK, COUNTS, Counts, KINDS, PROGRESS, REVISION, SELF, STATEMENT};
use fairlead_identity::SignedStatement;
use fairlead_model::endpoint::Endpoint;
use fairlead_model::summary::{ClusterSummary, MemberSummary, ServiceSummary};
use fairlead_proto::{JsonResource, ResourceType};
use fairlead_xds::{Resource, ResourceView, Resources, Snapshot};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one peer may see at one moment.
#[derive(Debug)]
pub struct PeerView(Snapshot);

/// Makes one peer's views, one after the other.
#[derive(Debug, Default)]
pub struct Sender {
    /// Unix seconds at the beginning of the stream.
    clock: i64,
    member: Option<(MemberSummary, Resource)>,
    statements: BTreeMap<String, (SignedStatement, Resource)>,
    services: BTreeMap<String, (Arc<ServiceSummary>, Resource)>,
    endpoints: BTreeMap<String, (Arc<Endpoint>, Resource)>,
    last: Option<Last>,
}

/// Members, services, endpoints as last told.
type Last = [Arc<Resources>; 3];

impl Sender {
    /// For a stream that begins at this time, in Unix seconds.
    pub fn at(clock: i64) -> Self {
        Self { clock, ..Self::default() }
    }

    /// The next view, or `None` when the peer has been told all of it. `sequence` grows from state to state, over restarts too.
    pub fn view(
        &mut self,
        sequence: u64,
        summary: &ClusterSummary,
        statements: &[SignedStatement],
    ) -> Option<PeerView> {
        let next = self.resources(summary, statements);
        let next = match &self.last {
            Some(last) if last.iter().zip(&next).all(|(a, b)| **a == *b) => return None,
            Some(last) => {
                let mut last = last.iter();
                next.map(|new| last.next().filter(|old| ***old == new).cloned().unwrap_or_else(|| Arc::new(new)))
            }
            None => next.map(Arc::new),
        };
        let told = Told { incarnation: summary.member.incarnation, sequence };
        let mut members = (*next[0]).clone();
        if let Some(progress) = encode(KINDS[0], PROGRESS, &Progress { told, content: content(&next) }) {
            members.insert(progress);
        }
        let mut snapshot = Snapshot::new(sequence).share(KINDS[0].url(), Arc::new(members));
        for (kind, resources) in KINDS.into_iter().zip(&next).skip(1) {
            snapshot = snapshot.share(kind.url(), resources.clone());
        }
        self.last = Some(next);
        Some(PeerView(snapshot))
    }

    /// Members, services (`namespace/name`) and endpoints (`namespace/name/id`).
    fn resources(&mut self, summary: &ClusterSummary, statements: &[SignedStatement]) -> [Resources; 3] {
        let [member_kind, service_kind, endpoint_kind] = KINDS;
        let mut members = Resources::default();
        let own = self.member.take().filter(|(last, _)| *last == summary.member).map(|(_, resource)| resource);
        if let Some(own) = own.or_else(|| encode(member_kind, SELF, &summary.member)) {
            members.insert(own.clone());
            self.member = Some((summary.member.clone(), own));
        }
        if let Some(clock) = encode(member_kind, CLOCK, &self.clock) {
            members.insert(clock);
        }
        let counts =
            Counts { services: summary.services.len(), endpoints: summary.endpoints.values().map(Vec::len).sum() };
        if let Some(counts) = encode(member_kind, COUNTS, &counts) {
            members.insert(counts);
        }
        let named = statements.iter().map(|s| (format!("{STATEMENT}{}", digest(s.signature.as_bytes())), s.clone()));
        renew(&mut self.statements, named, member_kind, &mut members);
        let mut services = Resources::default();
        let named = summary.services.iter().map(|(name, service)| (name.clone(), service.clone()));
        renew(&mut self.services, named, service_kind, &mut services);
        let mut endpoints = Resources::default();
        let of_service = |(service, list): (&String, &Vec<Arc<Endpoint>>)| {
            let service = service.clone();
            list.clone().into_iter().map(move |endpoint| (format!("{service}/{}", endpoint.id), endpoint))
        };
        renew(&mut self.endpoints, summary.endpoints.iter().flat_map(of_service), endpoint_kind, &mut endpoints);
        [members, services, endpoints]
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

/// What is told of the cluster itself; statements about members have ranks of their own.
fn content(told: &Last) -> Content {
    let mut content = Content::default();
    for (kind, resources) in KINDS.into_iter().zip(told) {
        let counts = |r: &&Resource| kind != ResourceType::PeerMember || &*r.name == SELF;
        resources.iter().filter(counts).for_each(|resource| content.add(kind, resource));
    }
    content
}

/// Puts a resource for each value into `into`, and keeps it in `known` for the next time.
fn renew<T: Serialize + PartialEq>(
    known: &mut BTreeMap<String, (T, Resource)>,
    values: impl Iterator<Item = (String, T)>,
    kind: ResourceType,
    into: &mut Resources,
) {
    let mut last = std::mem::take(known);
    for (name, value) in values {
        let kept = last.remove(&name).filter(|(old, _)| *old == value).map(|(_, resource)| resource);
        if let Some(resource) = kept.or_else(|| encode(kind, &name, &value)) {
            into.insert(resource.clone());
            known.insert(name, (value, resource));
        }
    }
}

fn encode<T: Serialize>(kind: ResourceType, name: &str, value: &T) -> Option<Resource> {
    match serde_json::to_vec(value) {
        Ok(json) => {
            let version = digest(&json);
            let body = JsonResource::new(REVISION, json).to_any_bytes(kind);
            Some(Resource::new(name, version.as_str(), body))
        }
        Err(e) => {
            tracing::error!("{kind} {name} cannot be written: {e}");
            None
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..12].iter().map(|b| format!("{b:02x}")).collect()
}
