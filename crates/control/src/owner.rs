//! The one task that owns all state: takes events, coalesces, resolves; the publisher makes views of what was resolved.
//!
//! Invariants: a change waits for no more than one coalescing window and the resolution before it, whatever generating for proxies
//! costs; nothing here waits for a peer or a proxy; what changed nothing is published to nobody.

use crate::event::{Client, Event};
use crate::freshness::Known;
use crate::mesh_file::MeshFile;
use crate::peers::Peers;
use crate::publisher::{Edition, Publisher, Slot};
use crate::replicas::{self, Replicas};
use crate::store::Bucket;
use crate::streams::{Stream, Taken};
use crate::world::{PeerState, World};
use fairlead_identity::{VerifiedPeer, still_believed};
use fairlead_peering::{Lease, PeerUpdate};
use fairlead_proto::{JsonResource, ResourceType};
use fairlead_xds::Resource;
use fairlead_xds::server::{StreamId, Views};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

pub struct Owner {
    pub world: World,
    pub mesh_file: MeshFile,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub peers: Peers,
    pub replicas: Replicas,
    pub publisher: Publisher,
    pub published: Published,
}

/// What was published last.
#[derive(Default)]
pub struct Published {
    edition: u64,
    trust: Option<u64>,
    statements: Option<u64>,
    said: Arc<Vec<fairlead_identity::SignedStatement>>,
    /// What was known when it was, or since, if that changed nothing; none before the first.
    known: Option<Known>,
}

/// Events that change nothing are taken together up to this many, so that nobody keeps a change from being published.
const AT_ONCE: usize = 256;

impl Owner {
    /// Runs until every sender of events is gone.
    pub async fn run(mut self) {
        // Deadlines up to here were acted on. Not simply what lies behind now: one that passes while an event is handled is due.
        let mut acted = Instant::now();
        loop {
            let deadline =
                self.world.next_deadline(acted).unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = tokio::time::sleep_until(deadline.into()) => {
                    acted = Instant::now();
                    Some(Event::Membership)
                }
            };
            let Some(event) = event else { return };
            let mut heard = event.tells_of_sources();
            let mut changed = self.take(event);
            if changed {
                let until = tokio::time::Instant::now() + self.world.timings.coalesce;
                // The clock is asked too: a wait does not time out while there is always something to take.
                while tokio::time::Instant::now() < until
                    && let Ok(Some(event)) = tokio::time::timeout_at(until, self.events.recv()).await
                {
                    self.take(event);
                }
            } else {
                for _ in 0..AT_ONCE {
                    let Ok(event) = self.events.try_recv() else { break };
                    heard |= event.tells_of_sources();
                    changed |= self.take(event);
                }
            }
            if changed && self.world.is_complete() {
                self.publish();
            }
            if heard && !changed && self.published.known.is_some() {
                // Nothing waits to be published: all that was heard is in what was.
                self.published.known = Some(Known::of(&self.world));
            }
        }
    }

    /// Whether the mesh must be resolved again.
    fn take(&mut self, event: Event) -> bool {
        let now = Instant::now();
        let world = &mut self.world;
        match event {
            Event::Objects(objects) => world.take_objects(objects),
            Event::Cluster { objects, mesh, advertise } => {
                world.take_objects(objects);
                world.mesh = Some(mesh);
                if let Some(addresses) = advertise
                    && let Err(e) = world.authority.update_me(|me| me.control_addresses = addresses)
                {
                    tracing::error!("where peers reach this control plane cannot be kept: {e:#}");
                }
            }
            Event::MeshFile(found) => self.mesh_file.take(world, found),
            Event::LookedUp(addresses) => world.looked_up = addresses,
            Event::Peer(update) => return take_summary(world, update, now),
            Event::PeerLink { cluster, connected } => {
                let Some(peer) = world.peers.get_mut(&cluster) else { return false };
                let was_stale = peer.lease.is_stale(now);
                if connected {
                    peer.lease.connected(now);
                } else {
                    peer.lease.disconnected(now);
                }
                return was_stale;
            }
            Event::Membership => {}
            Event::Connected { stream, peer, client, freshness, reply } => {
                if let Client::Proxy { workload, .. } = &client
                    && world.streams.too_many(&client).is_none()
                    && let Some(why) = world.holds_back(workload, &freshness, self.published.known.as_ref(), now)
                {
                    let _ = reply.send(Err(format!("this control plane is older than what {workload} has: {why}")));
                    return false;
                }
                self.connect(stream, peer, client, reply);
                return false;
            }
            Event::Settled { stream, generation, rejected } => {
                if let Some(stream) = world.streams.get_mut(stream) {
                    stream.taken.settled(generation, rejected);
                }
                return false;
            }
            Event::Nacked { stream, names, detail } => {
                if let Some(stream) = world.streams.get_mut(stream) {
                    tracing::warn!(client = ?stream.slot.client, "refused {}: {detail}", names.join(", "));
                    stream.taken.nacked(&names, &detail);
                }
                return false;
            }
            Event::Disconnected { stream } => {
                world.streams.remove(stream);
                return false;
            }
            Event::Report { stream, workload, status } => return world.report(stream, workload, status, now),
            Event::Stored(buckets) => return world.reload(&buckets),
            Event::Drain(draining) => {
                world.draining = draining;
                if let Err(e) = world.authority.store().save(Bucket::Switches, "draining", &draining) {
                    tracing::error!("draining cannot be kept: {e:#}");
                }
            }
            Event::Ask(question) => {
                question(world);
                return false;
            }
        }
        true
    }

    fn connect(
        &mut self,
        stream: StreamId,
        peer: VerifiedPeer,
        client: Client,
        reply: oneshot::Sender<Result<Views, String>>,
    ) {
        if let Some(why) = self.world.streams.too_many(&client) {
            let _ = reply.send(Err(why));
            return;
        }
        let slot = Slot::new(client, reply);
        self.publisher.enqueue(slot.clone());
        self.world.streams.insert(stream, Stream { peer, slot, taken: Taken::default() });
    }

    fn publish(&mut self) {
        let begun = Instant::now();
        let mesh_changed = self.world.resolve(begun);
        self.tell_of_gateways();
        let world = &mut self.world;
        self.peers.follow(&world.authority.peers());
        if let Some(namespace) = &world.system_namespace {
            self.replicas.follow(&replicas::addresses(&world.objects.objects, namespace));
        }
        let trust = world.authority.trust();
        let trust_changed = self.published.trust.replace(trust.epoch()) != Some(trust.epoch());
        if trust_changed {
            let unbelieved = |stream: &&Stream| still_believed(&stream.peer, &trust).is_err();
            world.streams.iter().filter(unbelieved).for_each(|stream| stream.slot.dismiss());
            if !mesh_changed {
                world.next_generation();
            }
        }
        match world.authority.statements(self.published.statements) {
            Ok(Some((revision, statements))) => {
                self.published.statements = Some(revision);
                self.published.said = Arc::new(statements);
            }
            Ok(None) => {}
            Err(e) => tracing::error!("members cannot be told of: {e:#}"),
        }
        let known = Known::of(world);
        let Some(resolved) = &world.resolved else { return };
        self.published.edition = next_number(self.published.edition);
        let edition = Arc::new(Edition {
            number: self.published.edition,
            freshness: known.to_string().into(),
            mesh: resolved.mesh.clone(),
            state: resolved.state.clone(),
            trust: trust_resource(&trust),
            statements: self.published.said.clone(),
        });
        self.published.known = Some(known);
        let is_concerned = |stream: &&Stream| match stream.slot.client {
            Client::Proxy { .. } => mesh_changed || trust_changed,
            // What peers are told can change while the own mesh does not; who is told nothing new is left alone.
            Client::Peer { .. } => true,
        };
        self.publisher.publish(edition, world.streams.iter().filter(is_concerned).map(|s| s.slot.clone()));
        let generation = resolved.mesh.generation;
        tracing::debug!(generation, mesh_changed, trust_changed, took = ?begun.elapsed(), "resolved");
    }

    /// The own record carries the own gateways.
    fn tell_of_gateways(&self) {
        let Some(resolved) = &self.world.resolved else { return };
        let update = self.world.authority.update_me(|me| {
            let mut networks: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for gateway in &resolved.state.member.gateways {
                networks.entry(gateway.network.to_string()).or_default().push(gateway.address.to_string());
            }
            me.networks = networks;
        });
        if let Err(e) = update {
            tracing::error!("this cluster's own record cannot be kept: {e:#}");
        }
    }
}

