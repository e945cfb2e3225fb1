//! `PeerAuthentication`: which callers a workload accepts. A guard: what cannot be read means STRICT.

use std::collections::BTreeMap;

use super::PolicySelector;
use crate::meta::Meta;

message! {
    /// Mutual TLS of inbound connections.
    pub struct PeerAuthentication {
        /// Identity.
        metadata: Meta,
        /// The policy.
        spec: PeerAuthenticationSpec,
    } with {
        /// The object was refused and this is its fail-closed reading: STRICT for what could be read of its selector.
        unreadable: bool,
    }
}

message! {
    /// `PeerAuthentication.spec`.
    pub struct PeerAuthenticationSpec {
        /// Workloads; empty is the whole namespace, or the mesh in the root namespace.
        selector: Option<PolicySelector>,
        /// The mode; unset inherits.
        mtls: Option<MutualTls>,
        /// By workload port; needs a selector.
        port_level_mtls: BTreeMap<String, MutualTls>,
    }
}

message! {
    /// A mode.
    pub struct MutualTls {
        /// The mode.
        mode: MutualTlsMode,
    }
}

words! {
    /// Modes of inbound mutual TLS.
    pub enum MutualTlsMode {
        /// As the parent.
        Unset = "UNSET",
        /// Plaintext only.
        Disable = "DISABLE",
        /// Both.
        Permissive = "PERMISSIVE",
        /// Mutual TLS only.
        Strict = "STRICT",
    }
}
