//! EndpointSlices: endpoints as a Kubernetes control plane has computed them.
//!
//! Never merges two Services' slices. Invariant: one endpoint a workload, also where it stands in a slice of each address family; a slice
//! whose Pod is not among the objects still gives an endpoint, without identity.

use super::draft::{Draft, Written};
use super::endpoint::Facts;
use super::objects::{Item, Objects};
use super::proxy_address::is_refused_in_slices;
use super::workloads::Surroundings;
use fairlead_model::Shared;
use fairlead_model::endpoint::{Health, WorkloadRef};
use fairlead_model::security::WorkloadSecurity;
use fairlead_resources::core::{EndpointSlice, SliceEndpoint};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// Slices by (namespace, service).
pub(super) struct Slices<'a> {
    by_service: HashMap<(&'a str, &'a str), Vec<Item<'a, EndpointSlice>>>,
}

/// One endpoint of a slice: its workload (made up if there is no Pod), its health, and ports by service port name.
pub(super) struct SliceWorkload<'d> {
    pub draft: Cow<'d, Draft>,
    /// Facts of a workload that is not among the drafts.
    pub unknown: Option<Facts>,
    pub health: Health,
    /// Its addresses as the slices have them: one slice has those of one family.
    pub addresses: Vec<IpAddr>,
    pub ports: BTreeMap<String, u16>,
}

impl<'a> Slices<'a> {
    pub fn new(objects: &Objects<'a>) -> Self {
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for item in &objects.slices {
            if let Some(service) = item.object.service_name() {
                by_service.entry((item.meta.namespace.as_str(), service)).or_default().push(*item);
            }
        }
        Self { by_service }
    }

    /// `None`: the Service has no slices, so its Pods are selected by label.
    pub fn of<'d>(
        &self,
        namespace: &str,
        service: &str,
        drafts: &'d BTreeMap<WorkloadRef, Draft>,
        around: &Surroundings<'_>,
    ) -> Option<Vec<SliceWorkload<'d>>> {
        let slices = self.by_service.get(&(namespace, service))?;
        let mut found: BTreeMap<WorkloadRef, SliceWorkload<'d>> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.object.address_type != "FQDN") {
            let ports: BTreeMap<String, u16> = slice
                .object
                .ports
                .iter()
                .filter_map(|port| Some((port.name.clone().unwrap_or_default(), port.port?)))
                .collect();
            for endpoint in &slice.object.endpoints {
                let Some(one) = workload(endpoint, slice, drafts, around, ports.clone()) else { continue };
                match found.get_mut(&one.draft.key) {
                    Some(known) => {
                        known.ports.extend(one.ports);
                        known.addresses.extend(one.addresses);
                    }
                    None => drop(found.insert(one.draft.key.clone(), one)),
                }
            }
        }
        Some(found.into_values().collect())
    }
}

fn workload<'d>(
    endpoint: &SliceEndpoint,
    slice: &Item<'_, EndpointSlice>,
    drafts: &'d BTreeMap<WorkloadRef, Draft>,
    around: &Surroundings<'_>,
    ports: BTreeMap<String, u16>,
) -> Option<SliceWorkload<'d>> {
    let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
    let addresses: Vec<IpAddr> = addresses.filter(|address| !is_refused_in_slices(*address)).collect();
    let first = addresses.first()?;
    let namespace = slice.meta.namespace.as_str();
    let named = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| target.name.as_str());
    let key = around.key(namespace, named.unwrap_or(&first.to_string()));
    let health = health(endpoint);
    if let Some(draft) = drafts.get(&key) {
        // What was observed beats what the slice says.
        let health = if draft.health == Health::Healthy { health } else { draft.health };
        return Some(SliceWorkload { draft: Cow::Borrowed(draft), unknown: None, health, addresses, ports });
    }
    let network = around.network.clone();
    let mut locality = around.locality.clone();
    if let Some(zone) = &endpoint.zone {
        locality.zone = zone.as_str().to_owned();
        locality.pool();
    }
    let draft = Draft {
        key,
        written: Written::Pod,
        labels: around.inject(Default::default(), &network, &locality, endpoint.node_name.as_deref()),
        service_account: "default".into(),
        addresses: addresses.clone(),
        network,
        locality,
        weight: 1,
        sidecar: false,
        named_ports: BTreeMap::new(),
        health,
        origin: slice.origin("endpoints"),
    };
    let unknown = Facts {
        security: Shared::pooled(WorkloadSecurity::default()),
        gateway: None,
        mutual_ports: BTreeSet::new(),
        identity: None,
    };
    Some(SliceWorkload { draft: Cow::Owned(draft), unknown: Some(unknown), health, addresses, ports })
}

fn health(endpoint: &SliceEndpoint) -> Health {
    let conditions = &endpoint.conditions;
    let ready = conditions.ready.unwrap_or(true);
    if conditions.terminating == Some(true) {
        return if conditions.serving.unwrap_or(ready) { Health::Draining } else { Health::Unhealthy };
    }
    if ready { Health::Healthy } else { Health::Unhealthy }
}
