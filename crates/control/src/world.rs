//! All state of a control plane, and what is resolved from it.
//!
//! Owned by one task. Invariants: equal inputs resolve to equal meshes, so a restart changes no version; a peer that never answered
//! is unknown, one that stopped answering keeps its last summary, marked stale.

use crate::authority::{Authority, TrustSettings};
use crate::proxies::Streams;
use crate::store::Bucket;
use fairlead_identity::NamespaceBound;
use fairlead_model::report::ProxyStatus;
use fairlead_model::summary::{ClusterSummary, PeerStatus};
use fairlead_model::{ClientKind, ClusterId, Diagnostic, Health, MemberState, ProxyDescription, ProxyRole, ResolvedMesh, WorkloadRef};
use fairlead_peering::Lease;
use fairlead_resolve::view::Peers;
use fairlead_resolve::{ClusterInput, ClusterState, ObjectRef, Observed, ViewInput};
use fairlead_resources::Object;
use fairlead_resources::fairlead::{Mesh, Peer, TrustMode};
use fairlead_sources::ClusterObjects;
use fairlead_xdsgen::Memo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A report outlives its stream by this (staleness contract).
const REPORT_GRACE: Duration = Duration::from_secs(10);

/// Names that are gone whose virtual IPs are still kept; the range holds 65,534.
const VIRTUAL_IPS_OF_THE_GONE: usize = 8_192;

pub struct World {
    pub authority: Arc<Authority>,
    pub cluster: ClusterId,
    /// The mesh's name when its object has none.
    pub name: String,
    pub mesh: Option<Mesh>,
    pub mesh_diagnostics: Vec<Diagnostic>,
    pub objects: ClusterObjects,
    pub peers: BTreeMap<ClusterId, PeerState>,
    pub reports: BTreeMap<WorkloadRef, ReportState>,
    pub draining: bool,
    pub streams: Streams,
    pub memo: Memo,
    pub resolved: Option<Resolved>,
    generation: u64,
    addresses: BTreeMap<WorkloadRef, IpAddr>,
    virtual_ips: BTreeMap<String, Ipv4Addr>,
}

pub struct PeerState {
    pub summary: Option<Arc<ClusterSummary>>,
    pub lease: Lease,
    pub connected: bool,
    /// From gateways' probes; `None`: not probed.
    pub path: Option<bool>,
    /// When the last update came.
    pub updated: Option<Instant>,
}

pub struct ReportState {
    pub status: ProxyStatus,
    /// Streams that stand, and since when none does.
    pub streams: usize,
    pub ended: Option<Instant>,
}

/// The last resolution.
#[derive(Clone)]
pub struct Resolved {
    pub mesh: Arc<ResolvedMesh>,
    pub state: Arc<ClusterState>,
    pub diagnostics: Arc<Vec<Diagnostic>>,
}

impl PeerState {
    pub fn new(now: Instant) -> Self {
        Self { summary: None, lease: Lease::new(now), connected: false, path: None, updated: None }
    }

    pub fn status(&self, now: Instant) -> PeerStatus {
        PeerStatus { stale: self.lease.is_stale(now), unreachable: self.path == Some(false) }
    }
}

impl World {
    pub fn new(authority: Arc<Authority>, name: String) -> anyhow::Result<Self> {
        let store = authority.store().clone();
        let now = Instant::now();
        let revoked = authority.revoked();
        let mut peers = BTreeMap::new();
        for (cluster, summary) in store.all::<ClusterSummary>(Bucket::Peers)? {
            if !revoked.contains(&cluster) {
                let state = PeerState { summary: Some(Arc::new(summary)), ..PeerState::new(now) };
                peers.insert(cluster.into(), state);
            }
        }
        Ok(Self {
            cluster: authority.ca().cluster().into(),
            name,
            mesh: None,
            mesh_diagnostics: Vec::new(),
            objects: ClusterObjects { unavailable: Some("not read yet".into()), ..ClusterObjects::default() },
            peers,
            reports: BTreeMap::new(),
            draining: store.load(Bucket::Switches, "draining")?.unwrap_or(false),
            streams: Streams::default(),
            memo: Memo::default(),
            resolved: None,
            generation: 0,
            addresses: BTreeMap::new(),
            virtual_ips: store.all(Bucket::VirtualIps)?.into_iter().collect(),
            authority,
        })
    }

    /// Whether the cluster's own objects were ever read.
    pub fn is_known(&self) -> bool {
        self.objects.unavailable.is_none() || !self.objects.objects.is_empty()
    }

