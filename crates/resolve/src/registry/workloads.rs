//! WorkloadEntries, `Workload` replicas and Pods as workloads.
//!
//! Never drops a workload because of a bad label. Rule: a workload has a sidecar unless `sidecar.istio.io/inject: "false"`
//! (label or annotation), `security.istio.io/tlsMode: disabled`, `sidecar: false` or host networking says otherwise.

use super::draft::{Draft, Written};
use super::objects::{Item, Objects};
use super::proxy_address::is_refused;
use super::state::Observed;
use crate::names::address::{workload_addresses, workload_block};
use crate::settings::{Settings, network_of};
use fairlead_model::endpoint::{Health, WorkloadRef};
use fairlead_model::ids::{ClusterId, Locality, NetworkId};
use fairlead_model::matching::Labels;
use fairlead_model::settings::MeshSettings;
use fairlead_model::{ObjectKey, Shared, Text, WorkloadLabels};
use fairlead_resources::core as kubernetes;
use fairlead_resources::{fairlead, istio};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const NETWORK: &str = "topology.istio.io/network";
const CLUSTER: &str = "topology.istio.io/cluster";
const POD_LOCALITY: &str = "topology.istio.io/locality";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const HOSTNAME: &str = "kubernetes.io/hostname";
const INJECT: &str = "sidecar.istio.io/inject";
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// The namespace whose network label holds for the cluster.
const SYSTEM: &str = "istio-system";

/// What a workload inherits from its cluster.
pub(crate) struct Surroundings<'a> {
    pub cluster: &'a ClusterId,
    pub network: NetworkId,
    pub locality: Shared<Locality>,
    /// MeshNetworks `fromCidr`.
    ranges: Vec<(IpNet, NetworkId)>,
}

impl<'a> Surroundings<'a> {
    pub fn new(cluster: &'a ClusterId, settings: &Settings, objects: &Objects<'_>) -> Self {
        let label =
            objects.namespaces.get(SYSTEM).and_then(|namespace| namespace.meta.label(NETWORK)).map(NetworkId::from);
        let mut registry = None;
        let mut ranges = Vec::new();
        for (name, network) in &settings.networks.networks {
            for written in &network.endpoints {
                if written.from_registry.as_deref() == Some(cluster.as_str()) {
                    registry.get_or_insert_with(|| NetworkId::from(name.as_str()));
                }
                if let Some(range) = written.from_cidr.as_deref().and_then(|text| text.parse().ok()) {
                    ranges.push((range, NetworkId::from(name.as_str())));
                }
            }
        }
        // Istio's code: labels, then MeshNetworks; the Mesh's own line is the last resort.
        let mesh = &settings.mesh;
        Self {
            cluster,
            network: label.clone().or(registry).unwrap_or_else(|| network_of(mesh, cluster)),
            locality: mesh.clusters.get(cluster).map(|member| member.locality.clone()).unwrap_or_default().into(),
            ranges: if label.is_some() { Vec::new() } else { ranges },
        }
    }

    /// The network of an address that has none written (MeshNetworks `fromCidr`), else the cluster's.
    fn network_at(&self, address: Option<IpAddr>) -> NetworkId {
        let range = address.and_then(|address| self.ranges.iter().find(|(range, _)| range.contains(&address)));
        range.map_or_else(|| self.network.clone(), |(_, network)| network.clone())
    }

    pub fn key(&self, namespace: &str, name: &str) -> WorkloadRef {
        WorkloadRef { cluster: self.cluster.clone(), namespace: Text::pooled(namespace), name: name.into() }
    }

    /// The workload that an object is, by the object's own names.
    fn key_of<T>(&self, item: &Item<'_, T>) -> WorkloadRef {
        let ObjectKey { namespace, name, .. } = item.key();
        if **namespace != *item.meta.namespace || **name != *item.meta.name {
            return self.key(&item.meta.namespace, &item.meta.name);
        }
        WorkloadRef { cluster: self.cluster.clone(), namespace: namespace.clone().into(), name: name.clone().into() }
    }

