//! ServiceEntries as services of the mesh.
//!
//! Never exported to other clusters by itself in profile `fairlead`. Rules (Istio): a host that is a Service's only
//! decorates it with its subjectAltNames; MESH_EXTERNAL has no mesh identity; an inline endpoint accepts mutual TLS if its
//! label says so, or, without the label, if it has an account or is a workload with a sidecar.

use super::draft::{Draft, Target, Written};
use super::endpoint::endpoint;
use super::endpoint_id;
use super::objects::Item;
use super::proxy_address::{is_refused, is_refused_name};
use super::service::{Context, OwnService};
use super::workloads::entry_ports;
use crate::security::PeerAuthentications;
use crate::settings::export_defaults::visibility;
use fairlead_model::endpoint::{Endpoint, Health, WorkloadRef};
use fairlead_model::security::MtlsMode;
use fairlead_model::service::{Resolution, Service, ServiceKey, ServicePort, ServiceSource};
use fairlead_model::{Shared, Text};
use fairlead_resources::istio::{self, Port, ServiceEntry, ServiceLocation, WorkloadEntrySpec};
use fairlead_resources::protocol;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

const TLS_MODE: &str = "security.istio.io/tlsMode";

/// Workloads by address, to recognise them in inline endpoints.
pub(super) type ByAddress<'a> = HashMap<IpAddr, &'a Draft>;

/// One service for each host.
pub(super) fn services(
    item: &Item<'_, ServiceEntry>,
    context: &Context<'_>,
    by_address: &ByAddress<'_>,
    peers: &PeerAuthentications,
) -> Vec<OwnService> {
    let spec = &item.object.spec;
    let namespace = &item.meta.namespace;
    let ports: Vec<(ServicePort, Option<Target>)> = spec.ports.iter().filter_map(port).collect();
    let (vips, cidrs) = addresses(&spec.addresses);
    let one = |host: &String| {
        let host = host.to_ascii_lowercase();
        let endpoints: Vec<Endpoint> = match (&spec.resolution, &spec.workload_selector) {
            (istio::Resolution::None, _) => Vec::new(),
            (_, Some(selector)) => selected(&selector.labels, &ports, &host, namespace, context),
            // The host itself is the name to resolve (Istio).
            (istio::Resolution::Dns | istio::Resolution::DnsRoundRobin, None) if spec.endpoints.is_empty() => {
                let itself = WorkloadEntrySpec { address: host.clone(), ..WorkloadEntrySpec::default() };
                inline(&itself, item, &ports, &host, context, by_address, peers).into_iter().collect()
            }
            (_, None) => spec
                .endpoints
                .iter()
                .filter_map(|written| inline(written, item, &ports, &host, context, by_address, peers))
                .collect(),
        };
        let service = Service {
            key: ServiceKey { namespace: namespace.clone(), host: host.clone() },
            name: host,
            source: ServiceSource::ServiceEntry,
            ports: ports.iter().map(|(port, _)| port.clone()).collect(),
            vips: vips.clone(),
            cidrs: cidrs.clone(),
            headless: false,
            resolution: match spec.resolution {
                istio::Resolution::None => Resolution::Passthrough,
                istio::Resolution::Dns => Resolution::Dns,
                istio::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
                _ => Resolution::Endpoints,
            },
            external: spec.location == ServiceLocation::MeshExternal,
            visibility: visibility(&spec.export_to, context.default_export, namespace),
            exported: BTreeSet::new(),
            clusters: BTreeSet::from([context.around.cluster.clone()]),
            traffic_distribution: None,
            labels: (*item.meta.labels).clone(),
            endpoints: endpoints.into_iter().map(Arc::new).collect(),
            subject_alt_names: spec.subject_alt_names.clone(),
            policies: Vec::new(),
            origins: vec![item.origin("")],
        };
        OwnService { service, export: None, merge: false, created: item.created() }
    };
    spec.hosts.iter().map(one).collect()
}

fn port(written: &Port) -> Option<(ServicePort, Option<Target>)> {
    let valid = |number: u32| u16::try_from(number).ok().filter(|number| *number > 0);
    let port = ServicePort {
        number: valid(written.number)?,
        name: written.name.clone(),
        protocol: protocol::of_istio_port(written),
    };
    Some((port, valid(written.target_port).map(Target::Number)))
}

