//! The one task that makes worlds: snapshots come in from discovery, observations from workers, probes from itself.
//!
//! It must never wait for traffic. Invariant: every change that matters to a request is in the published world (or its
//! balancers) before the workers are told of it.

use super::memory::{Changed, Memory};
use super::names::Names;
use super::probe::probe;
use super::trouble::Trouble;
use super::world::{Upstream, World};
use crate::shared::Shared;
use crate::worker::WorkerEvent;
use ahash::AHashMap;
use fairlead_engine::Snapshot;
use fairlead_engine::balance::{Balancer, Condition, EndpointState, Ramp};
use fairlead_engine::path::{Path, PathEvent};
use fairlead_engine::upstream::{ClusterKind, Endpoint, EndpointAddress, Endpoints, EnvoyCluster};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// State machines are looked at this often; the shortest of their own pauses.
const TICK: Duration = Duration::from_millis(250);
/// How often a gateway probes its peers' gateways (staleness contract).
const ROUTINE_PROBE: Duration = Duration::from_secs(2);
/// How often other proxies probe a path that nothing has come back over meanwhile: a path that is not used must be known to be
/// dead within 10 s of its death, too. One resumed handshake each time.
const IDLE_PROBE: Duration = Duration::from_secs(4);
/// Endpoints of a peer's locality that are probed on a flat network; when they are all dead, so is the locality.
const SAMPLES: usize = 3;

/// What the conductor is told.
pub enum Command {
    Snapshot(Arc<Snapshot>),
    /// A probe's result.
    Probed {
        address: SocketAddr,
        ok: bool,
    },
    /// What a name of an endpoint resolves to.
    Resolved {
        name: Arc<str>,
        addresses: Vec<IpAddr>,
    },
    /// Probe every path all the time and not only when in doubt (east-west gateways).
    ProbeAlways,
}

/// See the module.
pub struct Conductor {
    shared: Arc<Shared>,
    workers: Vec<UnboundedSender<WorkerEvent>>,
    commands: UnboundedSender<Command>,
    snapshot: Arc<Snapshot>,
    clusters: AHashMap<Arc<str>, Memory>,
    paths: BTreeMap<SocketAddr, Way>,
    names: Names,
    probe_always: bool,
}

struct Way {
    path: Path,
    cluster: Arc<str>,
    probing: bool,
    routine: Instant,
    /// On a flat network: the peer's locality it stands for.
    group: Option<Arc<str>>,
    /// Probed although nobody uses it.
    sample: bool,
}

impl Conductor {
    /// `commands` must lead back to the inbox given to [`Conductor::run`].
    pub fn new(
        shared: Arc<Shared>,
        workers: Vec<UnboundedSender<WorkerEvent>>,
        commands: UnboundedSender<Command>,
    ) -> Self {
        Self {
            shared,
            workers,
            commands,
            snapshot: Arc::default(),
            clusters: AHashMap::new(),
            paths: BTreeMap::new(),
            names: Names::default(),
            probe_always: false,
        }
    }

