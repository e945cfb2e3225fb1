//! Which of the own services are exported, and with which ports.
//!
//! Never exports a ServiceEntry in profile `fairlead`. Profile `istio`: an east-west gateway also serves MESH_INTERNAL
//! ServiceEntries, since every cluster carries the same ones.

use super::rule::{EXPORT_PORTS, EXPORT_TO, ExportRule};
use crate::analyze::codes;
use crate::registry::{Item, OwnService};
use crate::routes::host;
use crate::settings::cluster_local::is_local;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::service::{Protocol, ServiceKey, ServiceSource};
use fairlead_model::settings::{Export, MeshSettings, Profile};
use fairlead_resources::mcs::ServiceExport;
use std::collections::{BTreeMap, BTreeSet};

/// Sets `export` and `exported` of each own service.
pub(crate) fn offers(
    services: &mut BTreeMap<ServiceKey, OwnService>,
    exports: &[Item<'_, ServiceExport>],
    settings: &MeshSettings,
    diagnostics: &mut Vec<Diagnostic>,
) {
    if settings.export == Export::All {
        for own in services.values_mut() {
            let is_service = own.service.source == ServiceSource::Kubernetes;
            if is_service
                && !is_local(&settings.cluster_local_hosts, &own.service.key.host)
                && let Some(origin) = own.service.origins.first().cloned()
            {
                own.export = Some(ExportRule::new(None, None, own.created, origin));
            }
        }
    }
    for item in exports {
        let key = ServiceKey {
            namespace: item.meta.namespace.clone(),
            host: host::join(&item.meta.name, &item.meta.namespace, &settings.domain),
        };
        let Some(own) = services.get_mut(&key) else {
            let message = format!("there is no Service {}/{} to export", item.meta.namespace, item.meta.name);
            diagnostics.push(
                Diagnostic::warning(codes::EXPORT_WITHOUT_SERVICE, item.origin(""), message).hint(
                    "create the Service with the ServiceExport's name and namespace, or remove the ServiceExport",
                ),
            );
            continue;
        };
        let annotation = |key| item.meta.annotation(key);
        let mut rule =
            ExportRule::new(annotation(EXPORT_TO), annotation(EXPORT_PORTS), item.created(), item.origin(""));
        rule.labels.clone_from(&item.object.spec.exported_labels);
        for word in rule.unknown_ports(&own.service.ports) {
            let at = item.origin("metadata.annotations");
            diagnostics.push(
                Diagnostic::warning(
                    codes::EXPORT_WITHOUT_PORT,
                    at,
                    format!("the Service has no port `{word}`, so none of that name is exported"),
                )
                .hint(format!("name ports of the Service in {EXPORT_PORTS}, by name or number")),
            );
        }
        own.export = Some(rule);
    }
    for own in services.values_mut() {
        own.service.exported = exported(own, settings);
    }
}

fn exported(own: &OwnService, settings: &MeshSettings) -> BTreeSet<u16> {
    let ports = own.service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
    match &own.export {
        Some(rule) => ports.filter(|port| rule.has_port(port)).map(|port| port.number).collect(),
        None => {
            let entry = own.service.source == ServiceSource::ServiceEntry && !own.service.external;
            let all = settings.profile == Profile::Istio && settings.export == Export::All;
            if entry && all { ports.map(|port| port.number).collect() } else { BTreeSet::new() }
        }
    }
}
