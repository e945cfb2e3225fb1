//! Gateway objects as listeners.
//!
//! Never resolves a host: routes do.

use super::conflicts;
use crate::registry::{Draft, Item};
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::gateway::{GATEWAY_POD, GatewayConfig, GatewayServer, ServerTls};
use fairlead_model::matching::LabelSource;
use fairlead_model::mesh::GatewayKind;
use fairlead_resources::istio::{self, ServerTlsMode};
use fairlead_resources::protocol;
use std::collections::BTreeSet;

/// Label and value of a pod with an injected sidecar (Istio's injector writes it, and ours; gateways do not have it).
const INJECTED: (&str, &str) = ("security.istio.io/tlsMode", "istio");

/// All Gateways of a cluster, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gateways {
    pub configs: Vec<GatewayConfig>,
    root_namespace: String,
}

impl Gateways {
    /// `items` oldest first; `drafts` are the cluster's workloads, which decide whether two Gateways meet.
    pub fn new<'a>(
        items: &[Item<'_, istio::Gateway>],
        drafts: impl Iterator<Item = &'a Draft>,
        root_namespace: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut configs: Vec<GatewayConfig> = items.iter().map(config).collect();
        if !configs.is_empty() {
            let workloads = drafts.map(|draft| (draft.key.namespace.as_str(), &draft.labels)).collect();
            conflicts::drop_conflicting(&mut configs, &workloads, root_namespace, diagnostics);
        }
        Self { configs, root_namespace: root_namespace.to_owned() }
    }

    /// What kind of gateway a workload is, if one: Gateways with a non-empty selector make it one, or injection did.
    pub fn kind(&self, namespace: &str, labels: &impl LabelSource) -> Option<GatewayKind> {
        let mut kind = (has(labels, GATEWAY_POD) && !has(labels, INJECTED)).then_some(GatewayKind::Ingress);
        for config in self.selecting(namespace, labels) {
            if config.servers.iter().any(|server| server.tls == Some(ServerTls::AutoPassthrough)) {
                return Some(GatewayKind::EastWest);
            }
            kind = Some(GatewayKind::Ingress);
        }
        kind
    }

    /// Service ports on which a gateway workload terminates mutual TLS with the mesh's certificate.
    pub fn mutual_ports(&self, namespace: &str, labels: &impl LabelSource) -> BTreeSet<u16> {
        let servers = self.selecting(namespace, labels).flat_map(|config| &config.servers);
        servers.filter(|server| server.tls == Some(ServerTls::IstioMutual)).map(|server| server.port).collect()
    }

    /// None for a pod with an injected sidecar: a selector, of whatever namespace, must not turn it into a gateway and so take its
    /// mutual TLS and its policies from it.
    pub fn selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a impl LabelSource,
    ) -> impl Iterator<Item = &'a GatewayConfig> {
        let injected = has(labels, INJECTED);
        let may = move |config: &&GatewayConfig| !injected && !config.selector.is_empty();
        self.configs.iter().filter(may).filter(move |config| config.serves(namespace, labels, &self.root_namespace))
    }
}

fn has(labels: &impl LabelSource, (key, value): (&str, &str)) -> bool {
    labels.value(key) == Some(value)
}

fn config(item: &Item<'_, istio::Gateway>) -> GatewayConfig {
    let namespace = item.meta.namespace.clone();
    let servers = item.object.spec.servers.iter().enumerate().filter(|(_, server)| !server.refused);
    GatewayConfig {
        origin: item.origin(""),
        name: item.meta.name.clone(),
        selector: item.object.spec.selector.clone(),
        servers: servers.filter_map(|(at, written)| server(written, at, item, &namespace)).collect(),
        namespace,
    }
}

fn server(
    written: &istio::Server,
    at: usize,
    item: &Item<'_, istio::Gateway>,
    namespace: &str,
) -> Option<GatewayServer> {
    let port = written.port.as_ref()?;
    let tls = match &written.tls {
        None => None,
        Some(tls) if tls.https_redirect => Some(ServerTls::HttpsRedirect),
        Some(tls) => match tls.mode {
            ServerTlsMode::Passthrough => Some(ServerTls::Passthrough),
            ServerTlsMode::AutoPassthrough => Some(ServerTls::AutoPassthrough),
            ServerTlsMode::IstioMutual => Some(ServerTls::IstioMutual),
            // Not implemented; such servers are refused where the object is read.
            ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => return None,
        },
    };
    Some(GatewayServer {
        origin: item.origin(&format!("spec.servers[{at}]")),
        name: if written.name.is_empty() { port.name.clone() } else { written.name.clone() },
        port: u16::try_from(port.number).ok().filter(|number| *number > 0)?,
        protocol: protocol::of_istio_port(port),
        hosts: written.hosts.iter().map(|host| host_of(host, namespace)).collect(),
        bind: Some(written.bind.clone()).filter(|bind| !bind.is_empty()),
        tls,
    })
}

/// `[namespace/]host`: `*` any namespace (the default), `.` the Gateway's.
fn host_of(written: &str, namespace: &str) -> (Option<String>, String) {
    match written.split_once('/') {
        Some(("*", host)) => (None, host.to_ascii_lowercase()),
        Some((".", host)) => (Some(namespace.to_owned()), host.to_ascii_lowercase()),
        Some((of, host)) => (Some(of.to_owned()), host.to_ascii_lowercase()),
        None => (None, written.to_ascii_lowercase()),
    }
}