/// Grows from edition to edition, and over restarts as long as the clock does not go back by more than the time in between.
fn next_number(last: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    now.max(last + 1)
}

fn take_summary(world: &mut World, update: PeerUpdate, now: Instant) -> bool {
    if !world.authority.peers().iter().any(|m| m.cluster == update.cluster.as_str()) {
        return false; // its stream is being closed
    }
    let mut changed = false;
    match world.authority.absorb(&update.statements) {
        Ok(news) => changed |= news,
        Err(e) => tracing::error!(peer = %update.cluster, "membership cannot be kept: {e:#}"),
    }
    let lease = world.timings.lease;
    let unknown = || PeerState { summary: None, lease: Lease::new(now, lease), ahead: None, told: None };
    let peer = world.peers.entry(update.cluster.clone()).or_insert_with(unknown);
    changed |= std::mem::replace(&mut peer.ahead, update.ahead) != update.ahead;
    if peer.summary.as_ref() != Some(&update.summary) {
        world.keeper.save(Bucket::Peers, update.cluster.as_str(), update.summary.clone());
        peer.summary = Some(update.summary);
        changed = true;
    }
    // After the summary: a crash between the two may leave the number too small, never too large.
    if update.told.is_some() && peer.told != update.told {
        world.keeper.save(Bucket::PeersTold, update.cluster.as_str(), update.told);
        peer.told = update.told;
    }
    changed
}

fn trust_resource(trust: &fairlead_identity::TrustBundleSet) -> Option<Resource> {
    let json = trust.to_json().inspect_err(|e| tracing::error!("the trust bundles cannot be written: {e}")).ok()?;
    let body = JsonResource::new(1, json.into_bytes()).to_any_bytes(ResourceType::TrustBundles);
    Some(Resource::new("trust", format!("{:016x}", trust.epoch()).as_str(), body))
}
