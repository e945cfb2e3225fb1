//! The client's protocol: wishes and responses in, requests and changes out, no I/O.
//!
//! Drive it like this: change wishes at any time; when a stream opens, tell it; then take [`Subscriber::next_request`]
//! until it gives nothing, after every wish and every response. Invariants: what is held was taken by the handler and
//! is exactly what a new stream tells the server; a response counts only if it comes on the stream that stands.

use super::handler::{Handler, Unavailable, Update};
use super::saved::{Saved, SavedType};
use crate::faults::Faults;
use crate::{FRESHNESS_KEY, Name, Resource, WILDCARD, nack};
use bytes::Bytes;
use fairlead_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, HeldVersion};
use fairlead_proto::envoy::core::Node;
use fairlead_proto::envoy::protobuf::{Struct, Value, value::Kind};
use fairlead_proto::envoy::rpc::Status;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Number of a stream, given by whoever opens it: each new one greater than the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamEpoch(pub u64);

/// What a response came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Resources taken.
    pub taken: usize,
    /// Resources refused.
    pub refused: usize,
    /// Names removed.
    pub removed: usize,
}

/// The state machine of a client.
pub struct Subscriber {
    node: Node,
    topics: Vec<Topic>,
    stream: Option<StreamEpoch>,
    introduced: bool,
    freshness: String,
    revision: u64,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Topic {
    type_url: String,
    wildcard: bool,
    names: BTreeSet<Name>,
    held: BTreeMap<Name, Resource>,
    /// Whether the stream that stands has had its first request of this type.
    opened: bool,
    /// Whether the stream that stands has brought a response of this type.
    heard: bool,
    subscribe: BTreeSet<Name>,
    unsubscribe: BTreeSet<Name>,
    answers: VecDeque<(String, Option<Status>)>,
}

impl Subscriber {
    /// A client that wants nothing yet and introduces itself as `node`.
    pub fn new(node: Node) -> Self {
        Subscriber {
            node,
            topics: Vec::new(),
            stream: None,
            introduced: false,
            freshness: String::new(),
            revision: 0,
            faults: Faults::default(),
        }
    }

    /// A client that goes on from what an earlier one had: its subscriptions stand, and its resources are handed to
    /// `handler`; those it refuses now are dropped.
    pub fn restore(node: Node, saved: Saved, handler: &mut dyn Handler) -> Self {
        let mut subscriber = Subscriber::new(node);
        subscriber.freshness = saved.freshness;
        for one in saved.types {
            let update = Update {
                type_url: &one.type_url,
                upserts: &one.resources,
                removed: &[],
                unavailable: &[],
                restored: true,
            };
            let refused: BTreeSet<Name> = handler.apply(update).into_iter().map(|r| r.name).collect();
            let good = one.resources.into_iter().filter(|resource| !refused.contains(&resource.name));
            subscriber.topics.push(Topic {
                wildcard: one.wildcard,
                names: one.names.into_iter().collect(),
                held: good.map(|resource| (resource.name.clone(), resource)).collect(),
                type_url: one.type_url,
                ..Topic::default()
            });
        }
        subscriber
    }

    /// Wants all resources of a type.
    pub fn subscribe_all(&mut self, type_url: &str) {
        let topic = self.topic(type_url);
        if !std::mem::replace(&mut topic.wildcard, true) {
            topic.ask(WILDCARD.into());
        }
    }

    /// Wants a resource by name. Wanting it again asks for it again: its absence is then told once more.
    pub fn subscribe(&mut self, type_url: &str, name: impl Into<Name>) {
        let name = name.into();
        let topic = self.topic(type_url);
        topic.names.insert(name.clone());
        topic.ask(name);
    }

    /// No longer wants a resource by name. It is dropped at once; under a wildcard it stays if it exists.
    pub fn unsubscribe(&mut self, type_url: &str, name: &str) {
        let topic = self.topic(type_url);
        let Some(name) = topic.names.take(name) else {
            return;
        };
        if !topic.wildcard && topic.held.remove(&name).is_some() {
            self.revision += 1;
        }
        self.topic(type_url).leave(name);
    }

    /// A stream stands. What it says counts from now on, and what earlier ones say does not.
    pub fn connected(&mut self, stream: StreamEpoch) {
        self.disconnected();
        self.stream = Some(stream);
    }

    /// No stream stands.
    pub fn disconnected(&mut self) {
        self.stream = None;
        self.introduced = false;
        for topic in &mut self.topics {
            topic.opened = false;
            topic.heard = false;
            topic.subscribe.clear();
            topic.unsubscribe.clear();
            topic.answers.clear();
        }
    }

    /// The next request for the stream that stands, if there is anything to say.
    pub fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.stream?;
        let request = self.topics.iter_mut().find_map(Topic::next_request)?;
        let node = (!std::mem::replace(&mut self.introduced, true)).then(|| self.introduction());
        Some(DeltaDiscoveryRequest { node, ..request })
    }

