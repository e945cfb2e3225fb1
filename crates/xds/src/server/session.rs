//! One stream's protocol: requests and views in, responses and events out, no I/O.
//!
//! Drive it like this: feed requests and views as they come, and after each take [`Session::next_delta`] or
//! [`Session::next_sotw`] until it gives nothing. Invariants: at most one response of a type is unanswered, so a
//! slow client gets the latest state and nothing in between; ranked types are told make-before-break; an answer
//! counts only for the latest response of its type.

use super::event::{Event, StreamId};
use super::subscription::{Batch, Outstanding, Subscription};
use super::wish::Change;
use crate::faults::Faults;
use crate::nack::Nack;
use crate::rules::UNRANKED;
use crate::{Limits, Name, Resource, ResourceView, TypeRules, Version};
use bytes::Bytes;
use fairlead_proto::discovery::HeldVersion;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The form of requests and responses on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Changes.
    Delta,
    /// State of the world.
    StateOfTheWorld,
}

/// A rule or limit the client broke; it costs the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// More names than one client may subscribe to.
    #[error("more than {0} resource names subscribed to on one stream")]
    TooManyNames(usize),
    /// More types than one client may subscribe to.
    #[error("more than {0} resource types subscribed to on one stream")]
    TooManyTypes(usize),
    /// A name longer than allowed.
    #[error("a resource name is longer than {0} bytes")]
    NameTooLong(usize),
    /// A request that says not what it is about.
    #[error("a request has no type_url")]
    NoType,
}

/// How the client stands with the latest response of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Nonce of the latest response that was answered.
    pub nonce: String,
    /// Generation it was made from.
    pub generation: u64,
    /// Whether it was taken.
    pub acked: bool,
    /// Resources refused of which no newer version was sent since.
    pub rejected: Vec<Name>,
}

/// The state machine of one stream.
pub struct Session {
    stream: StreamId,
    encoding: Encoding,
    rules: Arc<TypeRules>,
    limits: Limits,
    view: Arc<dyn ResourceView>,
    /// By rank and type url, so that iterating is make-before-break order.
    types: BTreeMap<(usize, Arc<str>), Topic>,
    /// What clients ask for because of what they were sent, and has not been sent to them.
    awaited: Vec<Awaited>,
    pushes: u64,
    settled: Option<u64>,
    faults: Faults,
}

#[derive(Debug)]
struct Topic {
    subscription: Subscription,
    standing: Option<Standing>,
}

/// A resource that the client is about to ask for: see [`TypeRules::follows`].
#[derive(Clone, Debug)]
struct Awaited {
    first: Arc<str>,
    second: (usize, Arc<str>),
    name: Name,
}

/// A request, whatever its encoding.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub type_url: String,
    pub change: Change,
    /// Versions held from an earlier stream, sorted by name; counted on the first request of a type only.
    pub initial: Vec<HeldVersion>,
    /// The response this answers, if any.
    pub nonce: String,
    pub nack: Option<Nack>,
}

/// A response, whatever its encoding.
#[derive(Debug)]
pub(super) struct Push {
    pub type_url: Arc<str>,
    pub nonce: String,
    pub freshness: String,
    /// State of the world only: a digest of all the client then has.
    pub version: String,
    pub resources: Vec<Resource>,
    pub removed: Vec<Name>,
    pub refusals: Vec<(Name, i32, String)>,
}

impl Session {
    /// A stream on which nothing has been asked for.
    pub fn new(
        stream: StreamId,
        encoding: Encoding,
        rules: Arc<TypeRules>,
        limits: Limits,
        view: Arc<dyn ResourceView>,
    ) -> Self {
        let faults = Faults::default();
        let types = BTreeMap::new();
        Session { stream, encoding, rules, limits, view, types, awaited: Vec::new(), pushes: 0, settled: None, faults }
    }

    /// Takes a new state; only the latest counts.
    pub fn publish(&mut self, view: Arc<dyn ResourceView>) {
        for ((_, type_url), topic) in &mut self.types {
            topic.subscription.view_changed(view.resources(type_url).as_ref());
        }
        self.view = view;
    }

    /// Whether something is held back until the client asks for what it should ask for next. A client that does not
    /// would wait for ever: after a second or so call [`Session::stop_waiting`].
    pub fn is_waiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Holds nothing back for what the client has not asked for so far.
    pub fn stop_waiting(&mut self) {
        self.awaited.clear();
    }

    /// How the client stands with a type; `None` before its first answer.
    pub fn standing(&self, type_url: &str) -> Option<Standing> {
        let topic = self.types.get(&self.key(type_url))?;
        let rejected = topic.subscription.rejected.keys().cloned().collect();
        topic.standing.clone().map(|standing| Standing { rejected, ..standing })
    }

