//! PeerAuthentication as it holds for one workload.
//!
//! Never reads a selector in the root namespace (Istio ignores it there). Invariant: an object that could not be read is
//! STRICT for everything it may have selected.

use crate::registry::Item;
use fairlead_model::matching::{LabelSource, Labels, selects};
use fairlead_model::origin::Origin;
use fairlead_model::security::{MtlsMode, WorkloadSecurity};
use fairlead_resources::istio::{MutualTlsMode, PeerAuthentication};
use std::collections::BTreeMap;

/// All of a cluster, by namespace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct PeerAuthentications {
    mesh: Option<One>,
    namespaces: BTreeMap<String, Namespace>,
}

#[derive(Debug, Default)]
struct Namespace {
    general: Option<One>,
    selecting: Vec<(Labels, One)>,
}

#[derive(Debug)]
struct One {
    origin: Origin,
    /// `None`: UNSET.
    mode: Option<MtlsMode>,
    ports: BTreeMap<u16, Option<MtlsMode>>,
}

impl PeerAuthentications {
    /// `items` oldest first.
    pub fn new(items: &[Item<'_, PeerAuthentication>], root: &str) -> Self {
        let mut all = Self::default();
        for item in items {
            let object = item.object;
            let labels =
                object.spec.selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default();
            let one = One::new(item);
            let namespace = object.metadata.namespace.as_str();
            if namespace == root {
                if labels.is_empty() && all.mesh.is_none() {
                    all.mesh = Some(one);
                }
                continue;
            }
            let entry = all.namespaces.entry(namespace.to_owned()).or_default();
            if !labels.is_empty() {
                entry.selecting.push((labels, one));
            } else if entry.general.is_none() {
                entry.general = Some(one);
            }
        }
        all
    }

    /// Mode, modes by workload port, and the objects that decided.
    pub fn of(&self, namespace: &str, labels: &impl LabelSource) -> WorkloadSecurity {
        let mut security = WorkloadSecurity::default();
        let in_namespace = self.namespaces.get(namespace);
        let workload = in_namespace
            .and_then(|found| found.selecting.iter().find(|(wanted, _)| selects(wanted, labels)).map(|(_, one)| one));
        let levels = [self.mesh.as_ref(), in_namespace.and_then(|found| found.general.as_ref()), workload];
        for level in levels.into_iter().flatten() {
            if let Some(mode) = level.mode {
                security.mtls = mode;
                security.mtls_origins = vec![level.origin.clone()];
            }
        }
        if let Some(one) = workload.filter(|one| !one.ports.is_empty()) {
            // An UNSET port inherits the workload's mode.
            security.port_mtls = one.ports.iter().map(|(port, mode)| (*port, mode.unwrap_or(security.mtls))).collect();
            if !security.mtls_origins.contains(&one.origin) {
                security.mtls_origins.push(one.origin.clone());
            }
        }
        security
    }
}

impl One {
    fn new(item: &Item<'_, PeerAuthentication>) -> Self {
        let object = item.object;
        if object.unreadable {
            return Self { origin: item.origin(""), mode: Some(MtlsMode::Strict), ports: BTreeMap::new() };
        }
        let ports =
            object.spec.port_level_mtls.iter().filter_map(|(port, mtls)| Some((port.parse().ok()?, mode(mtls.mode))));
        Self {
            origin: item.origin(""),
            mode: object.spec.mtls.as_ref().and_then(|mtls| mode(mtls.mode)),
            ports: ports.collect(),
        }
    }
}

fn mode(written: MutualTlsMode) -> Option<MtlsMode> {
    match written {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(MtlsMode::Disable),
        MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}