/// Single addresses, and ranges as text.
fn addresses(written: &[String]) -> (Vec<IpAddr>, Vec<String>) {
    let (mut vips, mut cidrs) = (Vec::new(), Vec::new());
    for text in written {
        if let Ok(address) = text.parse() {
            vips.push(address);
        } else if let Ok(range) = text.parse::<ipnet::IpNet>() {
            if range.prefix_len() == range.max_prefix_len() {
                vips.push(range.addr())
            } else {
                cidrs.push(text.clone())
            }
        }
    }
    (vips, cidrs)
}

fn selected(
    labels: &BTreeMap<String, String>,
    ports: &[(ServicePort, Option<Target>)],
    host: &str,
    namespace: &str,
    context: &Context<'_>,
) -> Vec<Endpoint> {
    let one = |draft: &Draft| {
        let facts = context.facts.get(&draft.key)?;
        let ports = ports.iter().filter_map(|(port, target)| {
            Some((port.number, draft.target_port(&port.name, port.number, target.as_ref())?))
        });
        Some(endpoint(
            draft,
            facts,
            draft.addresses.first().copied().into_iter().collect(),
            ports.collect(),
            host,
            draft.health,
        ))
    };
    let starting = |draft: &&Draft| draft.written == Written::Pod && draft.addresses.is_empty();
    context.selection.select(namespace, labels).into_iter().filter(|draft| !starting(draft)).filter_map(one).collect()
}

/// `None` for addresses that are neither IP addresses nor (with DNS) names, unless only the network is known (it is reached
/// through its gateways).
fn inline(
    written: &WorkloadEntrySpec,
    item: &Item<'_, ServiceEntry>,
    ports: &[(ServicePort, Option<Target>)],
    host: &str,
    context: &Context<'_>,
    by_address: &ByAddress<'_>,
    peers: &PeerAuthentications,
) -> Option<Endpoint> {
    let address: Option<IpAddr> = written.address.parse().ok();
    let resolved = matches!(item.object.spec.resolution, istio::Resolution::Dns | istio::Resolution::DnsRoundRobin);
    let dns =
        (resolved && address.is_none() && !written.address.is_empty()).then(|| written.address.to_ascii_lowercase());
    if address.is_none() && dns.is_none() && (!written.address.is_empty() || written.network.is_empty()) {
        return None;
    }
    if address.is_some_and(is_refused) || dns.as_deref().is_some_and(is_refused_name) {
        return None;
    }
    let around = context.around;
    let namespace = item.meta.namespace.as_str();
    let network = around.network(&written.network, &written.labels, address);
    let locality = around.locality(&written.locality);
    let labels = around.inject(written.labels.clone().into(), &network, &locality, None);
    let known = address.and_then(|address| by_address.get(&address)).filter(|draft| draft.network == network);
    let name = if written.address.is_empty() { format!("network-{network}") } else { written.address.clone() };
    let workload: WorkloadRef = known.map_or_else(|| around.key(namespace, &name), |draft| draft.key.clone());
    let named = entry_ports(&written.ports);
    let ports: BTreeMap<u16, u16> = ports
        .iter()
        .map(|(port, target)| {
            let number = match target {
                Some(Target::Number(number)) => *number,
                _ => port.number,
            };
            (port.number, named.get(&port.name).copied().unwrap_or(number))
        })
        .collect();
    let internal = item.object.spec.location == ServiceLocation::MeshInternal;
    let speaks = match written.labels.get(TLS_MODE).map(String::as_str) {
        Some(mode) => mode == "istio",
        None => !written.service_account.is_empty() || known.is_some_and(|draft| draft.sidecar),
    };
    let account = match (written.service_account.as_str(), known) {
        ("", Some(draft)) => &*draft.service_account,
        ("", None) => "default",
        (account, _) => account,
    };
    let security = match known {
        Some(draft) => peers.of(&workload.namespace, &draft.labels),
        None => peers.of(&workload.namespace, &written.labels),
    };
    let accepts = |port: u16| internal && speaks && security.mtls_on(port) != MtlsMode::Disable;
    Some(Endpoint {
        id: endpoint_id(&workload, host),
        identity: (internal && speaks)
            .then(|| Text::pooled(&context.settings.spiffe_id(around.cluster, &workload.namespace, account))),
        mutual_tls: ports.iter().filter(|(_, target)| accepts(**target)).map(|(number, _)| *number).collect(),
        workload,
        network,
        locality,
        address,
        additional_addresses: Vec::new(),
        hostname: dns.map(Text::from),
        ports: Shared::pooled(ports),
        labels,
        weight: written.weight.max(1),
        health: known.map_or(Health::Healthy, |draft| draft.health),
    })
}
