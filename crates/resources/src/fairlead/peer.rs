//! `Peer`: another cluster linked to this one, and what is accepted from it.

use crate::meta::Meta;

message! {
    /// A linked cluster; its name is that cluster's `ClusterId`.
    pub struct Peer {
        /// Identity.
        metadata: Meta,
        /// The link.
        spec: PeerSpec,
    }
}

message! {
    /// `Peer.spec`.
    pub struct PeerSpec {
        /// Addresses of its control plane, `host:port`.
        addresses: Vec<String>,
        /// Its trust domain.
        trust_domain: Option<String>,
        /// SHA-256 fingerprints of its root's public key, hex.
        root_fingerprints: Vec<String>,
        /// Namespaces whose identities and exports are accepted from it; absent means all, an empty list none.
        namespaces: Option<Vec<String>>,
        /// True: the peer is revoked mesh-wide.
        revoked: bool,
    }
}
