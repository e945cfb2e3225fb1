//! What a proxy tells its control plane beside discovery, and what it is told back (`fairlead.v1.Reports`).
//!
//! Invariant: a report is a whole state, never a difference: the last one holds, and it ends with the stream (and 10 s of grace).

use crate::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `JsonMessage.kind` of the messages from proxy to control plane.
pub const STATUS: &str = "status";
/// `JsonMessage.kind` of the messages from control plane to proxy.
pub const COMMAND: &str = "command";

/// Proxy to control plane; sent when it changes, and once at the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyStatus {
    /// Whether the program behind a sidecar answers its readiness probe; true for a gateway.
    pub ready: bool,
    /// Why not, for people.
    pub reason: String,
    /// Drains: takes no new work.
    pub draining: bool,
    /// By gateways: whether the path to a cluster answers probes (absent: not known).
    pub paths: BTreeMap<ClusterId, bool>,
}

/// Control plane to proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    Drain,
    Undrain,
}
