//! The mesh as one cluster's control plane sees it: its own state and what its peers tell, under the rule "what does a
//! name cover".
//!
//! Never takes from a peer what `Peer.spec.namespaces` leaves out, or an endpoint that is not that peer's own. Precedence:
//! a plain name means the own endpoints; others' exports join if the own Service is exported too (or annotated
//! `fairlead.dev/import: merge`), or if there is no own Service; never if the host is cluster-local or
//! `clusterLocalNames: local`. Profile `istio`: every endpoint that others export joins. A `clusterset.local` name means
//! exported endpoints only. Revoked peers do not exist; an unreachable peer's endpoints are unhealthy; a draining
//! cluster's endpoints drain where others can serve.

mod coverage;
mod health;
mod members;
mod offers;
mod ports;
mod sharing;
mod stand_in;
mod workloads;

pub(crate) use sharing::arcs;
pub(crate) use stand_in::{is_stand_in, stand_in_key};

use crate::analyze;
use crate::names::virtual_ip::{Wanted, second};
use crate::registry::ClusterState;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::ResolvedMesh;
use fairlead_model::service::{Service, ServiceKey, ServiceSource};
use fairlead_model::summary::{ClusterSummary, PeerStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// DNS suffix of names that mean exported endpoints only (MCS).
pub const CLUSTER_SET: &str = "clusterset.local";

/// Peers by name: what they told last, and how they are judged now.
pub type Peers = BTreeMap<ClusterId, (ClusterSummary, PeerStatus)>;

/// Input of [`view_with`].
#[derive(Clone, Copy, Debug)]
pub struct ViewInput<'a> {
    pub state: &'a ClusterState,
    pub peers: &'a Peers,
    /// Counts resolutions.
    pub generation: u64,
    /// What did not change is shared with it.
    pub previous: Option<&'a ResolvedMesh>,
    /// Virtual IPs handed out before, by host.
    pub kept: &'a BTreeMap<String, Ipv4Addr>,
}

/// The mesh seen from `state`'s cluster, from nothing.
pub fn view(state: &ClusterState, peers: &Peers, generation: u64) -> (ResolvedMesh, Vec<Diagnostic>) {
    view_with(&ViewInput { state, peers, generation, previous: None, kept: &BTreeMap::new() })
}

/// The mesh seen from one cluster. Equal, whatever `previous` is; what is equal to `previous` is the same allocation.
pub fn view_with(input: &ViewInput<'_>) -> (ResolvedMesh, Vec<Diagnostic>) {
    let state = input.state;
    let mut diagnostics = Vec::new();
    let members = members::members(state, input.peers);
    let offers = offers::offers(state, input.peers, &mut diagnostics);
    let mut services = coverage::services(state, &offers, &mut diagnostics);
    stand_in::add(state, &mut services);
    give_virtual_ips(&mut services, state, input.kept);
    for service in services.values_mut() {
        let key = stand_in::policy_key(service);
        service.policies = state.destinations.policies(&key);
    }
    let mesh = ResolvedMesh {
        generation: input.generation,
        cluster: state.cluster.clone(),
        settings: state.settings.clone(),
        workloads: sharing::arcs(workloads::workloads(state, &members), input.previous.map(|mesh| &mesh.workloads)),
        members: sharing::map(members, input.previous.map(|mesh| &mesh.members)),
        services: sharing::map(services, input.previous.map(|mesh| &mesh.services)),
        routes: sharing::list(&state.routes, input.previous.map(|mesh| mesh.routes.as_slice())),
        gateways: sharing::list(&state.gateways, input.previous.map(|mesh| mesh.gateways.as_slice())),
    };
    analyze::references(state, &mesh, &mut diagnostics);
    analyze::sort(&mut diagnostics);
    (mesh, diagnostics)
}

/// The virtual IPs that a mesh gave out, to be kept over restarts.
pub fn virtual_ips(mesh: &ResolvedMesh) -> BTreeMap<String, Ipv4Addr> {
    let one = |service: &Service| {
        service.vips.iter().find_map(|ip| match ip {
            IpAddr::V4(v4) if v4.octets()[..2] == [240, 240] => Some((service.key.host.clone(), *v4)),
            _ => None,
        })
    };
    mesh.services.values().filter_map(|service| one(service)).collect()
}

fn give_virtual_ips(
    services: &mut BTreeMap<ServiceKey, Service>,
    state: &ClusterState,
    kept: &BTreeMap<String, Ipv4Addr>,
) {
    // Pods without IPv6 could not dial it; those without IPv4 could dial nothing else. What only answers dials nothing.
    let mut dialling = state.workloads.values().filter(|workload| workload.sidecar);
    let dual = dialling.any(|workload| workload.addresses.iter().any(IpAddr::is_ipv6));
    let needs = |service: &Service| {
        service.vips.is_empty()
            && service.cidrs.is_empty()
            && !service.headless
            && service.resolution.has_endpoints()
            && !service.key.host.starts_with('*')
    };
    let mut wanted = Wanted::default();
    let mut taken = BTreeSet::new();
    for service in services.values() {
        taken.extend(service.vips.iter().copied());
        if needs(service) {
            let declared_here =
                service.source != ServiceSource::ClusterSet && service.clusters.contains(&state.cluster);
            wanted.add(u8::from(!declared_here), &service.key.host);
        }
    }
    let given = wanted.allocate(kept, &taken);
    for service in services.values_mut().filter(|service| needs(service)) {
        let both = |first: &Ipv4Addr| [Some(IpAddr::V4(*first)), dual.then(|| IpAddr::V6(second(*first)))];
        service.vips = given.get(&service.key.host).map(both).into_iter().flatten().flatten().collect();
    }
}
