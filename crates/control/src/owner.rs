//! The one task that owns all state: takes events, coalesces, resolves, publishes.
//!
//! Invariants: an endpoint that goes is never delayed behind more than one coalescing window; each proxy has one view at a time and
//! slow ones skip to the newest; nothing here waits for a peer or a proxy.

use crate::event::Event;
use crate::peers::Peers;
use crate::proxies::{PeerStream, ProxyStream, Taken};
use crate::store::Bucket;
use crate::world::{PeerState, ReportState, World};
use fairlead_model::{ClientKind, ClusterId, WorkloadRef};
use fairlead_peering::PeerView;
use fairlead_proto::{JsonResource, ResourceType};
use fairlead_resources::{Object, decode};
use fairlead_xds::{Resource, ResourceView, Resources, Snapshot};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Changes within this window are resolved together.
const COALESCE: Duration = Duration::from_millis(8);

pub struct Owner {
    pub world: World,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub peers: Peers,
}

impl Owner {
    /// Runs until every sender of events is gone.
    pub async fn run(mut self) {
        loop {
            let now = Instant::now();
            let deadline = self.world.next_deadline(now).unwrap_or(now + Duration::from_secs(3600));
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = tokio::time::sleep_until(deadline.into()) => Some(Event::Membership),
            };
            let Some(event) = event else { return };
            let mut changed = self.take(event);
            if changed {
                let until = tokio::time::Instant::now() + COALESCE;
                while let Ok(Some(event)) = tokio::time::timeout_at(until, self.events.recv()).await {
                    self.take(event);
                }
            } else {
                while let Ok(event) = self.events.try_recv() {
                    changed |= self.take(event);
                }
            }
            if changed && self.world.is_known() {
                self.publish();
            }
        }
    }

    /// Whether the mesh must be resolved again.
    fn take(&mut self, event: Event) -> bool {
        let now = Instant::now();
        let world = &mut self.world;
        match event {
            Event::Objects(objects) => world.objects = objects,
            Event::MeshFile(bytes) => read_mesh(world, bytes),
            Event::Peer(update) => {
                if let Err(e) = world.authority.absorb(&update.statements) {
                    tracing::error!(peer = %update.cluster, "membership cannot be kept: {e:#}");
                }
                if let Err(e) = world.authority.store().save(Bucket::Peers, update.cluster.as_str(), &*update.summary) {
                    tracing::error!(peer = %update.cluster, "its summary cannot be kept: {e:#}");
                }
                let peer = world.peers.entry(update.cluster).or_insert_with(|| PeerState::new(now));
                peer.summary = Some(update.summary);
                peer.updated = Some(now);
            }
            Event::PeerLink { cluster, connected } => {
                let peer = world.peers.entry(cluster).or_insert_with(|| PeerState::new(now));
                let was_stale = peer.lease.is_stale(now);
                peer.connected = connected;
                if connected {
                    peer.lease.connected(now);
                } else {
                    peer.lease.disconnected(now);
                }
                return was_stale;
            }
            Event::Membership => {}
            Event::ProxyConnected { stream, workload, identity, client, version, reply } => {
                let _ = reply.send(self.connect_proxy(stream, workload, identity, client, version));
                return false;
            }
            Event::PeerConnected { stream, cluster, reply } => {
                let view = self.peer_view(&cluster);
                let (views, receiver) = watch::channel(view);
                self.world.streams.peers.insert(stream, PeerStream { cluster, views });
                let _ = reply.send(receiver);
                return false;
            }
            Event::Settled { stream, generation, rejected } => {
                if let Some(proxy) = world.streams.proxies.get_mut(&stream) {
                    proxy.taken.settled(generation, rejected);
                }
                return false;
            }
            Event::Nacked { stream, names, detail } => {
                if let Some(proxy) = world.streams.proxies.get_mut(&stream) {
                    tracing::warn!(workload = %proxy.workload, "refused {}: {detail}", names.join(", "));
                    proxy.taken.nacked(&names, &detail);
                }
                return false;
            }
            Event::Disconnected { stream } => {
                world.streams.proxies.remove(&stream);
                world.streams.peers.remove(&stream);
                return false;
            }
            Event::Status { workload, status } => return take_status(world, workload, status, now),
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

    fn publish(&mut self) {
        let begun = Instant::now();
        let world = &mut self.world;
        world.resolve(begun);
        self.peers.follow(&world.authority.peers());
        let Some(resolved) = &world.resolved else { return };
        let generation = resolved.mesh.generation;
        let update = world.authority.update_me(|me| {
            let mut networks: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for gateway in &resolved.state.member.gateways {
                networks.entry(gateway.network.to_string()).or_default().push(gateway.address.to_string());
            }
            me.networks = networks;
        });
        if let Err(e) = update {
            tracing::error!("this cluster's own record cannot be kept: {e:#}");
        }
        let ids: Vec<_> = self.world.streams.proxies.keys().copied().collect();
        for id in ids {
            let Some((workload, identity, client)) = self.world.streams.proxies.get(&id).map(|p| (p.workload.clone(), p.identity.clone(), p.client))
            else {
                continue;
            };
            let Some(view) = self.proxy_view(&workload, &identity, client) else { continue };
            if let Some(proxy) = self.world.streams.proxies.get_mut(&id) {
                proxy.taken.offered = generation;
                proxy.views.send_replace(view);
            }
        }
        let peers: Vec<_> = self.world.streams.peers.iter().map(|(id, p)| (*id, p.cluster.clone())).collect();
        for (id, cluster) in peers {
            let view = self.peer_view(&cluster);
            if let Some(peer) = self.world.streams.peers.get(&id) {
                peer.views.send_replace(view);
            }
        }
        tracing::debug!(generation, took = ?begun.elapsed(), "published");
    }

    fn connect_proxy(
        &mut self,
        stream: fairlead_xds::server::StreamId,
        workload: WorkloadRef,
        identity: String,
        client: ClientKind,
        version: String,
    ) -> Result<watch::Receiver<Arc<dyn ResourceView>>, String> {
        let view = self
            .proxy_view(&workload, &identity, client)
            .ok_or_else(|| format!("{workload} is no workload that this control plane knows (yet)"))?;
        let taken = Taken { offered: view.generation(), ..Taken::default() };
        let (views, receiver) = watch::channel(view);
        self.world
            .streams
            .proxies
            .insert(stream, ProxyStream { workload, identity, client, version, views, taken });
        Ok(receiver)
    }

    /// Everything one proxy may see.
    fn proxy_view(&self, workload: &WorkloadRef, identity: &str, client: ClientKind) -> Option<Arc<dyn ResourceView>> {
        let world = &self.world;
        let resolved = world.resolved.as_ref()?;
        let proxy = world.describe(workload, identity, client)?;
        let mut by_type: BTreeMap<&'static str, Resources> = BTreeMap::new();
        for generated in fairlead_xdsgen::generate(&resolved.mesh, &proxy, &world.memo) {
            let resource = Resource::new(generated.name.to_string(), &*generated.version, generated.body.clone());
            by_type.entry(generated.kind.url()).or_default().insert(resource);
        }
        let mut snapshot = Snapshot::new(resolved.mesh.generation);
        for (url, resources) in by_type {
            snapshot = snapshot.share(url, Arc::new(resources));
        }
        snapshot = snapshot.with(ResourceType::TrustBundles.url(), self.trust_resource());
        Some(Arc::new(snapshot))
    }

    fn trust_resource(&self) -> Option<Resource> {
        let trust = self.world.authority.trust();
        let json = trust.to_json().ok()?;
        let body = JsonResource::new(1, json.into_bytes()).to_any_bytes(ResourceType::TrustBundles);
        Some(Resource::new("trust", format!("{:016x}", trust.epoch()).as_str(), body))
    }

    fn peer_view(&self, cluster: &ClusterId) -> Arc<dyn ResourceView> {
        let statements = self.world.authority.statements();
        let generation = self.world.resolved.as_ref().map_or(0, |r| r.mesh.generation);
        match self.world.summary_for(cluster) {
            Some(summary) => Arc::new(PeerView::new(generation, &summary, &statements)),
            None => Arc::new(Snapshot::new(generation)),
        }
    }
}

fn take_status(
    world: &mut World,
    workload: WorkloadRef,
    status: Option<fairlead_model::report::ProxyStatus>,
    now: Instant,
) -> bool {
    let Some(status) = status else {
        if let Some(report) = world.reports.get_mut(&workload) {
            report.streams = report.streams.saturating_sub(1);
            if report.streams == 0 {
                report.ended = Some(now);
            }
        }
        return false;
    };
    let mut changed = false;
    for (cluster, up) in &status.paths {
        if let Some(peer) = world.peers.get_mut(cluster) {
            changed |= peer.path != Some(*up);
            peer.path = Some(*up);
        }
    }
    match world.reports.get_mut(&workload) {
        Some(report) => {
            changed |= report.status.ready != status.ready
                || report.status.draining != status.draining
                || report.ended.is_some();
            if report.ended.take().is_some() || report.streams == 0 {
                report.streams += 1;
            }
            report.status = status;
        }
        None => {
            world.reports.insert(workload, ReportState { status, streams: 1, ended: None });
            changed = true;
        }
    }
    changed
}

/// The mesh object; one that cannot be read keeps the last good.
fn read_mesh(world: &mut World, bytes: Option<Vec<u8>>) {
    let Some(bytes) = bytes else {
        world.mesh = None;
        world.mesh_diagnostics.clear();
        return;
    };
    let decoding = decode(&world.cluster, &"mesh.yaml".into(), &bytes);
    let mesh = decoding.objects.into_iter().find_map(|d| match d.object {
        Object::Mesh(mesh) => Some(mesh),
        _ => None,
    });
    if mesh.is_some() {
        world.mesh = mesh;
    }
    world.mesh_diagnostics = decoding.diagnostics;
}
