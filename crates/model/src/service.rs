//! A name that workloads serve, as the proxies of one cluster see it.
//!
//! Invariant: a `Service` has the endpoints of every cluster that its host covers for this viewer (design: "what does a
//! name cover") and the virtual IPs of the viewer's own cluster.

use crate::endpoint::Endpoint;
use crate::ids::ClusterId;
use crate::matching::{Labels, Visibility};
use crate::origin::Origin;
use crate::policy::ScopedPolicy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The protocol of a service port (Istio protocol selection).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    Https,
    Tls,
    Tcp,
    Udp,
    /// Not declared: told from the first bytes.
    #[default]
    Auto,
}

impl Protocol {
    /// Whether requests on it are routed one by one.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the upstream speaks HTTP/2 by declaration.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
}

/// Namespace and fully qualified host. Two namespaces may declare the same ServiceEntry host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    pub namespace: String,
    pub host: String,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.host)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePort {
    pub number: u16,
    pub name: String,
    pub protocol: Protocol,
}

/// How a connection to the service finds an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resolution {
    /// From its endpoints.
    #[default]
    Endpoints,
    /// The address the caller dialled (ServiceEntry NONE).
    Passthrough,
    /// From its endpoints, of which some are names that the caller's proxy resolves, each to all of its addresses
    /// (ServiceEntry DNS).
    Dns,
    /// As `Dns`, but a name is one endpoint, at whichever address it resolves to (ServiceEntry DNS_ROUND_ROBIN).
    DnsRoundRobin,
}

impl Resolution {
    /// Whether the service has endpoints at all.
    pub fn has_endpoints(self) -> bool {
        self != Self::Passthrough
    }
}

/// What kind of name it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceSource {
    /// A Service of this or another cluster under its plain (`cluster.local`) name.
    #[default]
    Kubernetes,
    /// The `clusterset.local` name of exported services.
    ClusterSet,
    ServiceEntry,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    pub key: ServiceKey,
    /// Short name (Service metadata.name); the host for a ServiceEntry.
    pub name: String,
    pub source: ServiceSource,
    pub ports: Vec<ServicePort>,
    /// Addresses that mean this service in the viewer's cluster; empty for a headless service.
    pub vips: Vec<IpAddr>,
    /// ServiceEntry CIDR addresses, as text.
    pub cidrs: Vec<String>,
    pub headless: bool,
    pub resolution: Resolution,
    /// MESH_EXTERNAL: no mesh identity, no automatic mutual TLS.
    pub external: bool,
    pub visibility: Visibility,
    /// Service ports on which the viewer's gateways serve the viewer's own endpoints of it to other clusters; empty: it
    /// is not exported. A service that nobody sees (`Visibility::Namespaces` empty) may still be served so.
    #[serde(default)]
    pub exported: BTreeSet<u16>,
    /// Clusters in which the service exists for this viewer.
    pub clusters: BTreeSet<ClusterId>,
    /// Service `trafficDistribution` (`PreferSameZone`, `PreferClose`, `PreferSameNode`), if written.
    pub traffic_distribution: Option<String>,
    pub labels: Labels,
    pub endpoints: Vec<Arc<Endpoint>>,
    /// ServiceEntry subjectAltNames.
    pub subject_alt_names: Vec<String>,
    /// Destination policies that can apply to callers, most preferred first: the first whose scope holds the caller is
    /// the only one used.
    pub policies: Vec<ScopedPolicy>,
    pub origins: Vec<Origin>,
}

impl Service {
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }
}
