//! What a gateway proxy listens for (Istio Gateway).
//!
//! Invariant: ports are the Service's, the workload's are looked up by who serves; the servers of all Gateways that select
//! a workload are in `ResolvedMesh.gateways` oldest first, conflicts already dropped with a diagnostic.

use crate::matching::Labels;
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
