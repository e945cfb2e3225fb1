//! A peer's resources, put together to the summary they came from.
//!
//! Invariant: after every update the receiver holds exactly the summary the peer's stream has told so far; it is published only
//! when nothing of it is still on its way, so that a new stream never looks like a peer that lost its services.

use crate::progress::{Content, Heard, Progress};
use crate::{CLOCK, COUNTS, Counts, PROGRESS, REVISION, SELF, STATEMENT};
use fairlead_identity::SignedStatement;
use fairlead_model::ClusterId;
use fairlead_model::endpoint::Endpoint;
use fairlead_model::summary::{ClusterSummary, MemberSummary, ServiceSummary};
use fairlead_proto::{JsonResource, ResourceType};
use fairlead_xds::client::{Handler, Rejection, Update};
use fairlead_xds::{Name, Resource, Version};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Most services and endpoints a peer may tell.
const MAX_SERVICES: usize = 20_000;
const MAX_ENDPOINTS: usize = 200_000;
/// Names of what could not be taken that are kept.
const MAX_REFUSED: usize = 10_000;
/// About each of as many members as a mesh may have: a tombstone and two claims, each as it was said and by the peer's own word.
const MAX_STATEMENTS: usize = 6 * fairlead_identity::membership::MAX_MEMBERS;

/// What a peer's stream has told.
#[derive(Debug)]
pub struct PeerUpdate {
    pub cluster: ClusterId,
    pub summary: Arc<ClusterSummary>,
    pub statements: Vec<SignedStatement>,
    /// How far the peer's wall clock is ahead of the own, in seconds, as far as the stream's delay lets it be told.
    pub ahead: Option<i64>,
    /// How far the peer has been heard; none until a state of it was whole.
    pub told: Option<Heard>,
}

/// Takes a peer's resources and sends what they add up to.
#[derive(Debug)]
pub struct Receiver {
    cluster: ClusterId,
    member: Option<MemberSummary>,
    statements: BTreeMap<String, SignedStatement>,
    services: BTreeMap<String, Arc<ServiceSummary>>,
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    /// How much the peer tells.
    counts: Option<Counts>,
    /// How far the peer said it has come, and what it was when the number was given.
    progress: Option<Progress>,
    /// What is held, by its versions.
    content: Content,
    versions: BTreeMap<(ResourceType, Name), Version>,
    told: Option<Heard>,
    /// What could not be taken, by kind: it is not waited for.
    refused: BTreeSet<(ResourceType, Name)>,
    /// The own wall clock, in Unix seconds.
    now: fn() -> i64,
    ahead: Option<i64>,
    updates: mpsc::UnboundedSender<PeerUpdate>,
}

impl Receiver {
    /// `now` tells the wall clock in Unix seconds.
    pub fn new(cluster: ClusterId, now: fn() -> i64, updates: mpsc::UnboundedSender<PeerUpdate>) -> Self {
        Self {
            cluster,
            member: None,
            statements: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            counts: None,
            progress: None,
            content: Content::default(),
            versions: BTreeMap::new(),
            told: None,
            refused: BTreeSet::new(),
            now,
            ahead: None,
            updates,
        }
    }

    fn take(&mut self, kind: ResourceType, resource: &Resource, restored: bool) -> Result<(), String> {
        let name = resource.name.to_string();
        match kind {
            ResourceType::PeerMember if name == SELF => {
                let member: MemberSummary = read(kind, resource)?;
                if member.cluster != self.cluster {
                    return Err(format!("{} calls itself {}", self.cluster, member.cluster));
                }
                self.member = Some(member);
            }
            ResourceType::PeerMember if name == CLOCK => {
                let clock: i64 = read(kind, resource)?;
                // What an earlier process was told says nothing of today.
                if !restored {
                    self.ahead = Some(clock.saturating_sub((self.now)()));
                }
            }
            ResourceType::PeerMember if name == COUNTS => self.counts = Some(read(kind, resource)?),
            ResourceType::PeerMember if name == PROGRESS => self.progress = Some(read(kind, resource)?),
            ResourceType::PeerMember if name.starts_with(STATEMENT) => {
                if !self.statements.contains_key(&name) {
                    bound(self.statements.len(), MAX_STATEMENTS, "statements about members")?;
                }
                self.statements.insert(name, read(kind, resource)?);
            }
            ResourceType::PeerServiceSummary => {
                if !self.services.contains_key(&name) {
                    bound(self.services.len(), MAX_SERVICES, "services")?;
                }
                let service: ServiceSummary = read(kind, resource)?;
                if format!("{}/{}", service.namespace, service.name) != name {
                    return Err(format!("{name} calls itself {}/{}", service.namespace, service.name));
                }
                self.services.insert(name, Arc::new(service));
            }
            ResourceType::PeerEndpoint => {
                if !self.endpoints.contains_key(&name) {
                    bound(self.endpoints.len(), MAX_ENDPOINTS, "endpoints")?;
                }
                let endpoint: Endpoint = read(kind, resource)?;
                if endpoint.workload.cluster != self.cluster {
                    return Err(format!("{} tells an endpoint of {}", self.cluster, endpoint.workload.cluster));
                }
                self.endpoints.insert(name, Arc::new(endpoint));
            }
            _ => return Err("of no kind that peers tell".into()),
        }
        Ok(())
    }

