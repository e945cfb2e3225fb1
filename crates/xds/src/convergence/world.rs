//! One client, one server and the link between them, step by step.
//!
//! A stream keeps its order and loses nothing but by being cut; then requests on their way are lost, and responses on
//! their way may still come, after the next stream has begun. Answers may be repeated late.

use crate::client::{Handler, Rejection, Saved, StreamEpoch, Subscriber, Update};
use crate::faults::Faults;
use crate::server::{Encoding, Event, Session, StreamId};
use crate::{Limits, Resource, ResourceView, Snapshot, TypeRules};
use fairlead_proto::ResourceType;
use fairlead_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use fairlead_proto::envoy::core::Node;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(super) const TYPES: [&str; 3] =
    [ResourceType::Cluster.url(), ResourceType::ClusterLoadAssignment.url(), "example/Member"];
pub(super) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Few, so that a resource often returns to a version it had before.
pub(super) const VERSIONS: [&str; 4] = ["v1", "v2", "v3", BAD];
/// A version every client refuses.
const BAD: &str = "bad";

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A resource (by number of type and name) gets a version.
    Put(usize, usize, usize),
    Remove(usize, usize),
    /// The server publishes what was edited.
    Publish,
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    SubscribeAll(usize),
    /// The client sends what it has to say.
    Speak,
    /// The server gets one request.
    Up,
    /// The client gets one response.
    Down,
    /// The client gets its last response again.
    RepeatDown,
    /// The last answer on this stream will come a second time.
    CopyAnswer,
    DeliverCopy,
    Cut,
    Open,
    /// A response of an earlier stream arrives.
    DeliverGhost,
    RestartClient,
}

pub(super) struct World {
    faults: Faults,
    truth: BTreeMap<(usize, usize), usize>,
    generation: u64,
    view: Arc<dyn ResourceView>,
    wishes: [Wishes; TYPES.len()],
    client: Subscriber,
    inventory: Inventory,
    link: Option<Link>,
    streams: u64,
    ghosts: VecDeque<(StreamEpoch, DeltaDiscoveryResponse)>,
    settled: Option<u64>,
}

#[derive(Clone, Default)]
struct Wishes {
    all: bool,
    names: BTreeSet<usize>,
}

/// What the handler has in use.
#[derive(Default)]
struct Inventory(BTreeMap<(String, String), String>);

struct Link {
    epoch: StreamEpoch,
    session: Session,
    up: VecDeque<DeltaDiscoveryRequest>,
    down: VecDeque<DeltaDiscoveryResponse>,
    last_down: Option<DeltaDiscoveryResponse>,
    last_answer: Option<DeltaDiscoveryRequest>,
    copies: VecDeque<DeltaDiscoveryRequest>,
    /// By type: the response whose answer has not reached the server.
    unanswered: BTreeMap<String, String>,
    /// By type: the latest response.
    latest: BTreeMap<String, String>,
    /// By nonce: whether the client acked.
    verdicts: BTreeMap<String, bool>,
}

impl World {
    pub(super) fn new(faults: Faults) -> Self {
        let mut world = World {
            faults,
            truth: BTreeMap::new(),
            generation: 0,
            view: Arc::new(Snapshot::new(0)),
            wishes: Default::default(),
            client: Subscriber::new(Node::default()),
            inventory: Inventory::default(),
            link: None,
            streams: 0,
            ghosts: VecDeque::new(),
            settled: None,
        };
        world.client.plant(faults);
        world
    }

    pub(super) fn step(&mut self, op: &Op) -> Result<(), String> {
        match *op {
            Op::Put(kind, name, version) => {
                self.truth.insert((kind, name), version);
            }
            Op::Remove(kind, name) => {
                self.truth.remove(&(kind, name));
            }
            Op::Publish => self.publish()?,
            Op::Subscribe(kind, name) => {
                self.wishes[kind].names.insert(name);
                self.client.subscribe(TYPES[kind], NAMES[name]);
            }
            Op::Unsubscribe(kind, name) => {
                self.wishes[kind].names.remove(&name);
                self.client.unsubscribe(TYPES[kind], NAMES[name]);
                if !self.wishes[kind].all {
                    self.inventory.0.remove(&(TYPES[kind].to_owned(), NAMES[name].to_owned()));
                }
            }
            Op::SubscribeAll(kind) => {
                self.wishes[kind].all = true;
                self.client.subscribe_all(TYPES[kind]);
            }
            Op::Speak => self.speak(),
            Op::Up => {
                if let Some(request) = self.link.as_mut().and_then(|link| link.up.pop_front()) {
                    self.up(request)?;
                }
            }
            Op::Down => {
                if let Some(response) = self.link.as_mut().and_then(|link| link.down.pop_front()) {
                    self.down(response);
                }
            }
            Op::RepeatDown => {
                if let Some(response) = self.link.as_ref().and_then(|link| link.last_down.clone()) {
                    self.down(response);
                }
            }
            Op::CopyAnswer => {
                if let Some(link) = &mut self.link {
                    link.copies.extend(link.last_answer.clone());
                }
            }
            Op::DeliverCopy => self.copy()?,
            Op::Cut => self.cut(),
            Op::Open => self.open(),
            Op::DeliverGhost => self.ghost(),
            Op::RestartClient => self.restart()?,
        }
        Ok(())
    }