    /// Conducts until the inbox closes.
    pub async fn run(mut self, mut inbox: UnboundedReceiver<Command>, mut troubles: UnboundedReceiver<Trouble>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(trouble) = troubles.recv() => self.trouble(trouble),
                _ = tick.tick() => self.tick(Instant::now()),
            }
        }
    }

    /// Takes a snapshot into use and publishes the world made of it.
    pub fn take(&mut self, snapshot: Arc<Snapshot>) {
        let now = Instant::now();
        self.snapshot = snapshot.clone();
        self.names.watch(&snapshot, &self.shared.resolvers, &self.commands);
        self.find_paths();
        let mut changed = Changed::default();
        let mut upstreams = AHashMap::new();
        let mut before = std::mem::take(&mut self.clusters);
        for cluster in snapshot.clusters() {
            let mut memory = before.remove(&cluster.name).unwrap_or_else(Memory::new);
            let endpoints = self.names.endpoints(&snapshot, cluster);
            let same = memory.upstream.as_ref().filter(|old| {
                let untouched =
                    Arc::ptr_eq(&old.endpoints, &endpoints) || old.endpoints.is_empty() && endpoints.is_empty();
                Arc::ptr_eq(&old.cluster, cluster) && untouched
            });
            let upstream = match same {
                Some(same) => same.clone(),
                None => {
                    let (members, difference) = memory.update(cluster, &endpoints, now);
                    changed.merge(difference);
                    let balancer = self.balancer(cluster, &endpoints, &memory, now);
                    let new = Upstream::new(cluster.clone(), endpoints, members, memory.stats.clone(), balancer);
                    Arc::new(new)
                }
            };
            memory.upstream = Some(upstream.clone());
            upstreams.insert(cluster.name.clone(), upstream);
            self.clusters.insert(cluster.name.clone(), memory);
        }
        for gone in before.into_values() {
            changed.merge(gone.forget());
        }
        self.shared.world.publish(World { snapshot, upstreams });
        let counts = &self.shared.changes;
        counts.added.fetch_add(changed.added, Ordering::Relaxed);
        counts.removed.fetch_add(changed.removed, Ordering::Relaxed);
        counts.health.fetch_add(changed.health, Ordering::Relaxed);
        self.tell(WorkerEvent::World);
        for slot in changed.retired {
            self.tell(WorkerEvent::Retire(slot));
        }
        for slot in changed.left {
            self.tell(WorkerEvent::Left(slot));
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Snapshot(snapshot) => self.take(snapshot),
            Command::ProbeAlways => self.probe_always = true,
            Command::Resolved { name, addresses } => {
                if self.names.learn(&name, addresses) {
                    self.take(self.snapshot.clone());
                }
            }
            Command::Probed { address, ok } => {
                if let Some(way) = self.paths.get_mut(&address) {
                    way.probing = false;
                }
                self.path_event(address, if ok { PathEvent::ProbeOk } else { PathEvent::ProbeFailed });
            }
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Path { address, event } => self.path_event(address, event),
            Trouble::Outlier { cluster, endpoint, cause } => {
                let Some(memory) = self.clusters.get_mut(&cluster) else { return };
                let Some(detector) = &mut memory.detector else { return };
                if detector.report(&endpoint, cause, Instant::now(), fastrand::u64(..)) {
                    tracing::info!(%cluster, %endpoint, ?cause, "endpoint ejected");
                    self.rebalance(|upstream| upstream.cluster.name == cluster);
                }
            }
        }
    }

    fn path_event(&mut self, address: SocketAddr, event: PathEvent) {
        let now = Instant::now();
        let Some(way) = self.paths.get_mut(&address) else { return };
        let was_down = way.path.is_down();
        if !way.path.on(event, now) {
            return;
        }
        tracing::info!(%address, cluster = %way.cluster, ?event, state = ?way.path.state(), "path changed");
        self.path_changed(address, was_down);
        self.send_probes(now);
    }

    fn path_changed(&mut self, address: SocketAddr, was_down: bool) {
        let Some(way) = self.paths.get(&address) else { return };
        self.shared.paths.set(address, way.path.state());
        let is_down = way.path.is_down();
        if was_down && !is_down {
            // The other ways to that cluster come back with it, or are looked at now.
            let (now, cluster) = (Instant::now(), way.cluster.clone());
            for other in self.paths.values_mut().filter(|other| other.cluster == cluster) {
                other.path.on(PathEvent::ReportedUp, now);
            }
        }
        // First what is chosen from, then who must choose again.
        self.rebalance(leads_elsewhere);
        if is_down && !was_down {
            self.tell(WorkerEvent::PathDown(address));
        }
    }

    fn tick(&mut self, now: Instant) {
        let mut ramps = false;
        let mut changed = Vec::new();
        for (address, way) in &mut self.paths {
            let was_down = way.path.is_down();
            ramps |= !way.path.ramp(now).is_full();
            if way.path.tick(now) {
                changed.push((*address, was_down));
            }
        }
        for (address, was_down) in changed {
            self.path_changed(address, was_down);
        }
        if ramps {
            self.rebalance(leads_elsewhere);
        }
        let mut back = Vec::new();
        for (name, memory) in &mut self.clusters {
            if let Some(detector) = &mut memory.detector
                && !detector.sweep(now).is_empty()
            {
                back.push(name.clone());
            }
        }
        for name in back {
            self.rebalance(|upstream| upstream.cluster.name == name);
        }
        self.send_probes(now);
    }

    fn send_probes(&mut self, now: Instant) {
        for (address, way) in &mut self.paths {
            let pause = if self.probe_always { ROUTINE_PROBE } else { IDLE_PROBE };
            let used =
                !self.probe_always && self.shared.paths.silent_for(*address).is_some_and(|silent| silent < pause);
            let routine = way.sample && !used && now.saturating_duration_since(way.routine) >= pause;
            if way.probing || !(way.path.wants_probe(now) || routine) {
                continue;
            }
            if way.path.wants_probe(now) {
                way.path.probe_sent(now);
            }
            way.probing = true;
            way.routine = now;
            let (address, cluster, commands) = (*address, way.cluster.clone(), self.commands.clone());
            let (identity, mark) = (self.shared.identity.clone(), self.shared.mark);
            tokio::spawn(async move {
                let ok = probe(identity, address, &cluster, mark).await;
                // The conductor may have ended.
                let _ = commands.send(Command::Probed { address, ok });
            });
        }
    }

    /// Paths are the addresses of gateway hops, and endpoints of other clusters that are reached directly over mesh TLS.
    fn find_paths(&mut self) {
        let wanted = wanted_paths(&self.snapshot, &self.shared.own.cluster);
        self.paths.retain(|address, _| wanted.contains_key(address));
        self.shared.paths.keep(|address| wanted.contains_key(address));
        let mut samples: AHashMap<Arc<str>, usize> = AHashMap::new();
        for (address, (cluster, group)) in wanted {
            self.shared.paths.add(address, &cluster);
            let sample = match &group {
                None => true,
                Some(group) => {
                    let taken = samples.entry(group.clone()).or_default();
                    *taken += 1;
                    *taken <= SAMPLES
                }
            };
            // Not all proxies that were told of a peer at once probe it at once.
            let jitter = Duration::from_millis(fastrand::u64(..IDLE_PROBE.as_millis() as u64));
            let way = self.paths.entry(address).or_insert_with(|| Way {
                path: Path::new(),
                cluster: cluster.clone(),
                probing: false,
                routine: Instant::now().checked_sub(jitter).unwrap_or_else(Instant::now),
                group: None,
                sample,
            });
            (way.cluster, way.group, way.sample) = (cluster, group, sample);
        }
    }

    /// On a flat network a peer's locality is dead when all its samples are.
    fn group_is_down(&self, group: &Arc<str>) -> bool {
        let mut samples = self.paths.values().filter(|way| way.sample && way.group.as_ref() == Some(group)).peekable();
        samples.peek().is_some() && samples.all(|way| way.path.is_down())
    }

    /// How far a peer's locality has come back: as far as the first of its samples that did.
    fn group_ramp(&self, way: &Way, now: Instant) -> Ramp {
        let samples = self.paths.values().filter(|other| other.sample && other.group == way.group);
        samples.filter(|other| !other.path.is_down()).map(|other| other.path.ramp(now)).max().unwrap_or(Ramp::FULL)
    }

    /// Builds new balancers for the Envoy clusters that `which` names; endpoints that became unusable lose their waiting
    /// attempts.
    fn rebalance(&self, which: impl Fn(&Upstream) -> bool) {
        let now = Instant::now();
        // Hops first: endpoints behind them look at paths only, but requests read both.
        for memory in self.clusters.values() {
            let Some(upstream) = memory.upstream.as_ref().filter(|upstream| which(upstream)) else { continue };
            let balancer = self.balancer(&upstream.cluster, &upstream.endpoints, memory, now);
            let old = upstream.balancer.swap(Arc::new(balancer));
            let new = upstream.balancer.load();
            for member in &upstream.members {
                let state = |b: &Balancer| b.condition(member.index).map(|condition| condition.state);
                if state(&old) != Some(EndpointState::PathDown) && state(&new) == Some(EndpointState::PathDown) {
                    self.tell(WorkerEvent::Left(member.state.slot));
                }
            }
        }
    }

    fn balancer(&self, cluster: &Arc<EnvoyCluster>, endpoints: &Endpoints, memory: &Memory, now: Instant) -> Balancer {
        let condition = |_: usize, endpoint: &Arc<Endpoint>| {
            let ejected = memory.detector.as_ref().is_some_and(|detector| detector.is_ejected(&endpoint.key));
            let (down, ramp) = self.way_to(endpoint, now);
            Condition::new(EndpointState::of(endpoint.health, ejected, down), ramp)
        };
        Balancer::build(cluster, endpoints, condition, fastrand::u64(..))
    }

    /// Whether the way to an endpoint is down, and how far it has come back.
    fn way_to(&self, endpoint: &Endpoint, now: Instant) -> (bool, Ramp) {
        match &endpoint.address {
            EndpointAddress::Socket(address) => match self.paths.get(address) {
                Some(way) => {
                    let silent = || self.shared.paths.silent_for(*address).is_none_or(|silent| silent >= IDLE_PROBE);
                    let with_all = || way.group.as_ref().is_some_and(|group| self.group_is_down(group)) && silent();
                    let ramp =
                        if way.sample { way.path.ramp(now) } else { way.path.ramp(now).min(self.group_ramp(way, now)) };
                    (way.path.is_down() || with_all(), ramp)
                }
                None => (false, Ramp::FULL),
            },
            EndpointAddress::Named { .. } => (false, Ramp::FULL),
            EndpointAddress::Gateway { hop, .. } => {
                let cluster = self.snapshot.cluster(hop);
                let Some(gateways) = cluster.and_then(|cluster| self.snapshot.endpoints_of(cluster)) else {
                    return (true, Ramp::FULL);
                };
                // A cluster keeps its share while one of its gateways lives.
                let living = gateways.iter().filter_map(|gateway| match &gateway.address {
                    EndpointAddress::Socket(address) => match self.paths.get(address) {
                        Some(way) if way.path.is_down() => None,
                        Some(way) => Some(way.path.ramp(now)),
                        None => Some(Ramp::FULL),
                    },
                    EndpointAddress::Named { .. } | EndpointAddress::Gateway { .. } => None,
                });
                match living.max() {
                    Some(ramp) => (false, ramp),
                    None => (true, Ramp::FULL),
                }
            }
        }
    }

    fn tell(&self, event: WorkerEvent) {
        for worker in &self.workers {
            // A worker that has ended needs no news.
            let _ = worker.send(event.clone());
        }
    }
}

