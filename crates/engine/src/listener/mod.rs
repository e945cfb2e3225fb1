//! Listeners, their filter chains, filters and TLS contexts.
//!
//! Filters are a closed enum, decoded once. Invariant: a filter chain whose filters could not all be decoded does not
//! exist (its listener is refused); what guards access cannot be lost by an unknown filter.

mod chain_index;
mod chain_match;
mod decode;
mod filter;
mod http_manager;
mod tls;

pub use chain_index::ChainIndex;
pub use chain_match::{ChainMatch, Sniffed, SourceType, Transport};
pub use filter::{AccessLog, NetworkFilter, TcpBackend, TcpProxy};
pub use http_manager::{
    ClientCertHeader, Codec, EscapedSlashes, ForwardClientCert, HttpFilter, HttpManager, PathRules, Routes,
    ServerHeader,
};
pub use tls::{Mode, SanKind, SanMatch, TlsContext};

use fairlead_model::Origin;
use std::net::SocketAddr;
use std::sync::Arc;

/// A decoded `envoy.config.listener.v3.Listener`.
#[derive(Clone, Debug)]
pub struct Listener {
    pub name: Arc<str>,
    /// `None` for an internal listener (a gateway hop; this proxy dials the hop itself).
    pub address: Option<SocketAddr>,
    /// Whether a socket is bound; listeners that are not are reached through one with `use_original_dst`.
    pub bind_to_port: bool,
    /// Hands connections over to the listener of their original destination, if there is one.
    pub use_original_dst: bool,
    /// Connections keep the destination they had before they were redirected, for choosing a chain and for ORIGINAL_DST
    /// Envoy clusters: by `use_original_dst`, or by the listener filter `original_dst`, which hands nothing over.
    pub restores_original_dst: bool,
    pub direction: Direction,
    /// Whether the first bytes are looked at for a TLS client hello.
    pub tls_inspector: bool,
    /// Whether the first bytes are looked at for HTTP.
    pub http_inspector: bool,
    /// How long sniffing waits; `None` is for ever. Envoy's default is 15 s.
    pub sniff_timeout: Option<std::time::Duration>,
    /// Whether a connection that said nothing in that time goes on unsniffed instead of being closed.
    pub continue_on_sniff_timeout: bool,
    pub chains: Vec<Arc<FilterChain>>,
    pub default_chain: Option<Arc<FilterChain>>,
    pub index: ChainIndex,
    pub access_log: Vec<AccessLog>,
    pub origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// One filter chain: what it is for, how TLS is terminated, what happens then.
#[derive(Clone, Debug)]
pub struct FilterChain {
    pub name: Arc<str>,
    pub matching: ChainMatch,
    /// TLS is terminated with this; `None` leaves the bytes as they are.
    pub tls: Option<Arc<TlsContext>>,
    /// In order; the last is [`NetworkFilter::Http`] or [`NetworkFilter::TcpProxy`], or there is none (the connection is
    /// closed after the TLS handshake, as on a probe chain).
    pub filters: Vec<NetworkFilter>,
    pub origin: Option<Origin>,
}

impl FilterChain {
    /// The RBAC filters of the chain, in order.
    pub fn authorization(&self) -> impl Iterator<Item = &Arc<crate::rbac::RbacFilter>> {
        self.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::Rbac(filter) => Some(filter),
            _ => None,
        })
    }

    /// What finally takes the connection.
    pub fn terminal(&self) -> Option<&NetworkFilter> {
        self.filters.last().filter(|filter| !matches!(filter, NetworkFilter::Rbac(_)))
    }
}
