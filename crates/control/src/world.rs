//! All state of a control plane, and what is resolved from it.
//!
//! Owned by one task. Invariants: equal inputs resolve to equal meshes, so a restart changes no version, and a resolution that
//! changes nothing has no new generation; a peer that never answered is unknown, one that stopped answering keeps its last summary,
//! marked stale.

mod judgement;

pub use judgement::{ReportState, StoredReport};

use crate::authority::{Authority, Pin, TrustSettings};
use crate::codes;
use crate::freshness::HeldBack;
use crate::keeper::Keeper;
use crate::options::ControlTimings;
use crate::store::Bucket;
use crate::streams::Streams;
use fairlead_identity::NamespaceBound;
use fairlead_model::settings::Trust;
use fairlead_model::summary::{ClusterSummary, PeerStatus};
use fairlead_model::{ClusterId, Diagnostic, MemberState, ObjectKey, Origin, ResolvedMesh, WorkloadRef};
use fairlead_peering::{Heard, Lease};
use fairlead_resolve::gateways::names_of_load_balancers;
use fairlead_resolve::view::Peers;
use fairlead_resolve::{Before, ClusterInput, ClusterState, ObjectRef, Observed, Settings, ViewInput};
use fairlead_resources::Object;
use fairlead_resources::fairlead::{Admission, Mesh, Peer};
use fairlead_sources::{ClusterObjects, SourceObject};
use fairlead_xdsgen::Memo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Names that are gone whose virtual IPs are still kept; the range holds 65,534.
const VIRTUAL_IPS_OF_THE_GONE: usize = 8_192;

pub struct World {
    pub authority: Arc<Authority>,
    pub keeper: Arc<Keeper>,
    pub timings: ControlTimings,
    pub cluster: ClusterId,
    /// The mesh's name when its object has none.
    pub name: String,
    pub mesh: Option<Mesh>,
    pub mesh_diagnostics: Vec<Diagnostic>,
    pub objects: ClusterObjects,
    /// Of a Kubernetes cluster.
    pub system_namespace: Option<String>,
    pub peers: BTreeMap<ClusterId, PeerState>,
    pub reports: BTreeMap<WorkloadRef, ReportState>,
    pub draining: bool,
    pub streams: Streams,
    pub held_back: BTreeMap<WorkloadRef, HeldBack>,
    pub memo: Arc<Memo>,
    pub resolved: Option<Resolved>,
    /// Addresses of load balancers that have names only, by name.
    pub looked_up: BTreeMap<String, Vec<IpAddr>>,
    /// Those names, for whoever looks them up.
    pub names: watch::Sender<BTreeSet<String>>,
    /// What the own cluster was normalised of last.
    normalised: Option<Normalised>,
    addresses: BTreeMap<WorkloadRef, IpAddr>,
    virtual_ips: BTreeMap<String, Ipv4Addr>,
}

pub struct PeerState {
    pub summary: Option<Arc<ClusterSummary>>,
    pub lease: Lease,
    /// How far its wall clock is ahead of the own, in seconds.
    pub ahead: Option<i64>,
    /// How far it was heard, over restarts too.
    pub told: Option<Heard>,
}

/// Clocks that differ by more are reported: certificates are backdated 5 minutes, and creation times decide conflicts.
const CLOCKS_APART: u64 = 60;

/// The last resolution.
#[derive(Clone)]
pub struct Resolved {
    pub mesh: Arc<ResolvedMesh>,
    pub state: Arc<ClusterState>,
    pub diagnostics: Arc<Vec<Diagnostic>>,
}

/// What [`fairlead_resolve::cluster`] was given last, and what it said beside the state.
struct Normalised {
    objects: Vec<SourceObject>,
    settings: Settings,
    observed: Observed,
    diagnostics: Vec<Diagnostic>,
}

