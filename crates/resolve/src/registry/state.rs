//! One cluster's objects, normalised.
//!
//! Never holds anything of another cluster. Invariant: a function of its input alone; a view is made of it and of what
//! peers tell.

use super::draft::Draft;
use super::endpoint::{AllFacts, facts};
use super::entry::{self, ByAddress};
use super::objects::{Item, ObjectRef, Objects};
use super::selection::Selection;
use super::service::{self, Context, OwnService};
use super::slices::Slices;
use super::workloads::{Surroundings, workloads};
use crate::analyze;
use crate::destinations::{DestinationIndex, Rule};
use crate::exports::own::offers;
use crate::gateways::{BUILT_IN_NAME, BUILT_IN_NAMESPACE, EastWest, Gateways};
use crate::routes::{Delegates, route_set};
use crate::security::{PeerAuthentications, Policy, PolicyIndex};
use crate::settings::Settings;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::endpoint::{Health, WorkloadRef};
use fairlead_model::gateway::GatewayConfig;
use fairlead_model::ids::{ClusterId, NetworkId};
use fairlead_model::matching::Labels;
use fairlead_model::mesh::{GatewayKind, MemberState, Workload, Workloads};
use fairlead_model::route::RouteSet;
use fairlead_model::service::ServiceKey;
use fairlead_model::settings::MeshSettings;
use fairlead_model::summary::MemberSummary;
use fairlead_model::{Shared, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What the world tells beside objects.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Health by workload, from readiness reports of proxies; beats what objects say.
    pub health: BTreeMap<WorkloadRef, Health>,
    /// Pods have kubelets, which judge them: their objects beat `health`, whoever hears their proxies.
    pub kubelets: bool,
    /// Addresses handed out before, kept over edits.
    pub workload_addresses: BTreeMap<WorkloadRef, IpAddr>,
    /// Addresses of load balancers that have names only, by name.
    pub looked_up: BTreeMap<String, Vec<IpAddr>>,
    /// Whether the cluster itself is draining.
    pub state: MemberState,
    /// Grows each time the cluster joins anew.
    pub incarnation: u64,
    /// Version of the control plane.
    pub version: String,
}

/// Input of [`cluster`].
#[derive(Clone, Copy, Debug)]
pub struct ClusterInput<'a> {
    pub cluster: &'a ClusterId,
    pub settings: &'a Settings,
    /// In any order; those of other clusters are passed over.
    pub objects: &'a [ObjectRef<'a>],
    pub observed: &'a Observed,
}

/// What is accepted from a peer (`Peer` object).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerLimit {
    /// `None`: all namespaces.
    pub namespaces: Option<BTreeSet<String>>,
    pub revoked: bool,
}

/// One cluster, normalised.
#[derive(Clone, Debug)]
pub struct ClusterState {
    pub cluster: ClusterId,
    pub settings: Arc<MeshSettings>,
    /// How it describes itself to peers; `state` may be set by whoever drains it.
    pub member: MemberSummary,
    /// Authorization policies are not in them yet: what they mean depends on the members.
    pub workloads: Arc<Workloads>,
    pub routes: Vec<Arc<RouteSet>>,
    pub gateways: Vec<Arc<GatewayConfig>>,
    pub(crate) services: BTreeMap<ServiceKey, Arc<OwnService>>,
    pub(crate) policies: Arc<Vec<Policy>>,
    /// Positions in `policies` by workload.
    pub(crate) selected: BTreeMap<WorkloadRef, Vec<usize>>,
    pub(crate) destinations: Arc<DestinationIndex>,
    pub(crate) peers: BTreeMap<ClusterId, PeerLimit>,
}

impl ClusterState {
    /// The same, with the allocations of `before` where workloads are equal to those.
    pub fn sharing(mut self, before: &Self) -> Self {
        self.workloads = crate::view::arcs(self.workloads, Some(&before.workloads));
        self
    }

    /// Addresses of its workloads, to be kept over edits where some are handed out.
    pub fn workload_addresses(&self) -> BTreeMap<WorkloadRef, IpAddr> {
        let first = |workload: &Arc<Workload>| workload.addresses.first().copied();
        self.workloads.iter().filter_map(|(key, workload)| Some((key.clone(), first(workload)?))).collect()
    }
}

