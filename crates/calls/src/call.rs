//! One call of a table: who calls what, under which circumstances.
//!
//! Invariant: field names are the interface; an unknown field refuses the table.

use crate::expect::Expect;
use crate::given::Given;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Call {
    /// One sentence: what this proves.
    pub why: String,
    /// Caller: `cluster/namespace/workload`, or `outside`.
    pub from: String,
    /// `METHOD URL`, or a URL with scheme grpc, tcp, tls, udp, dns.
    pub request: String,
    /// Dial this instead: `ADDRESS:PORT` or `CLUSTER/NAMESPACE/WORKLOAD:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Request headers; `host` changes the authority only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Request body; for gRPC one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// State before the call, healed afterwards.
    #[serde(default)]
    pub given: Given,
    /// Live: how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Live: by how much shares may differ, for example `3%` (points).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<crate::share::Share>,
    #[serde(default)]
    pub expect: Expect,
}

/// How the client speaks. `tls` or `certificate` bypass the caller's sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Client {
    /// `"1.0"`, `"1.1"` or `"2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// mesh, expired, foreign-root, wrong-domain-root, no-spiffe, or a SPIFFE ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientTls {
    None,
    Simple,
    Mutual,
}

impl Client {
    /// Whether the call leaves from the caller's network position without its sidecar.
    pub fn bypasses_sidecar(&self) -> bool {
        self.tls.is_some() || self.certificate.is_some()
    }
}

impl Call {
    /// The first field used that this version cannot decide, if any (such a call is undecided and says so).
    pub fn undecidable_field(&self) -> Option<&'static str> {
        if self.expect.sticky.is_some() {
            return Some("expect.sticky");
        }
        if self.expect.mirrored.is_some() {
            return Some("expect.mirrored");
        }
        if !self.given.listens.is_empty() {
            return Some("given.listens");
        }
        if !self.given.server_first.is_empty() {
            return Some("given.server-first");
        }
        if self.expect.received.as_ref().is_some_and(|r| r.proxy_protocol.is_some()) {
            return Some("expect.received.proxy-protocol");
        }
        let scheme = self.request.split_whitespace().last().unwrap_or_default();
        if scheme.starts_with("udp://") {
            return Some("request: udp");
        }
        if scheme.starts_with("ws://") {
            return Some("request: ws");
        }
        None
    }
}
