//! Where a cluster's networks are entered.
//!
//! Never lists an address that nobody answers at. Invariant: a cluster with a network of its own, or with other members
//! beside it, has a gateway for its network, its own or the built-in one, unless its own says that nobody outside reaches it.

use super::Gateways;
use crate::names::address::gateway_address;
use crate::registry::{ClusterInput, Draft, Item, Objects, Surroundings, in_families};
use crate::routes::host;
use fairlead_model::endpoint::WorkloadRef;
use fairlead_model::gateway::ServerTls;
use fairlead_model::ids::NetworkId;
use fairlead_model::matching::selects;
use fairlead_model::mesh::{GatewayAddress, GatewayKind};
use fairlead_model::settings::{MeshSettings, Profile};
use fairlead_resources::Object;
use fairlead_resources::core as kubernetes;
use fairlead_resources::istio::MeshNetworks;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Namespace of the built-in gateway's workload.
pub(crate) const BUILT_IN_NAMESPACE: &str = "fairlead-system";
/// Name of the built-in gateway's workload.
pub(crate) const BUILT_IN_NAME: &str = "east-west";

const NETWORK: &str = "topology.istio.io/network";
const GATEWAY_PORT: &str = "networking.istio.io/gatewayPort";
/// Labels of the nodes that lead to a gateway of type NodePort (Istio), as JSON; all nodes, where it is not written.
const NODE_SELECTOR: &str = "traffic.istio.io/nodeSelector";
/// Names of load balancers that are looked up.
const MOST_NAMES: usize = 64;
/// Addresses of nodes that others are told: a few are enough to be reached.
const MOST_NODES: usize = 8;

/// A cluster's entrances.
#[derive(Clone, Debug, Default)]
pub(crate) struct EastWest {
    pub addresses: Vec<GatewayAddress>,
    /// The built-in gateway's addresses, if the cluster has it.
    pub built_in: Option<Vec<IpAddr>>,
    /// Networks whose gateway nobody outside reaches.
    closed: BTreeSet<NetworkId>,
}

/// What addresses are found in.
struct Known<'a> {
    objects: &'a Objects<'a>,
    /// Of load balancers, by name.
    looked_up: &'a BTreeMap<String, Vec<IpAddr>>,
}

/// Names of the load balancers by which a cluster's networks are entered, of which somebody has to look up the addresses. Those of our own
/// namespace come first: there may be more than are looked up, and anybody may make a Service somewhere.
pub fn names_of_load_balancers<'a>(objects: impl IntoIterator<Item = &'a Object>) -> BTreeSet<String> {
    let services = objects.into_iter().filter_map(|object| match object {
        Object::Service(service) if service.metadata.label(NETWORK).is_some() => Some(service),
        _ => None,
    });
    let (ours, others): (Vec<_>, Vec<_>) =
        services.partition(|service| service.metadata.namespace == BUILT_IN_NAMESPACE);
    let mut names = BTreeSet::new();
    for ingress in ours.iter().chain(&others).flat_map(|service| &service.status.load_balancer.ingress) {
        if ingress.ip.is_empty() && !ingress.hostname.is_empty() && names.len() < MOST_NAMES {
            names.insert(ingress.hostname.clone());
        }
    }
    names
}

