//! What the two proxies of a hop tell each other about their workloads, for metrics: `x-fairlead-peer`.
//!
//! It must never be used to decide about access: identity comes from certificates. Invariant: only a peer that was
//! authenticated over mesh TLS is listened to.

use fairlead_engine::WorkloadLabel;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Both ways between Fairlead proxies; stripped towards programs and from anyone else.
pub const PEER_HEADER: http::HeaderName = http::HeaderName::from_static("x-fairlead-peer");
/// Longest header value that is parsed.
const MAX_HEADER: usize = 2048;

/// One workload as metrics name it; empty means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerInfo {
    #[serde(rename = "w")]
    pub workload: String,
    #[serde(rename = "n")]
    pub namespace: String,
    #[serde(rename = "c")]
    pub cluster: String,
    #[serde(rename = "s")]
    pub canonical_service: String,
    #[serde(rename = "r")]
    pub canonical_revision: String,
    /// SPIFFE ID; told by the certificate, never by the header.
    #[serde(skip)]
    pub principal: String,
}

impl PeerInfo {
    /// Reads the header of an authenticated peer.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        if value.len() > MAX_HEADER {
            return None;
        }
        serde_json::from_slice(value.as_bytes()).ok()
    }

    /// The header that tells this.
    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&serde_json::to_vec(self).ok()?).ok()
    }

    /// What a certificate alone tells: namespace, account and member cluster.
    pub fn of_identity(spiffe: &fairlead_identity::SpiffeId, cluster: Option<&str>) -> Self {
        Self {
            namespace: spiffe.namespace().unwrap_or_default().to_owned(),
            cluster: cluster.unwrap_or_default().to_owned(),
            principal: spiffe.as_str().to_owned(),
            ..Self::default()
        }
    }

    /// What an endpoint's metadata tells.
    pub fn of_endpoint(label: Option<&WorkloadLabel>, own: Option<&fairlead_engine::FairleadEndpoint>) -> Self {
        let text = |value: Option<&Arc<str>>| value.map(|v| v.to_string()).unwrap_or_default();
        let mut info = Self {
            workload: text(label.map(|l| &l.name)),
            namespace: text(label.map(|l| &l.namespace)),
            cluster: text(label.map(|l| &l.cluster)),
            canonical_service: text(label.map(|l| &l.canonical_name)),
            canonical_revision: text(label.map(|l| &l.canonical_revision)),
            principal: text(own.map(|o| &o.identity)),
        };
        if let Some(own) = own {
            if info.workload.is_empty() {
                info.workload = own.workload.to_string();
            }
            if info.namespace.is_empty() {
                info.namespace = own.namespace.to_string();
            }
            if info.cluster.is_empty() {
                info.cluster = own.cluster.to_string();
            }
        }
        info
    }
}