    /// Takes a response. Returns `None` for one that does not count: of an earlier stream, or of a type nobody
    /// asked for.
    pub fn response(
        &mut self,
        stream: StreamEpoch,
        response: DeltaDiscoveryResponse,
        handler: &mut dyn Handler,
    ) -> Option<Applied> {
        if self.stream != Some(stream) && !self.faults.apply_reordered() {
            return None;
        }
        let topic = self.topics.iter_mut().find(|topic| topic.type_url == response.type_url)?;
        let mut removed: Vec<Name> = response.removed_resources.iter().map(|name| name.as_str().into()).collect();
        let mut upserts = Vec::new();
        for resource in response.resources {
            let name: Name = resource.name.into();
            let same = topic.held.get(&name).is_some_and(|held| *held.version == *resource.version);
            if resource.resource.is_empty() {
                removed.push(name); // A name without a body: some servers say so what does not exist.
            } else if topic.wants(&name) && !same {
                // Copied, so that one small resource does not keep a whole response in memory.
                upserts.push(Resource::new(name, resource.version, Bytes::copy_from_slice(&resource.resource)));
            }
        }
        removed.retain(|name| topic.wants(name));
        let unavailable: Vec<Unavailable> = response.resource_errors.into_iter().filter_map(unavailable).collect();

        let mut refused = Vec::new();
        if !(upserts.is_empty() && removed.is_empty() && unavailable.is_empty()) {
            let type_url = &topic.type_url;
            let (upserts, removed, unavailable) = (&upserts, &removed, &unavailable);
            refused = handler.apply(Update { type_url, upserts, removed, unavailable, restored: false });
        }
        refused.retain(|refusal| upserts.iter().any(|resource| resource.name == refusal.name));
        let applied = Applied { taken: upserts.len() - refused.len(), refused: refused.len(), removed: removed.len() };
        let mut changed = false;
        for name in &removed {
            changed |= topic.held.remove(name).is_some();
        }
        for resource in upserts {
            if !refused.iter().any(|refusal| refusal.name == resource.name) {
                topic.held.insert(resource.name.clone(), resource);
                changed = true;
            }
        }
        let pairs = refused.iter().map(|refusal| (&*refusal.name, refusal.reason.as_str()));
        let nack = (!refused.is_empty()).then(|| nack::encode(pairs));
        if self.stream == Some(stream) {
            topic.answers.push_back((response.nonce, nack));
            topic.heard = true;
        }
        if !response.system_version_info.is_empty() && self.freshness != response.system_version_info {
            self.freshness = response.system_version_info;
            changed = true;
        }
        self.revision += u64::from(changed);
        Some(applied)
    }

    /// Whether the stream that stands has answered for every type that is wanted.
    pub fn is_synced(&self) -> bool {
        let wanted = |topic: &&Topic| topic.wildcard || !topic.names.is_empty();
        self.stream.is_some() && self.topics.iter().filter(wanted).all(|topic| topic.heard)
    }

    /// Freshness of the newest state that a part was taken from, as the server called it.
    pub fn freshness(&self) -> &str {
        &self.freshness
    }

    /// Grows whenever [`Subscriber::saved`] has changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The version of a resource that is held.
    pub fn version(&self, type_url: &str, name: &str) -> Option<&str> {
        let topic = self.topics.iter().find(|topic| topic.type_url == type_url)?;
        topic.held.get(name).map(|resource| &*resource.version)
    }

    /// Subscriptions and acked resources, to be stored.
    pub fn saved(&self) -> Saved {
        let one = |topic: &Topic| SavedType {
            type_url: topic.type_url.clone(),
            wildcard: topic.wildcard,
            names: topic.names.iter().cloned().collect(),
            resources: topic.held.values().cloned().collect(),
        };
        Saved { freshness: self.freshness.clone(), types: self.topics.iter().map(one).collect() }
    }

    fn topic(&mut self, type_url: &str) -> &mut Topic {
        let at = self.topics.iter().position(|topic| topic.type_url == type_url).unwrap_or_else(|| {
            self.topics.push(Topic { type_url: type_url.to_owned(), ..Topic::default() });
            self.topics.len() - 1
        });
        &mut self.topics[at]
    }

    fn introduction(&self) -> Node {
        let mut node = self.node.clone();
        if !self.freshness.is_empty() {
            let token = Value { kind: Some(Kind::StringValue(self.freshness.clone())) };
            let metadata = node.metadata.get_or_insert_with(Struct::default);
            metadata.fields.insert(FRESHNESS_KEY.to_owned(), token);
        }
        node
    }

    #[cfg(test)]
    pub(crate) fn plant(&mut self, faults: Faults) {
        self.faults = faults;
    }
}

impl Topic {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn ask(&mut self, name: Name) {
        self.unsubscribe.remove(&name);
        self.subscribe.insert(name);
    }

    fn leave(&mut self, name: Name) {
        self.subscribe.remove(&name);
        self.unsubscribe.insert(name);
    }

    fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        let mut request = DeltaDiscoveryRequest { type_url: self.type_url.clone(), ..Default::default() };
        if !self.opened {
            if !self.wildcard && self.names.is_empty() {
                return None; // An empty first request would ask for everything.
            }
            self.opened = true;
            self.subscribe.clear();
            self.unsubscribe.clear();
            request.resource_names_subscribe.extend(self.wildcard.then(|| WILDCARD.to_owned()));
            request.resource_names_subscribe.extend(self.names.iter().map(|name| name.to_string()));
            let versions = self.held.values().map(|r| HeldVersion::new(&r.name, &r.version));
            request.initial_resource_versions = versions.collect();
            return Some(request);
        }
        let answer = self.answers.pop_front();
        if answer.is_none() && self.subscribe.is_empty() && self.unsubscribe.is_empty() {
            return None;
        }
        let text = |names: BTreeSet<Name>| names.iter().map(|name| name.to_string()).collect();
        request.resource_names_subscribe = text(std::mem::take(&mut self.subscribe));
        request.resource_names_unsubscribe = text(std::mem::take(&mut self.unsubscribe));
        (request.response_nonce, request.error_detail) = answer.unwrap_or_default();
        Some(request)
    }
}

fn unavailable(error: fairlead_proto::discovery::ResourceError) -> Option<Unavailable> {
    let name = error.resource_name?.name;
    let status = error.error_detail.unwrap_or_default();
    Some(Unavailable { name: name.into(), code: status.code, message: status.message })
}