    /// A label's network, a written one, that of the address, or the cluster's.
    pub fn network(&self, written: &str, labels: &Labels, address: Option<IpAddr>) -> NetworkId {
        let label = labels.get(NETWORK).map(String::as_str).unwrap_or_default();
        let found = [label, written].into_iter().find(|network| !network.is_empty());
        found.map_or_else(|| self.network_at(address), NetworkId::from)
    }

    /// A written `region/zone/subzone`, or the cluster's.
    pub fn locality(&self, written: &str) -> Shared<Locality> {
        if written.is_empty() { self.locality.clone() } else { Shared::pooled(Locality::parse(written)) }
    }

    /// With the labels of its place, which subsets and `failoverPriority` may name.
    pub fn inject(
        &self,
        written: Shared<Labels>,
        network: &NetworkId,
        locality: &Locality,
        node: Option<&str>,
    ) -> WorkloadLabels {
        let values = [
            (CLUSTER, self.cluster.as_str()),
            (NETWORK, network.as_str()),
            (REGION, locality.region.as_str()),
            (ZONE, locality.zone.as_str()),
            (SUBZONE, locality.subzone.as_str()),
            (HOSTNAME, node.unwrap_or_default()),
        ];
        let place = values.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.to_owned()));
        WorkloadLabels::new(written, place.collect())
    }
}

/// All workloads of a cluster, sorted by namespace and name. Of two with one name a WorkloadEntry comes before a `Workload`
/// before a Pod.
pub(super) fn workloads(
    objects: &Objects<'_>,
    around: &Surroundings<'_>,
    settings: &MeshSettings,
    observed: &Observed,
) -> BTreeMap<WorkloadRef, Draft> {
    let mut found: BTreeMap<WorkloadRef, Draft> = BTreeMap::new();
    let leads_back = |item: &&Item<'_, istio::WorkloadEntry>| item.object.spec.address.parse().is_ok_and(is_refused);
    let entries = objects.workload_entries.iter().filter(|item| !leads_back(item)).map(|item| entry(item, around));
    let processes = objects.processes.iter().flat_map(|item| replicas(item, around));
    let pods = objects.pods.iter().filter_map(|item| pod(item, around, objects));
    for draft in entries.chain(processes).chain(pods) {
        found.entry(draft.key.clone()).or_insert(draft);
    }
    for draft in found.values_mut() {
        let by_kubelet = observed.kubelets && draft.written == Written::Pod;
        if let Some(health) = observed.health.get(&draft.key).filter(|_| !by_kubelet) {
            draft.health = *health;
        }
    }
    give_addresses(&mut found, workload_block(settings, around.cluster), observed);
    found
}

/// Processes without an address get one of the cluster's block.
fn give_addresses(found: &mut BTreeMap<WorkloadRef, Draft>, block: u8, observed: &Observed) {
    let without: BTreeSet<WorkloadRef> = found
        .values()
        .filter(|draft| draft.written == Written::Process && draft.addresses.is_empty())
        .map(|draft| draft.key.clone())
        .collect();
    if without.is_empty() {
        return;
    }
    let taken: BTreeSet<IpAddr> = found.values().flat_map(|draft| draft.addresses.iter().copied()).collect();
    for (key, address) in workload_addresses(block, &without, &taken, &observed.workload_addresses) {
        if let Some(draft) = found.get_mut(&key) {
            draft.addresses.push(address);
        }
    }
}

fn entry(item: &Item<'_, istio::WorkloadEntry>, around: &Surroundings<'_>) -> Draft {
    let spec = &item.object.spec;
    let labels = item.object.all_labels();
    let network = around.network(&spec.network, &labels, spec.address.parse().ok());
    let locality = around.locality(&spec.locality);
    let sidecar = has_sidecar(&labels, item.meta.annotation(INJECT));
    Draft {
        key: around.key_of(item),
        written: Written::WorkloadEntry,
        sidecar,
        labels: around.inject(labels.into(), &network, &locality, None),
        service_account: account(&spec.service_account),
        addresses: spec.address.parse().into_iter().collect(),
        network,
        locality,
        weight: spec.weight.max(1),
        named_ports: entry_ports(&spec.ports),
        health: Health::Healthy,
        origin: item.origin(""),
    }
}