    /// Keeps the fingerprint of what is held.
    fn mark(&mut self, kind: ResourceType, name: &Name, resource: Option<&Resource>) {
        if kind == ResourceType::PeerMember && &**name != SELF {
            return;
        }
        let key = (kind, name.clone());
        if let Some(version) = self.versions.remove(&key) {
            self.content.remove(kind, name, &version);
        }
        if let Some(resource) = resource {
            self.content.add(kind, resource);
            self.versions.insert(key, resource.version.clone());
        }
    }

    fn drop_named(&mut self, kind: ResourceType, name: &str) {
        match kind {
            ResourceType::PeerMember => drop(self.statements.remove(name)),
            ResourceType::PeerServiceSummary => drop(self.services.remove(name)),
            ResourceType::PeerEndpoint => drop(self.endpoints.remove(name)),
            _ => {}
        }
    }

    fn is_whole(&self) -> bool {
        let Some(counts) = self.counts else { return false };
        let refused = |kind: ResourceType| self.refused.iter().filter(|(of, _)| *of == kind).count();
        self.services.len() + refused(ResourceType::PeerServiceSummary) >= counts.services
            && self.endpoints.len() + refused(ResourceType::PeerEndpoint) >= counts.endpoints
    }

    fn publish(&mut self) {
        if let Some(progress) = self.progress.filter(|progress| progress.content == self.content) {
            self.told = Some(Heard { told: progress.told, content: Some(progress.content) });
        }
        let Some(member) = self.member.clone() else { return };
        let mut endpoints: BTreeMap<String, Vec<Arc<Endpoint>>> = BTreeMap::new();
        for (name, endpoint) in &self.endpoints {
            if let Some((service, _)) = name.rsplit_once('/') {
                endpoints.entry(service.to_owned()).or_default().push(endpoint.clone());
            }
        }
        let summary = Arc::new(ClusterSummary { member, services: self.services.clone(), endpoints });
        let statements = self.statements.values().cloned().collect();
        let (cluster, ahead, told) = (self.cluster.clone(), self.ahead, self.told);
        let _ = self.updates.send(PeerUpdate { cluster, summary, statements, ahead, told });
    }
}

impl Handler for Receiver {
    fn apply(&mut self, update: Update<'_>) -> Vec<Rejection> {
        let Ok(kind) = update.type_url.parse::<ResourceType>() else { return Vec::new() };
        let mut rejections = Vec::new();
        for resource in update.upserts {
            let key = (kind, resource.name.clone());
            match self.take(kind, resource, update.restored) {
                Ok(()) => {
                    self.mark(kind, &resource.name, Some(resource));
                    self.refused.remove(&key);
                }
                Err(reason) => {
                    rejections.push(Rejection::new(resource.name.clone(), reason));
                    // One that sends so much nonsense is never whole; it costs itself.
                    if self.refused.len() < MAX_REFUSED {
                        self.refused.insert(key);
                    }
                }
            }
        }
        for name in update.removed {
            self.drop_named(kind, name);
            self.mark(kind, name, None);
            self.refused.remove(&(kind, name.clone()));
        }
        if self.is_whole() && !update.restored {
            self.publish();
        }
        rejections
    }
}

fn read<T: DeserializeOwned>(kind: ResourceType, resource: &Resource) -> Result<T, String> {
    let (found, json) = JsonResource::from_any_bytes(&resource.body).map_err(|e| e.to_string())?;
    if found != kind {
        return Err(format!("{found} among {kind}"));
    }
    if json.revision > REVISION {
        return Err(format!("revision {} is newer than {REVISION}, which this version reads", json.revision));
    }
    serde_json::from_slice(&json.json).map_err(|e| e.to_string())
}

fn bound(have: usize, most: usize, what: &str) -> Result<(), String> {
    if have >= most { Err(format!("more than {most} {what}")) } else { Ok(()) }
}