/// Normalises one cluster's objects.
pub fn cluster(input: &ClusterInput<'_>) -> (ClusterState, Vec<Diagnostic>) {
    let settings = &input.settings.mesh;
    let mut diagnostics = Vec::new();
    let objects = Objects::new(input.cluster, input.objects, &input.settings.discovery);
    let around = Surroundings::new(input.cluster, input.settings, &objects);
    let drafts = workloads(&objects, &around, settings, input.observed);
    let gateways = Gateways::new(&objects.gateways, drafts.values(), &settings.root_namespace, &mut diagnostics);
    let peers = PeerAuthentications::new(&objects.peer_authentications, &settings.root_namespace);
    let facts = facts(&drafts, settings, &gateways, &peers);

    let mut services = services(input, &objects, &around, &drafts, &facts, &peers, &mut diagnostics);
    offers(&mut services, &objects.exports, settings, &mut diagnostics);
    let entrances = EastWest::new(&around, input, &objects, &drafts, &gateways);
    let mut known = finished_workloads(drafts, facts, &services);
    if let Some(addresses) = &entrances.built_in {
        let workload = built_in(&around, settings, addresses);
        known.insert(workload.key.clone(), Arc::new(workload));
    }
    for service in services.values_mut() {
        service::list(&mut service.service, settings);
    }

    let index = PolicyIndex::new(&objects.authorizations, &settings.root_namespace);
    let selected = known
        .values()
        // Istio builds no authorization on an east-west gateway: it sees neither requests nor identities.
        .filter(|workload| workload.gateway != Some(GatewayKind::EastWest))
        .map(|workload| (workload, index.select(&workload.key.namespace, &workload.labels)))
        .filter(|(_, positions)| !positions.is_empty())
        .map(|(workload, positions)| (workload.key.clone(), positions))
        .collect();
    let mut networks: BTreeSet<NetworkId> = known.values().map(|workload| workload.network.clone()).collect();
    networks.insert(around.network.clone());

    let state = ClusterState {
        cluster: input.cluster.clone(),
        settings: settings.clone(),
        member: MemberSummary {
            cluster: input.cluster.clone(),
            incarnation: input.observed.incarnation,
            state: input.observed.state,
            trust_domain: settings.trust_domain_of(input.cluster),
            networks: networks.into_iter().collect(),
            gateways: entrances.addresses,
            locality: (*around.locality).clone(),
            version: input.observed.version.clone(),
        },
        workloads: Arc::new(known),
        routes: routes(input, &objects, &mut diagnostics),
        gateways: gateways.configs.iter().cloned().map(Arc::new).collect(),
        services: services.into_iter().map(|(key, service)| (key, Arc::new(service))).collect(),
        policies: Arc::new(index.policies),
        selected,
        destinations: Arc::new(destinations(input, &objects, &mut diagnostics)),
        peers: objects.peers.iter().map(peer_limit).collect(),
    };
    analyze::own_objects(&state, &objects, input.settings, &mut diagnostics);
    analyze::sort(&mut diagnostics);
    (state, diagnostics)
}

