//! `VirtualService`: its top, and TCP and TLS routes. HTTP routes are in `http_route`.
//!
//! Never orders or merges rules. Invariant: rules keep their index, refused ones included, so that `http[1]` means the
//! same in the file, in diagnostics and in `explain`.

use std::collections::BTreeMap;

use super::{Destination, HttpRoute};
use crate::meta::Meta;

message! {
    /// Routing rules of hosts.
    pub struct VirtualService {
        /// Identity.
        metadata: Meta,
        /// The rules.
        spec: VirtualServiceSpec,
    }
}

message! {
    /// `VirtualService.spec`.
    pub struct VirtualServiceSpec {
        /// Names the rules are for.
        hosts: Vec<String>,
        /// Gateways they are applied at; empty means `mesh`.
        gateways: Vec<String>,
        /// HTTP rules, first match wins.
        http: Vec<HttpRoute>,
        /// Rules for TLS that is not terminated.
        tls: Vec<TlsRoute>,
        /// Rules for other TCP.
        tcp: Vec<TcpRoute>,
        /// Namespaces that see it.
        export_to: Vec<String>,
    }
}

message! {
    /// One TLS rule.
    pub struct TlsRoute {
        /// OR between blocks; at least one.
        matches: Vec<TlsMatch> = "match",
        /// Destinations.
        route: Vec<RouteDestination>,
    } with {
        /// The rule is refused (a diagnostic says why): what it matches fails (HTTP 500, TCP reset) instead of falling
        /// through to a rule that was not meant for it.
        refused: bool,
    }
}

message! {
    /// AND of a TLS rule's conditions.
    pub struct TlsMatch {
        /// Server names, a leading `*` allowed.
        sni_hosts: Vec<String>,
        /// Destination addresses or CIDRs.
        destination_subnets: Vec<String>,
        /// Listener port; 0 is any.
        port: u32,
        /// Labels of the caller.
        source_labels: BTreeMap<String, String>,
        /// Overrides the VirtualService's gateways.
        gateways: Vec<String>,
        /// Namespace of the caller.
        source_namespace: String,
    }
}

message! {
    /// One TCP rule.
    pub struct TcpRoute {
        /// OR between blocks; empty matches everything.
        matches: Vec<L4Match> = "match",
        /// Destinations.
        route: Vec<RouteDestination>,
    } with {
        /// The rule is refused (a diagnostic says why): what it matches fails (HTTP 500, TCP reset) instead of falling
        /// through to a rule that was not meant for it.
        refused: bool,
    }
}

message! {
    /// AND of a TCP rule's conditions.
    pub struct L4Match {
        /// Destination addresses or CIDRs.
        destination_subnets: Vec<String>,
        /// Listener port; 0 is any.
        port: u32,
        /// Deprecated in Istio and without effect.
        source_subnet: String,
        /// Labels of the caller.
        source_labels: BTreeMap<String, String>,
        /// Overrides the VirtualService's gateways.
        gateways: Vec<String>,
        /// Namespace of the caller.
        source_namespace: String,
    }
}

message! {
    /// A weighted TCP or TLS destination.
    pub struct RouteDestination {
        /// Where to.
        destination: Option<Destination>,
        /// Relative; 0 for a single destination means all.
        weight: i32,
    }
}
