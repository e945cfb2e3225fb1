//! Kubernetes Services as services of the mesh.
//!
//! Never gives a service an address of its own making: virtual IPs are the view's. Invariant: `service.endpoints` are the
//! own cluster's only.

use super::draft::{Draft, Target, Written};
use super::endpoint::{AllFacts, endpoint, is_listed};
use super::families;
use super::objects::Item;
use super::selection::Selection;
use super::slices::Slices;
use super::workloads::Surroundings;
use crate::exports::rule::{ExportRule, IMPORT};
use crate::routes::host;
use crate::settings::export_defaults::{annotated, visibility};
use fairlead_model::endpoint::{Endpoint, Health, WorkloadRef};
use fairlead_model::service::{Protocol, Resolution, Service, ServiceKey, ServicePort, ServiceSource};
use fairlead_model::settings::MeshSettings;
use fairlead_resources::core as kubernetes;
use fairlead_resources::field::IntOrString;
use fairlead_resources::protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Annotation with the form of `exportTo`.
const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Annotation with the form of `trafficDistribution`, for API servers that do not have the field.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// A service of the own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnService {
    /// With its own endpoints, the virtual IPs that are written, and no policies.
    pub service: Service,
    /// `None`: it does not leave the cluster.
    pub export: Option<ExportRule>,
    /// `fairlead.dev/import: merge`.
    pub merge: bool,
    /// Unix seconds; decides conflicts where everything is exported.
    pub created: i64,
}

/// What building services needs.
pub(super) struct Context<'a> {
    pub settings: &'a MeshSettings,
    pub around: &'a Surroundings<'a>,
    pub drafts: &'a BTreeMap<WorkloadRef, Draft>,
    pub facts: &'a AllFacts,
    pub selection: &'a Selection<'a>,
    pub slices: &'a Slices<'a>,
    pub default_export: &'a [String],
}

/// `None` for `ExternalName` services, which have no endpoints.
pub(super) fn service(item: &Item<'_, kubernetes::Service>, context: &Context<'_>) -> Option<OwnService> {
    let spec = &item.object.spec;
    if spec.service_type == "ExternalName" {
        return None;
    }
    let namespace = item.meta.namespace.clone();
    let name = item.meta.name.clone();
    let key =
        ServiceKey { host: host::join(&name, &namespace, &context.settings.domain), namespace: namespace.clone() };
    let export_to = annotated(item.meta.annotation(EXPORT_TO));
    let ports: Vec<ServicePort> = spec
        .ports
        .iter()
        .map(|port| ServicePort {
            number: port.port,
            name: port.name.clone(),
            protocol: protocol::of_service_port(port),
        })
        .collect();
    let service = Service {
        key,
        source: ServiceSource::Kubernetes,
        ports,
        vips: item.object.virtual_ips().into_iter().filter_map(|ip| ip.parse().ok()).collect(),
        cidrs: Vec::new(),
        headless: item.object.is_headless(),
        resolution: Resolution::Endpoints,
        external: false,
        visibility: visibility(&export_to, context.default_export, &namespace),
        exported: BTreeSet::new(),
        clusters: BTreeSet::from([context.around.cluster.clone()]),
        traffic_distribution: Some(spec.traffic_distribution.as_str())
            .filter(|word| !word.is_empty())
            .or_else(|| item.meta.annotation(TRAFFIC_DISTRIBUTION))
            .map(str::to_owned),
        labels: (*item.meta.labels).clone(),
        endpoints: endpoints(item, context).into_iter().map(Arc::new).collect(),
        subject_alt_names: Vec::new(),
        policies: Vec::new(),
        origins: vec![item.origin("")],
        name,
    };
    Some(OwnService {
        service,
        export: None,
        merge: item.meta.annotation(IMPORT) == Some("merge"),
        created: item.created(),
    })
}

fn endpoints(item: &Item<'_, kubernetes::Service>, context: &Context<'_>) -> Vec<Endpoint> {
    let spec = &item.object.spec;
    let (namespace, name) = (item.meta.namespace.as_str(), item.meta.name.as_str());
    let id = format!("{name}.{namespace}");
    let slices = context.slices.of(namespace, name, context.drafts, context.around);
    let families = families::of(item.object);
    let settled = |health: Health| if spec.publish_not_ready_addresses { Health::Healthy } else { health };
    let mut found: BTreeMap<WorkloadRef, Endpoint> = BTreeMap::new();
    for draft in context.selection.select(namespace, &spec.selector) {
        if draft.written == Written::Pod && (slices.is_some() || draft.addresses.is_empty()) {
            continue;
        }
        let Some(facts) = context.facts.get(&draft.key) else { continue };
        let ports = tcp_ports(spec).filter_map(|port| {
            let target = port.target_port.as_ref().and_then(target);
            Some((port.port, draft.target_port(&port.name, port.port, target.as_ref())?))
        });
        let addresses = families::addresses(&families, &draft.addresses, &[]);
        found.insert(draft.key.clone(), endpoint(draft, facts, addresses, ports.collect(), &id, settled(draft.health)));
    }
    for one in slices.into_iter().flatten() {
        let Some(facts) = one.unknown.as_ref().or_else(|| context.facts.get(&one.draft.key)) else { continue };
        let ports = tcp_ports(spec).filter_map(|port| Some((port.port, *one.ports.get(&port.name)?)));
        let addresses = families::addresses(&families, &one.draft.addresses, &one.addresses);
        let endpoint = endpoint(&one.draft, facts, addresses, ports.collect(), &id, settled(one.health));
        found.insert(one.draft.key.clone(), endpoint);
    }
    found.into_values().collect()
}

/// Drops what the profile does not list; done last, since a workload that is not ready still listens.
pub(super) fn list(service: &mut Service, settings: &MeshSettings) {
    service.endpoints.retain(|endpoint| is_listed(settings, endpoint));
}

/// UDP is not proxied.
fn tcp_ports(spec: &kubernetes::ServiceSpec) -> impl Iterator<Item = &kubernetes::ServicePort> {
    spec.ports.iter().filter(|port| protocol::of_service_port(port) != Protocol::Udp)
}

/// A number out of range or 0 is the service port (Kubernetes writes 0 for unset).
fn target(written: &IntOrString) -> Option<Target> {
    match written {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number > 0).map(Target::Number),
        IntOrString::String(text) => match text.parse::<u16>() {
            Ok(number) => Some(Target::Number(number)),
            Err(_) => Some(Target::Name(text.clone())),
        },
    }
}