/// Ports of a WorkloadEntry; numbers outside 1 to 65535 are none (validation reports them).
pub(super) fn entry_ports(written: &BTreeMap<String, u32>) -> BTreeMap<String, u16> {
    let valid =
        |(name, port): (&String, &u32)| Some((name.clone(), u16::try_from(*port).ok().filter(|port| *port > 0)?));
    written.iter().filter_map(valid).collect()
}

fn replicas(item: &Item<'_, fairlead::Workload>, around: &Surroundings<'_>) -> Vec<Draft> {
    let spec = &item.object.spec;
    let labels = item.object.all_labels();
    let network = around.network(spec.network.as_deref().unwrap_or_default(), &labels, None);
    let locality = around.locality(spec.locality.as_deref().unwrap_or_default());
    let sidecar = spec.sidecar.unwrap_or(true) && has_sidecar(&labels, item.meta.annotation(INJECT));
    let named = spec.ports.iter().filter(|port| !port.name.is_empty());
    let one = Draft {
        key: around.key_of(item),
        written: Written::Process,
        sidecar,
        labels: around.inject(labels.into(), &network, &locality, None),
        service_account: account(spec.service_account.as_deref().unwrap_or_default()),
        addresses: Vec::new(),
        network,
        locality,
        weight: spec.weight.unwrap_or(1).max(1),
        named_ports: named.map(|port| (port.name.clone(), port.port)).collect(),
        health: Health::Healthy,
        origin: item.origin(""),
    };
    let name = |replica| around.key(&item.meta.namespace, &format!("{}-{replica}", item.meta.name));
    (0..spec.replicas.unwrap_or(1)).map(|replica| Draft { key: name(replica), ..one.clone() }).collect()
}

/// `None` for Pods that have ended. One without an address yet exists, but serves nothing.
fn pod(item: &Item<'_, kubernetes::Pod>, around: &Surroundings<'_>, objects: &Objects<'_>) -> Option<Draft> {
    let pod = item.object;
    if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        return None;
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in std::iter::once(&pod.status.pod_ip).chain(pod.status.pod_ips.iter().map(|ip| &ip.ip)) {
        if let Ok(address) = text.parse()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    let labels = &item.meta.labels;
    let node = objects.nodes.get(pod.spec.node_name.as_str());
    let from_node = node.map(|node| {
        let label = |key| node.meta.label(key).unwrap_or_default().to_owned();
        Locality { region: label(REGION), zone: label(ZONE), subzone: label(SUBZONE) }
    });
    let locality = match labels.get(POD_LOCALITY) {
        // A label cannot hold slashes.
        Some(label) => Shared::pooled(Locality::parse(&label.replace('.', "/"))),
        None => match from_node.filter(|locality| !locality.is_unset()) {
            Some(locality) => Shared::pooled(locality),
            None => around.locality.clone(),
        },
    };
    let network = around.network("", labels, addresses.first().copied());
    let sidecar = !pod.spec.host_network && has_sidecar(labels, item.meta.annotation(INJECT));
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let mut named_ports = BTreeMap::new();
    for port in containers.flat_map(|container| &container.ports).filter(|port| !port.name.is_empty()) {
        named_ports.entry(port.name.clone()).or_insert(port.container_port);
    }
    Some(Draft {
        key: around.key_of(item),
        written: Written::Pod,
        sidecar,
        labels: around.inject(labels.clone(), &network, &locality, Some(&pod.spec.node_name)),
        service_account: account(&pod.spec.service_account_name),
        addresses,
        network,
        locality,
        weight: 1,
        named_ports,
        health: if pod.is_ready() { Health::Healthy } else { Health::Unhealthy },
        origin: item.origin(""),
    })
}

fn has_sidecar(labels: &Labels, annotation: Option<&str>) -> bool {
    // The label beats the deprecated annotation.
    let inject = labels.get(INJECT).map(String::as_str).or(annotation);
    inject != Some("false") && labels.get(TLS_MODE).map(String::as_str) != Some("disabled")
}

fn account(written: &str) -> Text {
    Text::pooled(if written.is_empty() { "default" } else { written })
}