    /// Edits stop, a stream stands, everything on its way arrives: then all must agree.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.open();
        self.publish()?;
        let mut rounds = 0;
        loop {
            while self.link.as_ref().is_some_and(|link| !link.copies.is_empty()) {
                self.copy()?;
            }
            self.speak();
            let Some(link) = &mut self.link else {
                return Err("no stream".to_owned());
            };
            let (up, down) = (std::mem::take(&mut link.up), std::mem::take(&mut link.down));
            if up.is_empty() && down.is_empty() {
                if !link.session.is_waiting() {
                    break;
                }
                link.session.stop_waiting(); // As a server does after a while.
                self.push()?;
                continue;
            }
            for request in up {
                self.up(request)?;
            }
            for response in down {
                self.down(response);
            }
            rounds += 1;
            if rounds > 1_000 {
                return Err("the exchange never ends".to_owned());
            }
        }
        while !self.ghosts.is_empty() {
            self.ghost();
        }
        self.agree()
    }

    fn agree(&self) -> Result<(), String> {
        let Some(link) = &self.link else {
            return Err("no stream".to_owned());
        };
        let mut wanted_any = false;
        for (kind, type_url) in TYPES.iter().enumerate() {
            let wishes = &self.wishes[kind];
            wanted_any |= wishes.all || !wishes.names.is_empty();
            let mut refused = BTreeSet::new();
            for (number, name) in NAMES.iter().enumerate() {
                let held = self.client.version(type_url, name);
                let used = self.inventory.0.get(&(type_url.to_string(), name.to_string()));
                if held != used.map(String::as_str) {
                    return Err(format!("{type_url} {name}: client holds {held:?}, handler uses {used:?}"));
                }
                let wanted = wishes.all || wishes.names.contains(&number);
                let offered = self.truth.get(&(kind, number)).filter(|_| wanted).map(|v| VERSIONS[*v]);
                if offered == Some(BAD) {
                    refused.insert(*name);
                    if held == Some(BAD) {
                        return Err(format!("{type_url} {name}: a refused version is held"));
                    }
                } else if held != offered {
                    return Err(format!("{type_url} {name}: offered {offered:?}, held {held:?}"));
                }
            }
            self.books(link, type_url, &refused)?;
        }
        if wanted_any && self.settled != Some(self.generation) {
            return Err(format!("generation {} is reported as {:?}", self.generation, self.settled));
        }
        Ok(())
    }

    /// What the server believes of the client.
    fn books(&self, link: &Link, type_url: &str, refused: &BTreeSet<&str>) -> Result<(), String> {
        let Some(latest) = link.latest.get(type_url) else {
            return Ok(());
        };
        let standing = link.session.standing(type_url).ok_or_else(|| format!("{type_url}: no standing"))?;
        if &standing.nonce != latest {
            return Err(format!("{type_url}: {latest} was sent, {} is booked", standing.nonce));
        }
        if Some(&standing.acked) != link.verdicts.get(latest) {
            return Err(format!("{type_url}: booked as acked: {}, the client says otherwise", standing.acked));
        }
        let booked: BTreeSet<&str> = standing.rejected.iter().map(|name| &**name).collect();
        if &booked != refused {
            return Err(format!("{type_url}: booked as refused {booked:?}, refused {refused:?}"));
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), String> {
        self.generation += 1;
        let mut view = Snapshot::new(self.generation).fresh(self.generation.to_string());
        for (kind, type_url) in TYPES.iter().enumerate() {
            let of_kind = self.truth.iter().filter(|((k, _), _)| *k == kind);
            let resource = |((_, name), version): (&(usize, usize), &usize)| {
                Resource::new(NAMES[*name], VERSIONS[*version], VERSIONS[*version])
            };
            view = view.with(type_url, of_kind.map(resource));
        }
        self.view = Arc::new(view);
        if let Some(link) = &mut self.link {
            link.session.publish(self.view.clone());
        }
        self.push()
    }

    fn open(&mut self) {
        if self.link.is_some() {
            return;
        }
        self.streams += 1;
        let epoch = StreamEpoch(self.streams);
        let rules = Arc::new(TypeRules::default());
        // Three resources fill a response, so that changes are split.
        let limits = Limits { response_bytes: 18, ..Limits::default() };
        let stream = StreamId(self.streams);
        let mut session = Session::new(stream, Encoding::Delta, rules, limits, self.view.clone());
        session.plant(self.faults);
        self.link = Some(Link::new(epoch, session));
        self.client.connected(epoch);
    }

    fn cut(&mut self) {
        if let Some(link) = self.link.take() {
            self.ghosts.extend(link.down.into_iter().map(|response| (link.epoch, response)));
            self.client.disconnected();
        }
    }

    fn restart(&mut self) -> Result<(), String> {
        self.cut();
        self.ghosts.clear(); // They were on their way to a process that is gone.
        let saved = Saved::decode(&self.client.saved().encode()).map_err(|e| e.to_string())?;
        self.inventory = Inventory::default();
        self.client = Subscriber::restore(Node::default(), saved, &mut self.inventory);
        self.client.plant(self.faults);
        Ok(())
    }

    fn speak(&mut self) {
        let Some(link) = &mut self.link else { return };
        while let Some(request) = self.client.next_request() {
            if !request.response_nonce.is_empty() {
                // A repeated response may be answered otherwise; the server counts the first answer.
                let acked = request.error_detail.is_none();
                link.verdicts.entry(request.response_nonce.clone()).or_insert(acked);
                let only_answer =
                    request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty();
                if only_answer {
                    link.last_answer = Some(request.clone());
                }
            }
            link.up.push_back(request);
        }
    }

    fn up(&mut self, request: DeltaDiscoveryRequest) -> Result<(), String> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        if link.unanswered.get(&request.type_url) == Some(&request.response_nonce) {
            link.unanswered.remove(&request.type_url);
        }
        link.session.delta_request(request).map_err(|violation| violation.to_string())?;
        self.push()
    }

    fn push(&mut self) -> Result<(), String> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        while let Some(response) = link.session.next_delta() {
            if let Some(first) = link.unanswered.insert(response.type_url.clone(), response.nonce.clone()) {
                return Err(format!("{} was sent while {first} was unanswered", response.nonce));
            }
            link.latest.insert(response.type_url.clone(), response.nonce.clone());
            link.down.push_back(response);
        }
        if let Some(Event::Settled { generation, .. }) = link.session.settlement() {
            self.settled = Some(generation);
        }
        Ok(())
    }

    fn down(&mut self, response: DeltaDiscoveryResponse) {
        let Some(link) = &mut self.link else { return };
        link.last_down = Some(response.clone());
        self.client.response(link.epoch, response, &mut self.inventory);
    }

    fn copy(&mut self) -> Result<(), String> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let Some(copy) = link.copies.pop_front() else {
            return Ok(());
        };
        // A copy never overtakes its original.
        let overtakes = link.up.iter().any(|request| request.response_nonce == copy.response_nonce);
        if overtakes { Ok(()) } else { self.up(copy) }
    }

    fn ghost(&mut self) {
        if let Some((epoch, response)) = self.ghosts.pop_front() {
            self.client.response(epoch, response, &mut self.inventory);
        }
    }
}

impl Link {
    fn new(epoch: StreamEpoch, session: Session) -> Self {
        Link {
            epoch,
            session,
            up: VecDeque::new(),
            down: VecDeque::new(),
            last_down: None,
            last_answer: None,
            copies: VecDeque::new(),
            unanswered: BTreeMap::new(),
            latest: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        }
    }
}

impl Handler for Inventory {
    fn apply(&mut self, update: Update<'_>) -> Vec<Rejection> {
        let mut refused = Vec::new();
        for resource in update.upserts {
            if *resource.version == *BAD {
                refused.push(Rejection::new(resource.name.clone(), "bad version"));
            } else {
                let key = (update.type_url.to_owned(), resource.name.to_string());
                self.0.insert(key, resource.version.to_string());
            }
        }
        for name in update.removed {
            self.0.remove(&(update.type_url.to_owned(), name.to_string()));
        }
        refused
    }
}
