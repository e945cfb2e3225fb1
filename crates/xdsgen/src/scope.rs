//! What one proxy may see: services by visibility and namespace, route sets by host, gateways into other networks.
//!
//! Settled before anything is generated; generators never look at the mesh again. Invariant: a proxy is told of nothing
//! that its namespace may not see, but for what it serves to others as a gateway.

use crate::endpoints::reach::{Reach, reach};
use fairlead_model::matching::{Labels, host_covers, selects};
use fairlead_model::mesh::Workload;
use fairlead_model::policy::DestinationPolicy;
use fairlead_model::route::{GatewayRef, RouteSet};
use fairlead_model::settings::Profile;
use fairlead_model::{ClusterId, MemberState, NetworkId, ProxyDescription, ResolvedMesh, Service};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub struct Scope<'a> {
    pub mesh: &'a ResolvedMesh,
    pub proxy: &'a ProxyDescription,
    /// By host; of several namespaces' declarations the caller's own, else the first by name.
    pub services: BTreeMap<&'a str, &'a Arc<Service>>,
    pub workload: Option<&'a Arc<Workload>>,
    /// The proxy's labels with its topology.
    pub labels: Labels,
    /// Networks that are entered through gateways.
    pub hops: BTreeSet<(NetworkId, ClusterId)>,
    pub unreachable: BTreeSet<ClusterId>,
    pub draining: BTreeSet<ClusterId>,
    pub revoked: BTreeSet<ClusterId>,
    exact_routes: HashMap<&'a str, &'a Arc<RouteSet>>,
    pattern_routes: Vec<(&'a str, &'a Arc<RouteSet>)>,
}

impl<'a> Scope<'a> {
    pub fn of(mesh: &'a ResolvedMesh, proxy: &'a ProxyDescription) -> Self {
        let mut scope = Self::with(mesh, proxy, |_| true);
        scope.index_routes();
        scope
    }

    /// With no services but those of these hosts, and without routes: for their clusters and endpoints alone.
    pub fn of_hosts(mesh: &'a ResolvedMesh, proxy: &'a ProxyDescription, hosts: &BTreeSet<String>) -> Self {
        Self::with(mesh, proxy, |host| hosts.contains(host))
    }

    /// Without anything that it could call.
    pub fn without_others(mesh: &'a ResolvedMesh, proxy: &'a ProxyDescription) -> Self {
        Self::with(mesh, proxy, |_| false)
    }

    fn with(mesh: &'a ResolvedMesh, proxy: &'a ProxyDescription, wanted: impl Fn(&str) -> bool) -> Self {
        let namespace = proxy.workload.namespace.as_str();
        let mut services: BTreeMap<&str, &Arc<Service>> = BTreeMap::new();
        for service in mesh.services.values().filter(|s| wanted(&s.key.host) && s.visibility.allows(namespace)) {
            let host = service.key.host.as_str();
            if service.key.namespace == namespace || !services.contains_key(host) {
                services.insert(host, service);
            }
        }
        let in_state = |state: MemberState| {
            mesh.members.values().filter(|m| m.state == state).map(|m| m.cluster.clone()).collect::<BTreeSet<_>>()
        };
        // Profile `istio` keeps what it last heard, whatever the path says.
        let judged = mesh.settings.profile == Profile::Fairlead;
        let unreachable = mesh.members.values().filter(|m| judged && m.unreachable && m.cluster != mesh.cluster);
        Self {
            mesh,
            proxy,
            workload: mesh.workloads.get(&proxy.workload),
            labels: topology_labels(proxy),
            hops: hops(mesh, proxy, &services),
            unreachable: unreachable.map(|m| m.cluster.clone()).collect(),
            draining: in_state(MemberState::Draining),
            revoked: in_state(MemberState::Revoked),
            services,
            exact_routes: HashMap::new(),
            pattern_routes: Vec::new(),
        }
    }