fn services(
    input: &ClusterInput<'_>,
    objects: &Objects<'_>,
    around: &Surroundings<'_>,
    drafts: &BTreeMap<WorkloadRef, Draft>,
    facts: &AllFacts,
    peers: &PeerAuthentications,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<ServiceKey, OwnService> {
    let of_services = objects.services.iter().flat_map(|item| item.object.spec.selector.keys());
    let of_entries = objects.entries.iter().filter_map(|item| item.object.spec.workload_selector.as_ref());
    let used = of_services.chain(of_entries.flat_map(|selector| selector.labels.keys())).map(String::as_str).collect();
    let selection = Selection::new(drafts, &used);
    let slices = Slices::new(objects);
    let context = Context {
        settings: &input.settings.mesh,
        around,
        drafts,
        facts,
        selection: &selection,
        slices: &slices,
        default_export: &input.settings.export_to.services,
    };
    let mut found: BTreeMap<ServiceKey, OwnService> = BTreeMap::new();
    let mut by_host: BTreeMap<String, ServiceKey> = BTreeMap::new();
    for item in &objects.services {
        match service::service(item, &context) {
            Some(own) => {
                by_host.insert(own.service.key.host.clone(), own.service.key.clone());
                found.insert(own.service.key.clone(), own);
            }
            None => diagnostics.push(analyze::external_name(item)),
        }
    }
    let by_address: ByAddress<'_> =
        drafts.values().flat_map(|draft| draft.addresses.iter().map(move |address| (*address, draft))).collect();
    for item in &objects.entries {
        for own in entry::services(item, &context, &by_address, peers) {
            if let Some(decorated) = by_host.get(&own.service.key.host).and_then(|key| found.get_mut(key)) {
                decorated.service.subject_alt_names.extend(own.service.subject_alt_names);
                decorated.service.origins.push(item.origin(""));
                continue;
            }
            match found.get(&own.service.key) {
                Some(older) => {
                    diagnostics.push(analyze::host_taken(item, &own.service.key.host, &older.service.origins))
                }
                None => drop(found.insert(own.service.key.clone(), own)),
            }
        }
    }
    found
}

/// Takes the drafts apart: at ten thousand workloads copies of their labels would be most of the work.
fn finished_workloads(
    drafts: BTreeMap<WorkloadRef, Draft>,
    mut facts: AllFacts,
    services: &BTreeMap<ServiceKey, OwnService>,
) -> Workloads {
    let mut ports: BTreeMap<&WorkloadRef, BTreeMap<u16, Vec<(ServiceKey, u16)>>> = BTreeMap::new();
    for own in services.values() {
        for endpoint in &own.service.endpoints {
            let known = ports.entry(&endpoint.workload).or_default();
            for (number, target) in &endpoint.ports {
                known.entry(*target).or_default().push((own.service.key.clone(), *number));
            }
        }
    }
    let mut one = |key: WorkloadRef, draft: Draft| {
        let facts = facts.remove(&key)?;
        let workload = Workload {
            network: draft.network,
            locality: draft.locality,
            addresses: draft.addresses,
            labels: draft.labels,
            service_account: draft.service_account,
            identity: facts.identity,
            sidecar: draft.sidecar && facts.gateway.is_none(),
            gateway: facts.gateway,
            ports: Shared::pooled(ports.remove(&key).unwrap_or_default()),
            security: facts.security,
            origin: Some(draft.origin),
            key: key.clone(),
        };
        Some((key, Arc::new(workload)))
    };
    drafts.into_iter().filter_map(|(key, draft)| one(key, draft)).collect()
}

/// The built-in east-west gateway.
fn built_in(around: &Surroundings<'_>, settings: &MeshSettings, addresses: &[IpAddr]) -> Workload {
    let labels = Labels::from([("app".to_owned(), BUILT_IN_NAME.to_owned())]);
    Workload {
        key: around.key(BUILT_IN_NAMESPACE, BUILT_IN_NAME),
        network: around.network.clone(),
        locality: around.locality.clone(),
        addresses: addresses.to_vec(),
        labels: around.inject(labels.into(), &around.network, &around.locality, None),
        service_account: Text::default(),
        // Reserved: no service account can have it.
        identity: Some(format!("spiffe://{}/fairlead/gateway", settings.trust_domain_of(around.cluster)).into()),
        sidecar: false,
        gateway: Some(GatewayKind::EastWest),
        ports: Shared::default(),
        security: Shared::default(),
        origin: None,
    }
}

/// Delegates are in the rules that they continue, and nowhere else.
fn routes(input: &ClusterInput<'_>, objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Arc<RouteSet>> {
    let domain = &input.settings.mesh.domain;
    let default = &input.settings.export_to.routes;
    let mut delegates = Delegates::default();
    let roots: Vec<_> = objects
        .routes
        .iter()
        .filter(|item| !delegates.add(item.object, domain, default, &|path| item.origin(path)))
        .collect();
    let mut problems = Vec::new();
    let sets = roots
        .into_iter()
        .map(|item| {
            Arc::new(route_set(item.object, domain, default, &delegates, &|path| item.origin(path), &mut problems))
        })
        .collect();
    diagnostics.extend(problems.iter().map(analyze::delegation));
    sets
}

fn destinations(
    input: &ClusterInput<'_>,
    objects: &Objects<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> DestinationIndex {
    let settings = &input.settings.mesh;
    let mut rules = Vec::new();
    for item in &objects.destinations {
        if let Some(problem) = analyze::refused_by_profile(item, settings) {
            diagnostics.push(problem);
            continue;
        }
        let default = &input.settings.export_to.destinations;
        rules.push(Rule::new(item.object, &settings.domain, default, |path| item.origin(path)));
    }
    DestinationIndex::new(rules, &settings.root_namespace, input.settings.destinations)
}

fn peer_limit(item: &Item<'_, fairlead_resources::fairlead::Peer>) -> (ClusterId, PeerLimit) {
    let spec = &item.object.spec;
    let limit = PeerLimit {
        namespaces: spec.namespaces.as_ref().map(|namespaces| namespaces.iter().cloned().collect()),
        revoked: spec.revoked,
    };
    (ClusterId::from(item.meta.name.as_str()), limit)
}
