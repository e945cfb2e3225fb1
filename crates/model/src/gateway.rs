//! What a gateway proxy listens for (Istio Gateway).
//!
//! Invariant: ports are the Service's, the workload's are looked up by who serves; the servers of all Gateways that select
//! a workload are in `ResolvedMesh.gateways` oldest first, conflicts already dropped with a diagnostic.

use crate::matching::{LabelSource, Labels, selects};
use crate::origin::Origin;
use crate::service::Protocol;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayConfig {
    pub origin: Origin,
    pub namespace: String,
    pub name: String,
    /// Labels of the proxies that serve it, in every namespace; empty: every gateway workload.
    pub selector: Labels,
    pub servers: Vec<GatewayServer>,
}

/// Where the mesh's own gateways run.
pub const MESH_NAMESPACE: &str = "fairlead-system";

/// Label and value of a pod that injection made a gateway: it is one whether or not a Gateway selects it.
pub const GATEWAY_POD: (&str, &str) = ("fairlead.dev/proxy", "gateway");

impl GatewayConfig {
    /// Whether it is for this proxy, by labels and namespace. Gateways select in every namespace (Istio); but what the mesh's own
    /// gateways listen for is written in their namespace or in the root namespace, and what is written in theirs is for them alone.
    pub fn serves(&self, namespace: &str, labels: &impl LabelSource, root_namespace: &str) -> bool {
        let let_in = match (namespace == MESH_NAMESPACE, self.namespace == MESH_NAMESPACE) {
            (true, own) => own || self.namespace == root_namespace,
            (false, own) => !own,
        };
        let_in && selects(&self.selector, labels)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayServer {
    pub origin: Origin,
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
    /// (namespace that routes must come from: `None` any; host pattern)
    pub hosts: Vec<(Option<String>, String)>,
    pub bind: Option<String>,
    pub tls: Option<ServerTls>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServerTls {
    /// Routed by SNI by VirtualService `tls` rules, not terminated.
    Passthrough,
    /// The destination is in the SNI (east-west).
    AutoPassthrough,
    /// Terminated with the mesh's own certificate; the client must show one.
    IstioMutual,
    /// Plaintext requests are answered 301 to https.
    HttpsRedirect,
}