impl World {
    pub fn new(authority: Arc<Authority>, name: String, timings: ControlTimings) -> anyhow::Result<Self> {
        let store = authority.store().clone();
        let now = Instant::now();
        let revoked = authority.revoked();
        let mut told: BTreeMap<String, Heard> = store.all(Bucket::PeersTold)?.into_iter().collect();
        let mut peers = BTreeMap::new();
        for (cluster, summary) in store.all::<ClusterSummary>(Bucket::Peers)? {
            if !revoked.contains(&cluster) {
                let lease = Lease::new(now, timings.lease);
                let told = told.remove(&cluster);
                peers.insert(cluster.into(), PeerState { summary: Some(Arc::new(summary)), lease, ahead: None, told });
            }
        }
        let until = now + timings.restart_grace;
        let stored = store.all::<StoredReport>(Bucket::Reports)?.into_iter();
        let reports = stored.map(|(_, r)| (r.workload, ReportState::kept(r.status, until))).collect();
        Ok(Self {
            keeper: Arc::new(Keeper::new(store.clone())?),
            timings,
            cluster: authority.ca().cluster().into(),
            name,
            mesh: None,
            mesh_diagnostics: Vec::new(),
            objects: ClusterObjects { unavailable: Some("not read yet".into()), ..ClusterObjects::default() },
            system_namespace: None,
            peers,
            reports,
            draining: store.load(Bucket::Switches, "draining")?.unwrap_or(false),
            streams: Streams::default(),
            held_back: BTreeMap::new(),
            memo: Arc::default(),
            resolved: None,
            looked_up: BTreeMap::new(),
            names: watch::Sender::default(),
            normalised: None,
            addresses: BTreeMap::new(),
            virtual_ips: store.all(Bucket::VirtualIps)?.into_iter().collect(),
            authority,
        })
    }

    /// Takes what another replica has stored; whether anything follows from it.
    pub fn reload(&mut self, buckets: &BTreeSet<Bucket>) -> bool {
        let store = self.authority.store().clone();
        let mut changed = false;
        let outcome: anyhow::Result<()> = (|| {
            if buckets.contains(&Bucket::VirtualIps) {
                let stored = store.all(Bucket::VirtualIps)?.into_iter().collect();
                changed |= std::mem::replace(&mut self.virtual_ips, stored) != self.virtual_ips;
            }
            if buckets.contains(&Bucket::Switches) {
                let draining = store.load(Bucket::Switches, "draining")?.unwrap_or(false);
                changed |= std::mem::replace(&mut self.draining, draining) != draining;
            }
            let of_members = [Bucket::Membership, Bucket::DetachedHere, Bucket::Introduced];
            if of_members.iter().any(|bucket| buckets.contains(bucket)) {
                self.authority.reload()?;
                changed = true;
            }
            Ok(())
        })();
        if let Err(e) = outcome {
            tracing::error!("what another replica stored cannot be taken: {e:#}");
        }
        changed
    }

    /// Takes the cluster's own objects.
    pub fn take_objects(&mut self, objects: ClusterObjects) {
        let names = names_of_load_balancers(objects.objects.iter().map(|object| &object.decoded.object));
        self.names.send_if_modified(|wanted| std::mem::replace(wanted, names.clone()) != names);
        self.objects = objects;
    }

    /// Whether all is known that a first resolution must not be without: peers would be told that nobody reaches this cluster's gateways
    /// before their names were looked up.
    pub fn is_complete(&self) -> bool {
        let looked_up = || self.names.borrow().iter().all(|name| self.looked_up.contains_key(name));
        self.is_known() && (self.resolved.is_some() || looked_up())
    }

    /// Whether the cluster's own objects were ever read.
    pub fn is_known(&self) -> bool {
        self.objects.unavailable.is_none() || !self.objects.objects.is_empty()
    }