    pub fn namespace(&self) -> &'a str {
        &self.proxy.workload.namespace
    }

    /// The destination policy that holds for this caller: the first whose scope holds it.
    pub fn policy(&self, service: &'a Service) -> Option<&'a DestinationPolicy> {
        let in_scope = |namespaces: &Option<BTreeSet<String>>| {
            namespaces.as_ref().is_none_or(|set| set.contains(self.namespace()))
        };
        let policy = service.policies.iter().find(|p| in_scope(&p.namespaces) && selects(&p.labels, &self.labels))?;
        Some(&policy.policy)
    }

    /// The route set that a sidecar follows for a host: an exact host before the longest pattern, the oldest of equals.
    pub fn sidecar_routes(&self, host: &str) -> Option<&'a Arc<RouteSet>> {
        self.exact_routes
            .get(host)
            .copied()
            .or_else(|| self.pattern_routes.iter().find(|(pattern, _)| host_covers(pattern, host)).map(|(_, set)| *set))
    }

    /// Whether some rule that this proxy may follow injects faults.
    pub fn has_faults(&self) -> bool {
        let visible = self.mesh.routes.iter().filter(|set| set.visibility.allows(self.namespace()));
        visible.flat_map(|set| &set.http).any(|rule| rule.fault.is_some())
    }

    /// Hosts of sidecar route sets that are no service this proxy sees.
    pub fn unregistered_route_hosts(&self) -> BTreeMap<&'a str, &'a Arc<RouteSet>> {
        let exact = self.exact_routes.iter().map(|(host, set)| (*host, *set));
        let all = exact.chain(self.pattern_routes.iter().copied());
        all.filter(|(host, _)| {
            let pattern = host.starts_with('*') && *host != "*";
            let known = self.services.contains_key(host)
                || (pattern && self.services.keys().any(|service| host_covers(host, service)));
            *host != "*" && !known
        })
        .collect()
    }

    fn index_routes(&mut self) {
        let namespace = self.namespace();
        for set in &self.mesh.routes {
            if !set.gateways.contains(&GatewayRef::Mesh) || !set.visibility.allows(namespace) {
                continue;
            }
            for host in &set.hosts {
                if host.starts_with('*') {
                    self.pattern_routes.push((host, set));
                } else {
                    self.exact_routes.entry(host).or_insert(set);
                }
            }
        }
        // Stable: of equal patterns the oldest stays first.
        self.pattern_routes.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        let mut seen = BTreeSet::new();
        self.pattern_routes.retain(|(pattern, _)| seen.insert(*pattern));
    }
}

fn topology_labels(proxy: &ProxyDescription) -> Labels {
    use crate::endpoints::topology::{CLUSTER, NETWORK, REGION, SUBZONE, ZONE};
    let mut labels = proxy.labels.clone();
    let locality = &proxy.locality;
    for (key, value) in [
        (CLUSTER, proxy.workload.cluster.as_str()),
        (NETWORK, proxy.network.as_str()),
        (REGION, &locality.region),
        (ZONE, &locality.zone),
        (SUBZONE, &locality.subzone),
    ] {
        if !value.is_empty() {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    labels
}

/// The (network, cluster) pairs of endpoints that this proxy does not reach and to which some gateway is known.
fn hops(
    mesh: &ResolvedMesh,
    proxy: &ProxyDescription,
    services: &BTreeMap<&str, &Arc<Service>>,
) -> BTreeSet<(NetworkId, ClusterId)> {
    let none = BTreeSet::new();
    let mut foreign: BTreeSet<(&NetworkId, &ClusterId)> = BTreeSet::new();
    for endpoint in services.values().flat_map(|s| &s.endpoints) {
        let pair = (&endpoint.network, &endpoint.workload.cluster);
        if foreign.contains(&pair) {
            continue;
        }
        let direct = proxy.network.reaches(&endpoint.network)
            && matches!(reach(&proxy.network, endpoint, &none), Reach::Direct(_) | Reach::Named(_));
        if !direct {
            foreign.insert(pair);
        }
    }
    foreign
        .into_iter()
        .filter(|(network, cluster)| !mesh.gateways_into(network, cluster).is_empty())
        .map(|(network, cluster)| (network.clone(), cluster.clone()))
        .collect()
}
