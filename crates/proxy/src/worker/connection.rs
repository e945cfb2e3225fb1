//! One downstream connection: what its filter chain and handshake made known, shared by all its requests.
//!
//! Invariant: `peer` is only ever set from a verified certificate chain; whoever goes on with the connection's bytes after its HTTP has
//! ended (an upgrade) keeps this, and heeds `close`.

use crate::telemetry::PeerInfo;
use fairlead_engine::ConnectionInfo;
use fairlead_engine::listener::{Direction, FilterChain, Listener};
use fairlead_identity::VerifiedPeer;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Facts of a downstream connection.
pub struct Connection {
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    /// Where the caller meant to go.
    pub original: SocketAddr,
    /// This proxy terminated mesh TLS.
    pub tls: bool,
    pub peer: Option<VerifiedPeer>,
    pub sni: Option<String>,
    pub alpn: Option<String>,
    pub inbound: bool,
    /// SHA-256 of the caller's certificate, hex, for `x-forwarded-client-cert`.
    pub leaf_hash: Option<String>,
    /// Notified when the connection must end, whatever it carries; see [`super::live::LiveConnections`].
    pub close: Rc<Notify>,
    known: RefCell<Known>,
}

/// The peer's description, parsed once per distinct header value.
#[derive(Default)]
struct Known {
    header: Option<HeaderValue>,
    info: Option<Rc<PeerInfo>>,
}

impl Connection {
    pub fn new(
        listener: Arc<Listener>,
        chain: Arc<FilterChain>,
        remote: SocketAddr,
        local: SocketAddr,
        original: SocketAddr,
    ) -> Self {
        let inbound = listener.direction == Direction::Inbound;
        Self {
            listener,
            chain,
            remote,
            local,
            original,
            tls: false,
            peer: None,
            sni: None,
            alpn: None,
            inbound,
            leaf_hash: None,
            close: Rc::default(),
            known: RefCell::default(),
        }
    }

    /// Remembers the caller's certificate by its hash.
    pub fn set_leaf(&mut self, leaf: Option<&CertificateDer<'_>>) {
        self.leaf_hash = leaf.map(|der| Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect());
    }

    /// The caller's SPIFFE ID.
    pub fn principal(&self) -> Option<&str> {
        self.peer.as_ref().map(|peer| peer.spiffe_id.as_str())
    }

    pub fn direction_name(&self) -> &'static str {
        match self.listener.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound if self.listener.use_original_dst || !self.listener.bind_to_port => "outbound",
            _ => "gateway",
        }
    }

    /// What decisions may know of this connection; `remote` is the client after `x-forwarded-for`.
    pub fn info(&self, remote: std::net::IpAddr) -> ConnectionInfo<'_> {
        ConnectionInfo {
            tls: self.tls,
            peer: self.principal(),
            direct_remote: self.remote.ip(),
            remote,
            local: self.original,
            server_name: self.sni.as_deref(),
        }
    }

    /// The caller's description: by its certificate, completed by its header if it was authenticated.
    pub fn peer_info(&self, header: Option<&HeaderValue>) -> Rc<PeerInfo> {
        let mut known = self.known.borrow_mut();
        let header = header.filter(|_| self.peer.is_some());
        if let Some(info) = &known.info
            && (header.is_none() || known.header.as_ref() == header)
        {
            return info.clone();
        }
        let mut info = match &self.peer {
            Some(peer) => PeerInfo::of_identity(&peer.spiffe_id, peer.cluster.as_deref()),
            None => PeerInfo::default(),
        };
        if let Some(told) = header.and_then(PeerInfo::parse) {
            info = PeerInfo {
                // What the certificate says is not for the header to change.
                principal: info.principal,
                namespace: if info.namespace.is_empty() { told.namespace } else { info.namespace },
                cluster: if info.cluster.is_empty() { told.cluster } else { info.cluster },
                workload: told.workload,
                canonical_service: told.canonical_service,
                canonical_revision: told.canonical_revision,
            };
        }
        let info = Rc::new(info);
        *known = Known { header: header.cloned(), info: Some(info.clone()) };
        info
    }
}