    /// The generation the client has just come to have in full, once for each: everything it asked for has been
    /// sent and answered.
    pub fn settlement(&mut self) -> Option<Event> {
        let open = |topic: &Topic| {
            let subscription = &topic.subscription;
            subscription.outstanding.is_some() || subscription.has_updates() || subscription.has_removals()
        };
        if self.types.is_empty() || self.is_waiting() || self.types.values().any(open) {
            return None;
        }
        let generation = self.view.generation();
        if self.settled.replace(generation) == Some(generation) {
            return None;
        }
        let rejected = self.types.values().map(|topic| topic.subscription.rejected.len()).sum();
        Some(Event::Settled { generation, rejected })
    }

    /// The form of this stream.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn is_full_state(&self, type_url: &str) -> bool {
        self.rules.is_full_state(type_url)
    }

    pub(super) fn take(&mut self, request: Request) -> Result<Vec<Event>, Violation> {
        if request.type_url.is_empty() {
            return Err(Violation::NoType);
        }
        let key = self.key(&request.type_url);
        let first = !self.types.contains_key(&key);
        let mut events = Vec::new();
        if first {
            if self.types.len() >= self.limits.types {
                return Err(Violation::TooManyTypes(self.limits.types));
            }
        } else if !request.nonce.is_empty() {
            // What the client wants counts even if the answer is stale: requests come in the order they were meant,
            // so the last list is always the last wish. To skip one would leave us believing that the client still
            // has what it dropped in between.
            self.answer(&key, &request, &mut events);
        }
        let full_state = self.encoding == Encoding::StateOfTheWorld && self.rules.is_full_state(&key.1);
        let limits = self.limits;
        let topic = self.types.entry(key.clone()).or_insert_with(Topic::new);
        let difference = request.change.against(&topic.subscription, first);
        let longest = difference.added.iter().map(|name| name.len()).max().unwrap_or(0);
        if longest > limits.name_bytes {
            return Err(Violation::NameTooLong(limits.name_bytes));
        }
        difference.apply(&mut topic.subscription, full_state);
        if first {
            let faults = self.faults;
            let there = self.view.resources(&key.1);
            let kept =
                |name: &str| !faults.lost_removal_on_resume() || there.as_ref().is_some_and(|map| map.contains(name));
            // What is no text is no name of ours.
            let versions = request.initial.iter().filter_map(texts).filter(|(name, _)| kept(name));
            topic.subscription.resume(versions, there.as_ref());
        }
        if self.types.values().map(|topic| topic.subscription.names.len()).sum::<usize>() > limits.names {
            return Err(Violation::TooManyNames(limits.names));
        }
        if difference.is_some() {
            self.settled = None;
        }
        difference.report(&key.1, &mut events);
        Ok(events)
    }

    pub(super) fn next(&mut self) -> Option<Push> {
        let view = self.view.clone();
        for ((_, type_url), topic) in &mut self.types {
            topic.subscription.refresh(&*view, type_url);
        }
        self.prune_awaited();
        loop {
            let (key, removals) = self.choose()?;
            let full_state = self.rules.is_full_state(&key.1);
            let sotw = self.encoding == Encoding::StateOfTheWorld;
            let budget = if sotw { usize::MAX } else { self.limits.response_bytes };
            let subscription = &mut self.types.get_mut(&key)?.subscription;
            let mut batch = match removals {
                true => Batch { removed: subscription.take_removals(budget), ..Batch::default() },
                false => subscription.take_updates(budget, sotw && full_state),
            };
            if !removals && key.0 == UNRANKED && !subscription.has_updates() {
                // Nothing refers to an unranked type, so its removals need not wait for a response of their own.
                batch.removed.extend(subscription.take_removals(budget));
            }
            let sent: Vec<Name> = batch.upserts.iter().map(|resource| resource.name.clone()).collect();
            if sotw && full_state {
                let all = |(name, version, body): (&Name, &Version, &Bytes)| Resource {
                    name: name.clone(),
                    version: version.clone(),
                    body: body.clone(),
                };
                batch.upserts = subscription.held.iter().map(all).collect();
            } else if sotw && removals {
                // There is no way to say it: what such a client no longer refers to it drops by itself.
                continue;
            }
            self.pushes += 1;
            let nonce = format!("{}.{}", self.stream, self.pushes);
            let version = if sotw { digest(subscription) } else { String::new() };
            let outstanding = Outstanding { nonce: nonce.clone(), generation: view.generation(), sent };
            let sent = outstanding.sent.clone();
            self.types.get_mut(&key)?.subscription.outstanding = Some(outstanding);
            self.followed(&key.1, &sent, batch.new);
            return Some(Push {
                type_url: key.1,
                nonce,
                freshness: view.freshness().to_owned(),
                version,
                resources: batch.upserts,
                removed: batch.removed,
                refusals: batch.refusals,
            });
        }
    }

    /// What follows from having sent resources: see [`TypeRules::follows`].
    fn followed(&mut self, type_url: &Arc<str>, sent: &[Name], new: Vec<Name>) {
        let rules = self.rules.clone();
        let Some((_, second)) = rules.follows.iter().find(|(first, _)| first == type_url) else {
            return;
        };
        let key = (rules.rank(second), second.clone());
        if let Some(topic) = self.types.get_mut(&key) {
            topic.subscription.resend(sent.iter());
        }
        let offered = self.view.resources(second);
        let offered = new.into_iter().filter(|name| offered.as_ref().is_some_and(|map| map.contains(name)));
        self.awaited.extend(offered.map(|name| Awaited { first: type_url.clone(), second: key.clone(), name }));
    }

    /// Forgets what has come, or cannot come any more.
    fn prune_awaited(&mut self) {
        if self.awaited.is_empty() {
            return;
        }
        let mut awaited = std::mem::take(&mut self.awaited);
        awaited.retain(|awaited| {
            let has = |topic: &Topic| topic.subscription.held.contains(&awaited.name);
            let wants = |topic: &Topic| has(topic) && !topic.subscription.rejected.contains_key(&awaited.name);
            let offered = self.view.resources(&awaited.second.1);
            self.types.get(&self.key(&awaited.first)).is_some_and(wants)
                && !self.types.get(&awaited.second).is_some_and(has)
                && offered.is_some_and(|map| map.contains(&awaited.name))
        });
        if awaited.is_empty() {
            awaited = Vec::new();
        }
        self.awaited = awaited;
    }

    /// The next type to tell something, and whether it is removals.
    fn choose(&self) -> Option<((usize, Arc<str>), bool)> {
        // While a type waits with something newer, nothing that may refer to it is sent.
        let mut held_back = false;
        let awaited = self.awaited.iter().map(|awaited| awaited.second.0).min();
        for (key, topic) in &self.types {
            let (ranked, subscription) = (key.0 != UNRANKED, &topic.subscription);
            held_back |= ranked && awaited.is_some_and(|rank| rank < key.0);
            if !subscription.has_updates() && (ranked || !subscription.has_removals()) {
                continue;
            }
            if subscription.outstanding.is_some() {
                held_back |= ranked;
            } else if !ranked || !held_back {
                return Some((key.clone(), false));
            }
        }
        held_back |= awaited.is_some();
        for (key, topic) in self.types.iter().rev().filter(|(_, topic)| topic.subscription.has_removals()) {
            let ranked = key.0 != UNRANKED;
            if topic.subscription.outstanding.is_some() {
                held_back |= ranked;
            } else if ranked && !held_back {
                return Some((key.clone(), true));
            }
        }
        None
    }

    /// Counts an ack or a nack, if it is of the response that waits for one.
    fn answer(&mut self, key: &(usize, Arc<str>), request: &Request, events: &mut Vec<Event>) {
        let Some(topic) = self.types.get_mut(key) else {
            return;
        };
        let subscription = &mut topic.subscription;
        let planted = self.faults.accept_stale_nack() && request.nack.is_some();
        let latest = |outstanding: &mut Outstanding| outstanding.nonce == request.nonce || planted;
        let Some(outstanding) = subscription.outstanding.take_if(latest) else {
            return;
        };
        if let Some(nack) = &request.nack {
            subscription.refused(&outstanding, nack);
        }
        let Outstanding { nonce, generation, .. } = outstanding;
        let type_url = key.1.clone();
        let acked = request.nack.is_none();
        topic.standing = Some(Standing { nonce: nonce.clone(), generation, acked, rejected: Vec::new() });
        events.push(match &request.nack {
            None => Event::Acked { type_url, nonce, generation },
            Some(Nack { message, names }) => {
                Event::Nacked { type_url, nonce, generation, names: names.clone(), detail: message.clone() }
            }
        });
    }

    fn key(&self, type_url: &str) -> (usize, Arc<str>) {
        (self.rules.rank(type_url), type_url.into())
    }

    #[cfg(test)]
    pub(crate) fn plant(&mut self, faults: Faults) {
        self.faults = faults;
    }
}

impl Topic {
    fn new() -> Self {
        Topic { subscription: Subscription::new(), standing: None }
    }
}

fn texts(held: &HeldVersion) -> Option<(&str, &str)> {
    Some((std::str::from_utf8(&held.name).ok()?, std::str::from_utf8(&held.version).ok()?))
}

/// FNV-1a over names and versions: equal on every replica and after every restart. It only tells states apart; it
/// guards nothing.
fn digest(subscription: &Subscription) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (name, version, _) in subscription.held.iter() {
        for byte in name.bytes().chain([0]).chain(version.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}
