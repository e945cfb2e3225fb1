//! The name index that every proxy gets: what a name means, for DNS and capture.
//!
//! Invariant: at most about 100 bytes an entry; it answers which names exist, never who may be called.

use crate::ids::ClusterId;
use crate::service::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Keyed by fully qualified host, lower case, without the final dot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NameTable {
    pub names: BTreeMap<String, NameEntry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NameEntry {
    pub namespace: String,
    /// Short service name; also answers `name`, `name.ns`, `name.ns.svc` to callers by their search rules.
    pub name: String,
    /// What an A/AAAA question answers with.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<(u16, Protocol)>,
    pub clusters: Vec<ClusterId>,
}