    /// Resolves everything anew; what did not change is shared with the resolution before. Whether anything did that a proxy or a
    /// peer may be told.
    pub fn resolve(&mut self, now: Instant) -> bool {
        let objects = refs(&self.objects.objects);
        let members: BTreeSet<ClusterId> = self.authority.peers().into_iter().map(|m| m.cluster.into()).collect();
        let members = members.into_iter().chain([self.cluster.clone()]).collect();
        let settings = fairlead_resolve::settings(&self.name, self.mesh.as_ref(), &members, &objects);
        let shared = settings.mesh.trust == Trust::Shared;
        let observed = Observed {
            health: self.health(now),
            kubelets: self.system_namespace.is_some(),
            workload_addresses: self.addresses.clone(),
            looked_up: self.looked_up.clone(),
            state: if self.draining { MemberState::Draining } else { MemberState::Active },
            incarnation: self.authority.me().incarnation,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let input =
            ClusterInput { cluster: &self.cluster, settings: &settings, objects: &objects, observed: &observed };
        let after = self.resolved.as_ref().zip(self.normalised.as_ref()).and_then(|(resolved, last)| {
            let old = refs(&last.objects);
            let before = Before {
                state: &resolved.state,
                diagnostics: &last.diagnostics,
                settings: &last.settings,
                observed: &last.observed,
                objects: &old,
            };
            fairlead_resolve::cluster_after(&input, &before)
        });
        let (state, mut diagnostics) = after.unwrap_or_else(|| {
            let (state, diagnostics) = fairlead_resolve::cluster(&input);
            match &self.resolved {
                Some(last) => (state.sharing(&last.state), diagnostics),
                None => (state, diagnostics),
            }
        });
        drop(objects);
        // Only processes are given addresses.
        let gives = self.objects.objects.iter().any(|o| matches!(o.decoded.object, Object::Workload(_)));
        self.addresses = if gives { state.workload_addresses() } else { BTreeMap::new() };
        let objects = self.objects.objects.clone();
        self.normalised = Some(Normalised { objects, settings, observed, diagnostics: diagnostics.clone() });
        self.follow_members(now, shared);
        let peers = self.told(&state, now);
        let previous = self.resolved.take();
        let first = previous.is_none();
        let generation = previous.as_ref().map_or(1, |r| r.mesh.generation);
        let view = ViewInput {
            state: &state,
            peers: &peers,
            generation,
            previous: previous.as_ref().map(|r| &*r.mesh),
            kept: &self.virtual_ips,
        };
        let (mut mesh, found) = fairlead_resolve::view_with(&view);
        self.keep_virtual_ips(&mesh);
        diagnostics.extend(found);
        diagnostics.extend(self.objects.diagnostics.iter().cloned());
        diagnostics.extend(self.mesh_diagnostics.iter().cloned());
        diagnostics.extend(self.about_members());
        diagnostics.sort();
        diagnostics.dedup();
        let unchanged = previous.filter(|last| is_equal(&last.mesh, &mesh));
        let changed = unchanged.is_none();
        let mesh = match unchanged {
            Some(last) => last.mesh,
            None => {
                mesh.generation += u64::from(!first);
                Arc::new(mesh)
            }
        };
        self.forget_reports(&state, now);
        self.resolved = Some(Resolved { mesh, state: Arc::new(state), diagnostics: Arc::new(diagnostics) });
        changed
    }

    /// A new generation of an equal mesh, for what travels beside it.
    pub fn next_generation(&mut self) {
        if let Some(resolved) = &mut self.resolved {
            let generation = resolved.mesh.generation + 1;
            resolved.mesh = Arc::new(ResolvedMesh { generation, ..(*resolved.mesh).clone() });
        }
    }

    /// What the peers told, and how each is judged now.
    fn told(&self, state: &ClusterState, now: Instant) -> Peers {
        let one = |(cluster, peer): (&ClusterId, &PeerState)| {
            let summary = peer.summary.as_deref()?.clone();
            let unreachable = self.path(cluster, &state.workloads, now) == Some(false);
            Some((cluster.clone(), (summary, PeerStatus { stale: peer.lease.is_stale(now), unreachable })))
        };
        self.peers.iter().filter_map(one).collect()
    }

    /// A name keeps its virtual IP over edits and restarts; names that are gone keep theirs while there is room.
    fn keep_virtual_ips(&mut self, mesh: &ResolvedMesh) {
        let given = fairlead_resolve::view::virtual_ips(mesh);
        if given.iter().all(|(host, ip)| self.virtual_ips.get(host) == Some(ip)) {
            return;
        }
        let gone = self.virtual_ips.iter().filter(|(host, _)| !given.contains_key(*host));
        let gone: Vec<_> = gone.take(VIRTUAL_IPS_OF_THE_GONE).map(|(host, ip)| (host.clone(), *ip)).collect();
        let entries: Vec<_> = given.into_iter().chain(gone).collect();
        if let Err(e) = self.authority.store().replace(Bucket::VirtualIps, &entries) {
            tracing::error!("virtual IPs cannot be kept: {e:#}");
        }
        self.virtual_ips = entries.into_iter().collect();
    }

    /// Peers that are no members any more are forgotten; what the objects say of peers is given to the authority.
    fn follow_members(&mut self, now: Instant, shared: bool) {
        let admission = self.mesh.as_ref().and_then(|m| m.spec.admission);
        let approve = admission == Some(Admission::Approve);
        let mut settings = TrustSettings { shared, approve, ..TrustSettings::default() };
        for peer in self.objects.objects.iter().filter_map(|o| as_peer(&o.decoded.object)) {
            let name = &peer.metadata.name;
            if let Some(namespaces) = &peer.spec.namespaces {
                let bound = NamespaceBound::Only(namespaces.iter().cloned().collect());
                settings.namespaces.insert(name.clone(), bound);
            }
            if peer.spec.revoked {
                settings.revoked.insert(name.clone());
            }
            if !peer.spec.addresses.is_empty() {
                settings.addresses.insert(name.clone(), peer.spec.addresses.clone());
            }
            let roots = peer.spec.root_fingerprints.iter().map(|root| root.to_ascii_lowercase()).collect();
            let pin = Pin { trust_domain: peer.spec.trust_domain.clone(), roots };
            if pin != Pin::default() {
                settings.pins.insert(name.clone(), pin);
            }
            settings.approved.insert(name.clone());
        }
        if let Err(e) = self.authority.configure(settings) {
            tracing::error!("trust cannot be settled: {e:#}");
        }
        let members = self.authority.peers();
        let (keeper, lease) = (&self.keeper, self.timings.lease);
        self.peers.retain(|cluster, _| {
            let is_member = members.iter().any(|m| m.cluster == cluster.as_str());
            if !is_member {
                keeper.remove(Bucket::Peers, cluster.as_str());
                keeper.remove(Bucket::PeersTold, cluster.as_str());
                keeper.remove(Bucket::PeerStreams, cluster.as_str());
            }
            is_member
        });
        for member in members {
            let unknown = || PeerState { summary: None, lease: Lease::new(now, lease), ahead: None, told: None };
            self.peers.entry(member.cluster.into()).or_insert_with(unknown);
        }
    }

    /// Members that are not believed or not let in.
    fn about_members(&self) -> Vec<Diagnostic> {
        let at = |kind: &str, name: &str| Origin {
            object: ObjectKey::new(self.cluster.clone(), kind, "", name),
            path: String::new(),
            file: "".into(),
            line: 0,
        };
        let conflicts = self.authority.conflicts().into_iter().map(|conflict| {
            let diagnostic = Diagnostic::error(codes::TRUST_CONFLICT, at("Mesh", &self.name), conflict.to_string());
            diagnostic.hint("`fairlead get clusters` lists the members and their trust domains")
        });
        let left_out = self.authority.not_admitted().into_iter().map(|(cluster, why)| {
            let message = format!("cluster {cluster} is a member of the mesh and is not let in here: {why}");
            let hint = format!("write a Peer object named {cluster} that fits it, or `fairlead detach {cluster}`");
            Diagnostic::warning(codes::NOT_ADMITTED, at("Peer", &cluster), message).hint(hint)
        });
        let apart = self.peers.iter().filter_map(|(cluster, peer)| {
            let message = clocks_apart(cluster, peer.ahead?)?;
            let hint = "set both clocks by the same time source; certificates and ties between exports depend on them";
            Some(Diagnostic::warning(codes::CLOCKS_APART, at("Peer", cluster.as_str()), message).hint(hint))
        });
        let unreadable = self.authority.store().unreadable().into_iter().map(|damage| {
            let message = format!("the control plane's state cannot be read: {}", damage.why);
            Diagnostic::error(codes::STATE_UNREADABLE, at("Secret", &damage.object), message).hint(damage.remedy())
        });
        conflicts.chain(left_out).chain(apart).chain(unreadable).collect()
    }
}

/// What is said of a peer whose clock is so many seconds ahead, if anything.
fn clocks_apart(cluster: &ClusterId, ahead: i64) -> Option<String> {
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let apart = ahead.unsigned_abs();
    (apart > CLOCKS_APART).then(|| format!("the clock of cluster {cluster} is {apart} s {way} this one's"))
}

fn refs(objects: &[SourceObject]) -> Vec<ObjectRef<'_>> {
    objects.iter().map(|o| ObjectRef { decoded: &o.decoded, file: &o.file }).collect()
}

/// But for the generation. Shared parts are equal at a glance.
fn is_equal(a: &ResolvedMesh, b: &ResolvedMesh) -> bool {
    a.cluster == b.cluster
        && a.settings == b.settings
        && a.members == b.members
        && a.services == b.services
        && a.workloads == b.workloads
        && a.routes == b.routes
        && a.gateways == b.gateways
}

fn as_peer(object: &Object) -> Option<&Peer> {
    match object {
        Object::Peer(peer) => Some(peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_a_minute_are_told() {
        let west = ClusterId::from("west");
        assert_eq!([0, 60, -60].map(|ahead| clocks_apart(&west, ahead)), [None, None, None]);
        assert_eq!(clocks_apart(&west, 61).unwrap(), "the clock of cluster west is 61 s ahead of this one's");
        assert_eq!(clocks_apart(&west, -3600).unwrap(), "the clock of cluster west is 3600 s behind this one's");
        assert!(clocks_apart(&west, i64::MIN).is_some());
    }
}
