//! What an Envoy cluster is made of.

use crate::endpoints::EndpointsInput;
use crate::names::ResourceName;
use fairlead_model::matching::Labels;
use fairlead_model::policy::{Balancing, ConnectionPool, OutlierDetection};
use fairlead_model::service::Protocol;
use fairlead_model::{ClientKind, Origin};
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ClusterInput {
    pub name: ResourceName,
    pub client: ClientKind,
    pub upstream: Upstream,
    #[serde(skip)]
    pub origins: Vec<Origin>,
}

/// Where its endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Upstream {
    /// A service, its endpoints by EDS (or the address dialled).
    Service(Box<Destination>),
    /// The first that can serve (stock Envoy's aggregate cluster), in this protocol.
    FirstOf { clusters: Vec<ResourceName>, of: Box<Destination> },
    /// The address dialled.
    OriginalDestination,
    /// A workload's own program: the address dialled, in the program's protocol.
    Program { protocol: Protocol },
    /// Nobody.
    Nobody,
    /// The gateways into a network.
    Gateways { addresses: Vec<(IpAddr, u16)>, connect_timeout: Duration },
    /// A local endpoint behind the east-west gateway that this proxy is: bytes are passed on as they are.
    Behind { address: IpAddr, port: u16, connect_timeout: Duration },
    /// As `Behind`, the endpoints by EDS.
    BehindMany { connect_timeout: Duration },
}

/// A service port (or subset) as one caller treats it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Destination {
    pub host: String,
    pub service: String,
    pub namespace: String,
    pub external: bool,
    /// Profile `istio`: nobody judges the ways to its endpoints; failing calls alone tell, where outlier detection listens.
    pub unjudged: bool,
    /// ServiceEntry resolution NONE: the address dialled.
    pub passthrough: bool,
    /// Endpoints that are names stand in the Envoy cluster itself: only there may an address be a name.
    pub named: Option<Named>,
    pub protocol: Protocol,
    pub connect_timeout: Duration,
    pub balancing: Balancing,
    pub pool: ConnectionPool,
    pub outlier: Option<OutlierDetection>,
    pub tls: UpstreamTls,
    /// Locality weights hold (`distribute` applies to this caller).
    pub weighted_localities: bool,
    /// The first priority keeps all while any of its endpoints is healthy (`distribute` with `failover`).
    pub failover_when_none: bool,
    /// The DestinationRule that decided, shown by `explain`.
    pub rule: Option<Origin>,
    /// Labels of the subset, shown to people only.
    pub subset: Labels,
}

/// Endpoints of which some are names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Named {
    pub endpoints: Box<EndpointsInput>,
    /// One address at a time (DNS_ROUND_ROBIN); Envoy wants exactly one endpoint then.
    pub one_address: bool,
}

/// Whether and how the connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum UpstreamTls {
    Plaintext,
    /// Per endpoint, by whether its proxy accepts it (Istio's automatic mutual TLS).
    Automatic {
        identities: Vec<String>,
    },
    /// Always, because a rule says so.
    Mutual {
        identities: Vec<String>,
    },
    /// Towards the outside.
    Simple {
        sni: String,
        certified: Certified,
    },
}

/// What a server outside has to show besides a chain to the system's roots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Certified {
    /// Not even the chain: a rule says so.
    Unverified,
    /// One of these, DNS names or URIs.
    As(Vec<String>),
    /// Some name of this domain (`.example.com`): a wildcard host of which nobody says which name it has.
    Below(String),
    /// The chain only: nothing says a name.
    Chain,
}

impl ClusterInput {
    pub fn new(name: ResourceName, client: ClientKind, upstream: Upstream, origins: Vec<Origin>) -> Self {
        Self { name, client, upstream, origins }
    }

    /// An original-destination Envoy cluster of no service.
    #[cfg(test)]
    pub fn plain(name: ResourceName) -> Self {
        Self::new(name, ClientKind::Fairlead, Upstream::OriginalDestination, Vec::new())
    }
}
