//! State of the world, with a client of Envoy's kind: it asks for all clusters the old way, names endpoints after the
//! clusters it has, and drops the endpoints of clusters that go, since nothing else tells it.

use crate::server::{Encoding, Session, StreamId};
use crate::{Limits, Resource, ResourceView, Snapshot, TypeRules};
use fairlead_proto::ResourceType;
use fairlead_proto::discovery::{DiscoveryRequest, DiscoveryResponse};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const CLUSTERS: &str = ResourceType::Cluster.url();
const ENDPOINTS: &str = ResourceType::ClusterLoadAssignment.url();

#[derive(Clone, Debug)]
pub(super) enum Op {
    PutCluster(u8, u8),
    RemoveCluster(u8),
    PutEndpoints(u8, u8),
    Publish,
    Up,
    Down,
    Cut,
    Open,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let (name, version) = (0..4u8, 0..3u8);
    prop_oneof![
        4 => (name.clone(), version.clone()).prop_map(|(n, v)| Op::PutCluster(n, v)),
        3 => name.clone().prop_map(Op::RemoveCluster),
        4 => (name, version).prop_map(|(n, v)| Op::PutEndpoints(n, v)),
        4 => Just(Op::Publish),
        8 => Just(Op::Up),
        8 => Just(Op::Down),
        1 => Just(Op::Cut),
        2 => Just(Op::Open),
    ]
}

/// Resources are `name@version` in bytes, by type and name.
type Held = BTreeMap<(&'static str, String), String>;

pub(super) struct World {
    truth: Held,
    generation: u64,
    view: Arc<dyn ResourceView>,
    client: Held,
    versions: BTreeMap<&'static str, String>,
    link: Option<Link>,
    streams: u64,
}

struct Link {
    session: Session,
    up: VecDeque<DiscoveryRequest>,
    down: VecDeque<DiscoveryResponse>,
    /// Latest nonce of endpoints; `None` before the first request for them.
    endpoints: Option<String>,
}

impl World {
    pub(super) fn new() -> Self {
        World {
            truth: Held::new(),
            generation: 0,
            view: Arc::new(Snapshot::new(0)),
            client: Held::new(),
            versions: BTreeMap::new(),
            link: None,
            streams: 0,
        }
    }

    pub(super) fn step(&mut self, op: &Op) {
        match *op {
            Op::PutCluster(name, version) => self.put(CLUSTERS, name, version),
            Op::RemoveCluster(name) => drop(self.truth.remove(&(CLUSTERS, format!("c{name}")))),
            Op::PutEndpoints(name, version) => self.put(ENDPOINTS, name, version),
            Op::Publish => self.publish(),
            Op::Up => {
                if let Some(request) = self.link.as_mut().and_then(|link| link.up.pop_front()) {
                    self.up(request);
                }
            }
            Op::Down => {
                if let Some(response) = self.link.as_mut().and_then(|link| link.down.pop_front()) {
                    self.down(response);
                }
            }
            Op::Cut => self.link = None,
            Op::Open => self.open(),
        }
    }

    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.open();
        self.publish();
        for _ in 0..1_000 {
            let Some(link) = &mut self.link else {
                return Err("no stream".to_owned());
            };
            if let Some(request) = link.up.pop_front() {
                self.up(request);
            } else if let Some(response) = link.down.pop_front() {
                self.down(response);
            } else if link.session.is_waiting() {
                link.session.stop_waiting(); // As a server does after a while.
                link.push();
            } else {
                let mut offered = self.truth.clone();
                let clusters = |name: &String| self.truth.contains_key(&(CLUSTERS, name.clone()));
                offered.retain(|(kind, name), _| *kind == CLUSTERS || clusters(name));
                let same = offered == self.client;
                return if same { Ok(()) } else { Err(format!("offered {offered:?}, held {:?}", self.client)) };
            }
        }
        Err("the exchange never ends".to_owned())
    }

    fn put(&mut self, kind: &'static str, name: u8, version: u8) {
        let name = format!("c{name}");
        self.truth.insert((kind, name.clone()), format!("{name}@{version}"));
    }

    fn publish(&mut self) {
        self.generation += 1;
        let of = |kind: &'static str| {
            let truth = self.truth.iter().filter(move |((k, _), _)| *k == kind);
            truth.map(|((_, name), body)| Resource::new(name.as_str(), body.as_str(), body.clone()))
        };
        let view = Snapshot::new(self.generation).with(CLUSTERS, of(CLUSTERS)).with(ENDPOINTS, of(ENDPOINTS));
        self.view = Arc::new(view);
        if let Some(link) = &mut self.link {
            link.session.publish(self.view.clone());
            link.push();
        }
    }

    fn open(&mut self) {
        if self.link.is_some() {
            return;
        }
        self.streams += 1;
        let (rules, limits) = (Arc::new(TypeRules::default()), Limits::default());
        let encoding = Encoding::StateOfTheWorld;
        let session = Session::new(StreamId(self.streams), encoding, rules, limits, self.view.clone());
        let first = DiscoveryRequest { type_url: CLUSTERS.to_owned(), ..Default::default() };
        let link = Link { session, up: [first].into(), down: VecDeque::new(), endpoints: None };
        self.link = Some(link);
        self.ask_for_endpoints();
    }

    fn up(&mut self, request: DiscoveryRequest) {
        let Some(link) = &mut self.link else { return };
        link.session.sotw_request(request).expect("no limit is near");
        link.push();
    }

    fn down(&mut self, response: DiscoveryResponse) {
        let full = response.type_url == CLUSTERS;
        let kind = if full { CLUSTERS } else { ENDPOINTS };
        if full {
            self.client.retain(|(kind, _), _| *kind != CLUSTERS);
        }
        for body in &response.resources {
            let body = String::from_utf8_lossy(body).into_owned();
            let name = body.split('@').next().unwrap_or_default().to_owned();
            if full || self.client.contains_key(&(CLUSTERS, name.clone())) {
                self.client.insert((kind, name), body);
            }
        }
        self.versions.insert(kind, response.version_info.clone());
        let Some(link) = &mut self.link else { return };
        if full {
            link.up.push_back(DiscoveryRequest {
                type_url: CLUSTERS.to_owned(),
                version_info: response.version_info,
                response_nonce: response.nonce,
                ..Default::default()
            });
            let clusters: Vec<String> = self.clusters();
            self.client.retain(|(kind, name), _| *kind == CLUSTERS || clusters.contains(name));
        } else {
            link.endpoints = Some(response.nonce);
        }
        self.ask_for_endpoints();
    }

    /// One request both acks endpoints and renews their names, as Envoy's does.
    fn ask_for_endpoints(&mut self) {
        let names = self.clusters();
        let Some(link) = &mut self.link else { return };
        if names.is_empty() && link.endpoints.is_none() {
            return;
        }
        link.up.push_back(DiscoveryRequest {
            type_url: ENDPOINTS.to_owned(),
            resource_names: names,
            response_nonce: link.endpoints.get_or_insert_default().clone(),
            version_info: self.versions.get(ENDPOINTS).cloned().unwrap_or_default(),
            ..Default::default()
        });
    }

    fn clusters(&self) -> Vec<String> {
        self.client.keys().filter(|(kind, _)| *kind == CLUSTERS).map(|(_, name)| name.clone()).collect()
    }
}

impl Link {
    fn push(&mut self) {
        while let Some(response) = self.session.next_sotw() {
            self.down.push_back(response);
        }
    }
}