impl EastWest {
    pub fn new(
        around: &Surroundings<'_>,
        input: &ClusterInput<'_>,
        objects: &Objects<'_>,
        drafts: &BTreeMap<WorkloadRef, Draft>,
        gateways: &Gateways,
    ) -> Self {
        let (cluster, network, settings) = (around.cluster, &around.network, &*input.settings.mesh);
        let known = Known { objects, looked_up: &input.observed.looked_up };
        let east_west =
            |draft: &&Draft| gateways.kind(&draft.key.namespace, &draft.labels) == Some(GatewayKind::EastWest);
        let own: Vec<&Draft> = drafts.values().filter(east_west).collect();
        let mut found = Self::default();
        let member = settings.clusters.get(cluster);
        let port = member.map_or(crate::settings::GATEWAY_PORT, |member| member.gateway_port);
        let written = member.map(|member| member.gateway_addresses.clone()).unwrap_or_default();
        let here: Vec<&Draft> = own.iter().copied().filter(|draft| &draft.network == network).collect();
        if written.is_empty() {
            found.of_services(&known, drafts, &own, port, settings);
            found.of_mesh_networks(&input.settings.networks, settings, &known, drafts, &own);
            if !found.has(network) && !found.closed.contains(network) {
                found.of_workloads(&own, network, gateways);
            }
        } else {
            found.share_out(network, &written, port, &here);
        }
        let needed = !network.as_str().is_empty() || settings.clusters.len() > 1;
        if needed && !found.has(network) && !found.closed.contains(network) {
            let workload = WorkloadRef {
                cluster: cluster.clone(),
                namespace: BUILT_IN_NAMESPACE.into(),
                name: BUILT_IN_NAME.into(),
            };
            let addresses = if written.is_empty() { vec![gateway_address(settings, cluster)] } else { written };
            found.add(network, &addresses, port, &workload);
            found.built_in = Some(addresses);
        }
        found.addresses.sort();
        found.addresses.dedup();
        found
    }

    fn has(&self, network: &NetworkId) -> bool {
        self.addresses.iter().any(|gateway| &gateway.network == network)
    }

    fn add(&mut self, network: &NetworkId, addresses: &[IpAddr], port: u16, workload: &WorkloadRef) {
        self.addresses.extend(addresses.iter().map(|address| GatewayAddress {
            network: network.clone(),
            address: SocketAddr::new(*address, port),
            workload: workload.clone(),
        }));
    }

    /// Addresses that stand for several workloads, in turn: with one workload some are lost, not all.
    fn share_out(&mut self, network: &NetworkId, addresses: &[IpAddr], port: u16, workloads: &[&Draft]) {
        for (address, draft) in addresses.iter().zip(workloads.iter().cycle()) {
            self.add(network, &[*address], port, &draft.key);
        }
    }

    /// MeshNetworks `gateways` of networks that this cluster has workloads in: an address, or a Service.
    fn of_mesh_networks(
        &mut self,
        networks: &MeshNetworks,
        settings: &MeshSettings,
        known: &Known<'_>,
        drafts: &BTreeMap<WorkloadRef, Draft>,
        own: &[&Draft],
    ) {
        for (name, written) in &networks.networks {
            let network = NetworkId::from(name.as_str());
            if self.has(&network) || !drafts.values().any(|draft| draft.network == network) {
                continue;
            }
            for gateway in &written.gateways {
                let Some(port) = u16::try_from(gateway.port).ok().filter(|port| *port > 0) else { continue };
                let address = gateway.address.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
                let service = known.objects.services.iter().find(|item| {
                    let host = host::join(&item.meta.name, &item.meta.namespace, &settings.domain);
                    gateway.registry_service_name.as_ref() == Some(&host)
                });
                if let Some(item) = service {
                    self.of_service(item, known, &network, drafts, port);
                } else if let (Some(address), Some(first)) = (address, own.first()) {
                    self.add(&network, &[address], port, &first.key);
                }
            }
        }
    }

