//! What a listener is made of.

use crate::names::ResourceName;
use fairlead_model::security::AuthorizationPolicy;
use fairlead_model::settings::{MeshSettings, PathNormalization};
use fairlead_model::{ClientKind, Origin};
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ListenerInput {
    pub name: ResourceName,
    pub client: ClientKind,
    pub bind: Bind,
    pub inbound: bool,
    /// Look for a TLS ClientHello before choosing a chain.
    pub inspect_tls: bool,
    /// Look for HTTP before choosing a chain.
    pub inspect_http: bool,
    /// Ports on which looking for HTTP would only make a server-first protocol wait.
    pub no_http_inspection: Vec<u16>,
    pub chains: Vec<Chain>,
    pub default: Option<Chain>,
    /// What `guarded` chains enforce. Their origins' files and lines are cleared.
    pub policies: Vec<AuthorizationPolicy>,
    pub http: HttpSettings,
    #[serde(skip)]
    pub origins: Vec<Origin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Bind {
    /// Takes captured connections and hands them to the listener of their original destination.
    Captured {
        port: u16,
    },
    /// Bound to no socket: connections are handed to it.
    Virtual {
        address: IpAddr,
        port: u16,
    },
    Socket {
        address: IpAddr,
        port: u16,
    },
    /// Reached as an `envoy_internal_address`.
    Internal,
    /// Asked for by a proxyless client; its only chain is HTTP.
    Api,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Chain {
    pub name: String,
    pub when: ChainMatch,
    /// Terminate mutual TLS, answering with one of these protocols.
    pub tls: Option<Vec<String>>,
    /// The workload's policies hold.
    pub guarded: bool,
    pub serve: Serve,
    /// The rule it was made of, for `explain`.
    pub origin: Option<Origin>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    /// Destination ranges.
    pub ranges: Vec<String>,
    pub server_names: Vec<String>,
    pub transport: Option<&'static str>,
    pub alpn: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Serve {
    Tcp(TcpServing),
    Http(HttpServing),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TcpServing {
    pub stat_prefix: String,
    /// At least one.
    pub to: Vec<(ResourceName, u32)>,
    pub idle_timeout: Option<Duration>,
    pub max_duration: Option<Duration>,
    /// Endpoints tried before the connection is given up.
    pub attempts: u32,
    /// The share of one that is wholly down goes to the others of its host.
    pub siblings: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpServing {
    pub stat_prefix: String,
    pub class: HttpClass,
    pub routes: HttpRoutes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HttpClass {
    Outbound,
    Inbound,
    Gateway,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HttpRoutes {
    /// By name, over the same stream.
    Named(ResourceName),
    /// Everything goes to the workload's program.
    Program(ResourceName),
}

/// Mesh-wide settings of HTTP connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpSettings {
    pub normalization: PathNormalization,
    pub trusted_proxies: u32,
    /// Some route may inject faults, so outbound connection managers draw them.
    pub faults: bool,
}

impl HttpSettings {
    pub fn of(settings: &MeshSettings) -> Self {
        Self { normalization: settings.path_normalization, trusted_proxies: settings.trusted_proxies, faults: false }
    }
}

impl ListenerInput {
    pub fn new(name: ResourceName, client: ClientKind, bind: Bind, settings: &MeshSettings) -> Self {
        Self {
            name,
            client,
            bind,
            inbound: false,
            inspect_tls: false,
            inspect_http: false,
            no_http_inspection: Vec::new(),
            chains: Vec::new(),
            default: None,
            policies: Vec::new(),
            http: HttpSettings::of(settings),
            origins: Vec::new(),
        }
    }
}

impl Chain {
    pub fn tcp(name: impl Into<String>, when: ChainMatch, to: ResourceName) -> Self {
        let serving = TcpServing {
            stat_prefix: to.to_string(),
            to: vec![(to, 1)],
            idle_timeout: None,
            max_duration: None,
            attempts: 1,
            siblings: false,
        };
        Self { name: name.into(), when, tls: None, guarded: false, serve: Serve::Tcp(serving), origin: None }
    }

    pub fn http(name: impl Into<String>, when: ChainMatch, serving: HttpServing) -> Self {
        Self { name: name.into(), when, tls: None, guarded: false, serve: Serve::Http(serving), origin: None }
    }

    /// HTTP of a sidecar's program, routed by `routes`.
    pub fn outbound_http(name: impl Into<String>, when: ChainMatch, routes: ResourceName) -> Self {
        let stat_prefix = format!("outbound_{routes}");
        let serving = HttpServing { stat_prefix, class: HttpClass::Outbound, routes: HttpRoutes::Named(routes) };
        Self::http(name, when, serving)
    }
}

impl ChainMatch {
    /// What http_inspector finds.
    pub fn http() -> Self {
        Self { alpn: ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).into(), ..Default::default() }
    }

    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

/// The internal listener of stock Envoy through which endpoints behind a gateway are dialled.
pub fn gateway_hop(name: ResourceName) -> ListenerInput {
    ListenerInput {
        client: ClientKind::Envoy,
        bind: Bind::Internal,
        inbound: false,
        inspect_tls: false,
        inspect_http: false,
        no_http_inspection: Vec::new(),
        chains: vec![Chain::tcp("", ChainMatch::default(), name.clone())],
        default: None,
        policies: Vec::new(),
        http: HttpSettings { normalization: PathNormalization::None, trusted_proxies: 0, faults: false },
        origins: Vec::new(),
        name,
    }
}