/// Addresses, the cluster each leads to, and on a flat network the locality each is in.
fn wanted_paths(snapshot: &Snapshot, own: &str) -> BTreeMap<SocketAddr, (Arc<str>, Option<Arc<str>>)> {
    let mut wanted = BTreeMap::new();
    if snapshot.clusters().any(|cluster| cluster.unjudged) {
        // Profile istio: what does not answer is found out by failing calls, if outlier detection is asked for.
        return wanted;
    }
    for cluster in snapshot.clusters() {
        let Some(endpoints) = snapshot.endpoints_of(cluster) else { continue };
        let hop_to = hop_cluster(&cluster.name);
        for endpoint in endpoints.iter() {
            let EndpointAddress::Socket(address) = endpoint.address else { continue };
            let leads_to = match (hop_to, endpoint.cluster()) {
                (Some(hop), _) => (Arc::from(hop), None),
                (None, Some(told)) if **told != *own && cluster.is_mesh_tls(endpoint) => {
                    let group = format!("{told} {}", endpoint.locality);
                    (told.clone(), Some(group.into()))
                }
                _ => continue,
            };
            // What an endpoint says of itself does not change whose gateway an address is.
            match wanted.entry(address) {
                Entry::Occupied(known) if hop_to.is_none() && known.get().1.is_none() => {}
                entry => drop(entry.insert_entry(leads_to)),
            }
        }
    }
    wanted
}

/// `gateway|NETWORK|CLUSTER` names the cluster it leads to.
fn hop_cluster(name: &str) -> Option<&str> {
    name.strip_prefix("gateway|")?.split_once('|').map(|(_, cluster)| cluster)
}

/// Whether paths matter to an Envoy cluster: it is a gateway, or has endpoints in other clusters.
fn leads_elsewhere(upstream: &Upstream) -> bool {
    !matches!(upstream.cluster.kind, ClusterKind::OriginalDst)
        && (hop_cluster(&upstream.cluster.name).is_some()
            || upstream
                .endpoints
                .iter()
                .any(|endpoint| endpoint.gateway_hop().is_some() || endpoint.cluster().is_some()))
}
