//! Endpoints of a service: its workloads with ports, identity and what their proxies accept.
//!
//! Never asks who calls. Invariant: `mutual_tls` is the callee's cluster's own say (its PeerAuthentication), in both
//! profiles; it travels in summaries, so a caller never guesses from its own policies.

use super::draft::Draft;
use super::endpoint_id;
use crate::gateways::Gateways;
use crate::security::PeerAuthentications;
use fairlead_model::endpoint::{Endpoint, Health, WorkloadRef};
use fairlead_model::mesh::GatewayKind;
use fairlead_model::security::{MtlsMode, WorkloadSecurity};
use fairlead_model::settings::{MeshSettings, Profile};
use fairlead_model::{Shared, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What one workload is, beyond its draft.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub security: Shared<WorkloadSecurity>,
    pub gateway: Option<GatewayKind>,
    /// Service ports that a gateway workload terminates with the mesh's certificate.
    pub mutual_ports: BTreeSet<u16>,
    pub identity: Option<Text>,
}

/// Facts of all workloads of a cluster.
pub(super) type AllFacts = BTreeMap<WorkloadRef, Facts>;

pub(super) fn facts(
    drafts: &BTreeMap<WorkloadRef, Draft>,
    settings: &MeshSettings,
    gateways: &Gateways,
    peers: &PeerAuthentications,
) -> AllFacts {
    let one = |draft: &Draft| {
        let gateway = gateways.kind(&draft.key.namespace, &draft.labels);
        let identity = (draft.sidecar || gateway.is_some()).then(|| {
            Text::pooled(&settings.spiffe_id(&draft.key.cluster, &draft.key.namespace, &draft.service_account))
        });
        Facts {
            security: Shared::pooled(peers.of(&draft.key.namespace, &draft.labels)),
            gateway,
            mutual_ports: gateway
                .map(|_| gateways.mutual_ports(&draft.key.namespace, &draft.labels))
                .unwrap_or_default(),
            identity,
        }
    };
    drafts.iter().map(|(key, draft)| (key.clone(), one(draft))).collect()
}

/// `addresses`: the first is dialled; `ports` maps service ports to workload ports; `service` is the name the endpoint's id is made of.
pub(super) fn endpoint(
    draft: &Draft,
    facts: &Facts,
    addresses: Vec<IpAddr>,
    ports: BTreeMap<u16, u16>,
    service: &str,
    health: Health,
) -> Endpoint {
    let accepts = |number: u16, target: u16| match facts.gateway {
        Some(_) => facts.mutual_ports.contains(&number),
        None => draft.sidecar && facts.security.mtls_on(target) != MtlsMode::Disable,
    };
    let mutual_tls: BTreeSet<u16> =
        ports.iter().filter(|(number, target)| accepts(**number, **target)).map(|(number, _)| *number).collect();
    Endpoint {
        id: endpoint_id(&draft.key, service),
        workload: draft.key.clone(),
        network: draft.network.clone(),
        locality: draft.locality.clone(),
        address: addresses.first().copied(),
        additional_addresses: addresses.into_iter().skip(1).collect(),
        hostname: None,
        mutual_tls: Shared::pooled(mutual_tls),
        ports: Shared::pooled(ports),
        labels: draft.labels.clone(),
        identity: facts.identity.clone(),
        weight: draft.weight.max(1),
        health,
    }
}

/// Whether an endpoint is told to callers at all. Profile `istio`: what is not ready leaves the totals.
pub(super) fn is_listed(settings: &MeshSettings, endpoint: &Endpoint) -> bool {
    settings.profile == Profile::Fairlead || endpoint.health == Health::Healthy
}
