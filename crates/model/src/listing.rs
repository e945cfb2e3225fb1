//! What `fairlead get …` shows: one row type a listing.
//!
//! Invariant: rows say what is, in the words of the vocabulary; nothing here that changes by itself (no "2 s ago"), so that equal
//! states print equal listings.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRow {
    pub cluster: String,
    /// active, draining, revoked
    pub state: String,
    pub trust_domain: String,
    pub networks: Vec<String>,
    pub gateways: Vec<String>,
    /// Of the control stream: self, fresh, stale, unknown.
    pub stream: String,
    /// Of the data path: self, up, down, unknown.
    pub path: String,
    pub services: usize,
    pub endpoints: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerRow {
    pub cluster: String,
    pub addresses: Vec<String>,
    pub incarnation: u64,
    pub connected: bool,
    pub stale: bool,
    pub path: String,
    pub trust_domain: String,
    /// How far its wall clock was ahead of this one's when its stream began, in seconds; none until it has told.
    pub clock_ahead: Option<i64>,
    /// Fairlead's version there, as it was last told; empty until then.
    #[serde(default)]
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    pub namespace: String,
    pub host: String,
    pub ports: Vec<String>,
    pub addresses: Vec<String>,
    pub clusters: Vec<String>,
    pub ready: usize,
    pub total: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    pub service: String,
    pub workload: String,
    pub id: String,
    pub address: Option<String>,
    pub network: String,
    pub locality: String,
    pub health: String,
    pub weight: u32,
    /// Service port to the workload's port.
    pub ports: std::collections::BTreeMap<u16, u16>,
    pub identity: Option<String>,
    pub mutual_tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRow {
    pub object: String,
    pub rule: String,
    pub hosts: Vec<String>,
    pub gateways: Vec<String>,
    pub matches: usize,
    pub to: Vec<String>,
    pub file: String,
    pub line: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyRow {
    pub workload: String,
    pub role: String,
    pub client: String,
    /// Newest generation offered, and newest taken.
    pub offered: u64,
    pub generation: u64,
    /// When it was taken, milliseconds since 1970.
    pub at_ms: u64,
    pub rejected: usize,
    pub nacks: u64,
    pub last_nack: Option<String>,
    pub ready: bool,
    pub reason: String,
    /// Why it is not served: what it has is newer than what this control plane knows.
    pub held_back: Option<String>,
}

/// Answer to a request for a workload's first credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadCredential {
    pub token: String,
    /// Whom to believe until the first certificate, as JSON.
    pub trust: String,
}