    /// Resolves everything anew; what did not change is shared with the resolution before.
    pub fn resolve(&mut self, now: Instant) {
        self.follow_members(now);
        let objects: Vec<ObjectRef<'_>> =
            self.objects.objects.iter().map(|o| ObjectRef { decoded: &o.decoded, file: &o.file }).collect();
        let members: BTreeSet<ClusterId> =
            self.peers.keys().cloned().chain([self.cluster.clone()]).collect();
        let settings = fairlead_resolve::settings(&self.name, self.mesh.as_ref(), &members, &objects);
        let observed = Observed {
            health: self.health(now),
            workload_addresses: self.addresses.clone(),
            state: if self.draining { MemberState::Draining } else { MemberState::Active },
            incarnation: self.authority.me().incarnation,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let input = ClusterInput { cluster: &self.cluster, settings: &settings, objects: &objects, observed: &observed };
        let (state, mut diagnostics) = fairlead_resolve::cluster(&input);
        self.addresses = state.workload_addresses();
        let told = |peer: &PeerState| Some((peer.summary.as_deref()?.clone(), peer.status(now)));
        let peers: Peers = self.peers.iter().filter_map(|(cluster, peer)| Some((cluster.clone(), told(peer)?))).collect();
        self.generation += 1;
        let previous = self.resolved.as_ref().map(|r| r.mesh.clone());
        let view = ViewInput {
            state: &state,
            peers: &peers,
            generation: self.generation,
            previous: previous.as_deref(),
            kept: &self.virtual_ips,
        };
        let (mesh, found) = fairlead_resolve::view_with(&view);
        self.keep_virtual_ips(&mesh);
        diagnostics.extend(found);
        diagnostics.extend(self.objects.diagnostics.iter().cloned());
        diagnostics.extend(self.mesh_diagnostics.iter().cloned());
        diagnostics.sort();
        diagnostics.dedup();
        self.resolved =
            Some(Resolved { mesh: Arc::new(mesh), state: Arc::new(state), diagnostics: Arc::new(diagnostics) });
    }

    /// A name keeps its virtual IP over edits and restarts; names that are gone keep theirs while there is room.
    fn keep_virtual_ips(&mut self, mesh: &ResolvedMesh) {
        let given = fairlead_resolve::view::virtual_ips(mesh);
        let news: Vec<_> = given.iter().filter(|(host, ip)| self.virtual_ips.get(*host) != Some(*ip)).collect();
        if news.is_empty() {
            return;
        }
        let mut kept = given.clone();
        let gone = self.virtual_ips.iter().filter(|(host, _)| !given.contains_key(*host));
        kept.extend(gone.take(VIRTUAL_IPS_OF_THE_GONE).map(|(host, ip)| (host.clone(), *ip)));
        let entries: Vec<_> = kept.iter().map(|(host, ip)| (host.clone(), *ip)).collect();
        if let Err(e) = self.authority.store().replace(Bucket::VirtualIps, &entries) {
            tracing::error!("virtual IPs cannot be kept: {e:#}");
        }
        self.virtual_ips = kept;
    }

    /// What a peer is told.
    pub fn summary_for(&self, audience: &ClusterId) -> Option<ClusterSummary> {
        Some(fairlead_resolve::export(&self.resolved.as_ref()?.state, audience))
    }

    /// The description of a proxy that runs beside a workload of this cluster.
    pub fn describe(&self, workload: &WorkloadRef, identity: &str, client: ClientKind) -> Option<ProxyDescription> {
        use fairlead_model::mesh::GatewayKind;
        let found = self.resolved.as_ref()?.mesh.workloads.get(workload)?;
        Some(ProxyDescription {
            workload: workload.clone(),
            role: match found.gateway {
                None => ProxyRole::Sidecar,
                Some(GatewayKind::Ingress) => ProxyRole::Gateway,
                Some(GatewayKind::EastWest) => ProxyRole::EastWest,
            },
            client,
            network: found.network.clone(),
            locality: found.locality.clone(),
            addresses: found.addresses.clone(),
            labels: found.labels.clone(),
            service_account: found.service_account.clone(),
            identity: identity.to_owned(),
        })
    }

    /// Health by workload from reports; a program that was reported counts while its stream, or the grace, lives.
    fn health(&self, now: Instant) -> BTreeMap<WorkloadRef, Health> {
        let of = |report: &ReportState| {
            if report.ended.is_some_and(|ended| now.duration_since(ended) >= REPORT_GRACE) || !report.status.ready {
                Health::Unhealthy
            } else if report.status.draining {
                Health::Draining
            } else {
                Health::Healthy
            }
        };
        self.reports.iter().map(|(workload, report)| (workload.clone(), of(report))).collect()
    }

    /// The next moment at which something changes by time alone.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let reports = self.reports.values().filter_map(|r| r.ended).map(|ended| ended + REPORT_GRACE);
        let leases = self
            .peers
            .values()
            .filter(|p| !p.connected && !p.lease.is_stale(now))
            .map(|_| now + Duration::from_secs(1));
        reports.chain(leases).filter(|t| *t > now).min()
    }

    /// Peers that are no members any more are forgotten; what the objects say of peers is given to the authority.
    fn follow_members(&mut self, now: Instant) {
        let mut settings = TrustSettings {
            shared: self.mesh.as_ref().is_some_and(|m| m.spec.trust == Some(TrustMode::Shared)) || !self.authority.ca().is_root(),
            ..TrustSettings::default()
        };
        for peer in self.objects.objects.iter().filter_map(|o| as_peer(&o.decoded.object)) {
            if let Some(namespaces) = &peer.spec.namespaces {
                let bound = NamespaceBound::Only(namespaces.iter().cloned().collect());
                settings.namespaces.insert(peer.metadata.name.clone(), bound);
            }
            if peer.spec.revoked {
                settings.revoked.insert(peer.metadata.name.clone());
            }
        }
        if let Err(e) = self.authority.configure(settings) {
            tracing::error!("trust cannot be settled: {e:#}");
        }
        let members = self.authority.peers();
        self.peers.retain(|cluster, _| members.iter().any(|m| m.cluster == cluster.as_str()));
        for member in members {
            self.peers.entry(member.cluster.into()).or_insert_with(|| PeerState::new(now));
        }
    }
}

fn as_peer(object: &Object) -> Option<&Peer> {
    match object {
        Object::Peer(peer) => Some(peer),
        _ => None,
    }
}