    /// Services with the network label (Istio): their load balancer's or external addresses, or nodes with their node port; without any,
    /// their workloads', but for what says that it is reached only inside. Whoever may make a Service somewhere could lead other clusters' traffic to himself, so that only those count that an east-west gateway is
    /// behind, or that are in the mesh's or the root namespace; in profile `istio` all, as with Istio.
    fn of_services(
        &mut self,
        known: &Known<'_>,
        drafts: &BTreeMap<WorkloadRef, Draft>,
        own: &[&Draft],
        default_port: u16,
        settings: &MeshSettings,
    ) {
        let trusted = |item: &&Item<'_, kubernetes::Service>| {
            let (namespace, selector) = (item.meta.namespace.as_str(), &item.object.spec.selector);
            let behind = |draft: &&Draft| draft.key.namespace == namespace && selects(selector, &draft.labels);
            settings.profile == Profile::Istio
                || [BUILT_IN_NAMESPACE, settings.root_namespace.as_str()].contains(&namespace)
                || (!selector.is_empty() && own.iter().any(behind))
        };
        for item in known.objects.services.iter().filter(trusted) {
            let Some(network) = item.meta.label(NETWORK).filter(|label| !label.is_empty()) else { continue };
            let network = NetworkId::from(network);
            let port = item.meta.label(GATEWAY_PORT).and_then(|port| port.parse().ok()).unwrap_or(default_port);
            self.of_service(item, known, &network, drafts, port);
        }
    }

    fn of_service(
        &mut self,
        item: &Item<'_, kubernetes::Service>,
        known: &Known<'_>,
        network: &NetworkId,
        drafts: &BTreeMap<WorkloadRef, Draft>,
        port: u16,
    ) {
        let spec = &item.object.spec;
        let behind: Vec<&Draft> = drafts
            .values()
            .filter(|draft| draft.key.namespace == item.meta.namespace)
            .filter(|draft| !spec.selector.is_empty() && selects(&spec.selector, &draft.labels))
            .collect();
        let balancer = &item.object.status.load_balancer.ingress;
        let texts = balancer.iter().map(|ingress| &ingress.ip).chain(&spec.external_ips);
        let named = balancer.iter().filter_map(|ingress| known.looked_up.get(&ingress.hostname)).flatten();
        let addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).chain(named.copied()).collect();
        if !addresses.is_empty() {
            return self.share_out(network, &addresses, port, &behind);
        }
        match (spec.service_type.as_str(), on_nodes(item, known.objects, port)) {
            ("NodePort", Some((nodes, port))) => self.share_out(network, &nodes, port, &behind),
            // Of a load balancer that has names only, those were not looked up yet.
            (kind, _) if kind == "ClusterIP" || !balancer.is_empty() => drop(self.closed.insert(network.clone())),
            _ => behind.iter().for_each(|draft| self.add(network, &draft.addresses, port, &draft.key)),
        }
    }

    /// Workloads that an AUTO_PASSTHROUGH Gateway selects.
    fn of_workloads(&mut self, own: &[&Draft], network: &NetworkId, gateways: &Gateways) {
        for draft in own.iter().filter(|draft| &draft.network == network) {
            let servers = gateways.selecting(&draft.key.namespace, &draft.labels).flat_map(|config| &config.servers);
            for server in servers.filter(|server| server.tls == Some(ServerTls::AutoPassthrough)) {
                self.add(network, &draft.addresses, server.port, &draft.key);
            }
        }
    }
}

/// Nodes that lead to a Service, from outside the cluster if they have such addresses, and the port at which they do.
fn on_nodes(item: &Item<'_, kubernetes::Service>, objects: &Objects<'_>, port: u16) -> Option<(Vec<IpAddr>, u16)> {
    let node_port = item.object.spec.ports.iter().find(|written| written.port == port)?.node_port?;
    let selector: BTreeMap<String, String> = match item.meta.annotation(NODE_SELECTOR) {
        Some(text) => serde_json::from_str(text).ok()?,
        None => BTreeMap::new(),
    };
    let selected = |node: &&Item<'_, kubernetes::Node>| {
        selector.iter().all(|(key, value)| node.meta.label(key) == Some(value.as_str()))
    };
    let chosen = || objects.nodes.values().filter(selected);
    let of = |wanted: &str| -> Vec<IpAddr> {
        let one = |node: &Item<'_, kubernetes::Node>| {
            let all = node.object.status.addresses.iter().filter(|a| a.address_type == wanted);
            in_families(item.object, &all.filter_map(|a| a.address.parse().ok()).collect::<Vec<_>>())
        };
        chosen().filter_map(one).take(MOST_NODES).collect()
    };
    let outside = of("ExternalIP");
    let nodes = if outside.is_empty() { of("InternalIP") } else { outside };
    (!nodes.is_empty()).then_some((nodes, node_port))
}
