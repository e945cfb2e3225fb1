//! Where requests go: VirtualServices with names expanded and defaults applied.
//!
//! Invariant: rules keep their written order; static filters (gateways, source labels, source namespace, port) are still
//! in the rules because they depend on the caller, and nothing else does.

use crate::matching::{Labels, StringMatch, Visibility};
use crate::origin::Origin;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// One VirtualService. `ResolvedMesh.routes` holds them oldest first (then name, then namespace): for a sidecar the first
/// that covers a host takes it whole; on a gateway rules of several are concatenated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteSet {
    pub origin: Origin,
    pub namespace: String,
    /// Fully qualified hosts or patterns with a leading `*`.
    pub hosts: Vec<String>,
    pub gateways: Vec<GatewayRef>,
    pub visibility: Visibility,
    pub http: Vec<HttpRule>,
    pub tls: Vec<TlsRule>,
    pub tcp: Vec<TcpRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GatewayRef {
    /// All sidecars.
    Mesh,
    Gateway {
        namespace: String,
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpRule {
    /// `http[i].name`, or empty.
    pub name: String,
    pub origin: Origin,
    /// Any of these; empty: every request.
    pub matches: Vec<HttpMatch>,
    pub action: HttpAction,
    pub timeout: Option<Duration>,
    /// `None`: not written, so the profile's default.
    pub retries: Option<RetryPolicy>,
    pub headers: HeaderOperations,
    /// Changes of path and authority; only beside [`HttpAction::Route`].
    #[serde(default)]
    pub rewrite: Option<Rewrite>,
    #[serde(default)]
    pub fault: Option<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpAction {
    Route(Vec<Backend>),
    /// Answered with another address.
    Redirect(Redirect),
    /// Answered without a destination.
    Respond(DirectAnswer),
    /// A rule that was refused: it keeps its place and answers 500, so that traffic meant for it is not taken by a later
    /// rule.
    Refused {
        reason: String,
    },
}

/// Istio HTTPRedirect. What is `None` stays as the request has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Redirect {
    /// Replaces the whole path; the query stays unless this has one.
    pub uri: Option<String>,
    pub authority: Option<String>,
    pub scheme: Option<String>,
    pub port: RedirectPort,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPort {
    /// None is written unless the authority has one.
    Protocol,
    /// The port the request came to.
    Request,
    Number(u16),
}

/// Istio HTTPDirectResponse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectAnswer {
    /// 200 to 599.
    pub status: u16,
    pub body: Vec<u8>,
}

/// Istio HTTPRewrite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rewrite {
    pub uri: Option<UriRewrite>,
    pub authority: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UriRewrite {
    /// Replaces the matched prefix, or the whole path where the match was none (exact, regular expression).
    Prefix(String),
    /// Replaces each occurrence of `matches` (RE2) by `with`, in which `\1` is a group.
    Regex { matches: String, with: String },
}

/// Istio HTTPFaultInjection. Shares are parts per million of all requests, drawn independently.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    /// Comes after the delay.
    pub abort: Option<FaultAbort>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultDelay {
    pub for_time: Duration,
    pub per_million: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultAbort {
    pub with: AbortWith,
    pub per_million: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortWith {
    /// 200 to 599.
    Http(u16),
    /// A gRPC status number; callers without gRPC get the HTTP status it maps to.
    Grpc(u32),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpMatch {
    pub name: String,
    pub uri: Option<StringMatch>,
    pub ignore_uri_case: bool,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    /// Lower-case header names.
    pub headers: BTreeMap<String, StringMatch>,
    pub without_headers: BTreeMap<String, StringMatch>,
    pub query: BTreeMap<String, StringMatch>,
    // Static filters:
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Option<String>,
    /// Empty: those of the route set. If set, HTTP rules ignore source labels and namespace (Istio code).
    pub gateways: Vec<GatewayRef>,
}

/// One destination of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// Fully qualified.
    pub host: String,
    pub subset: Option<String>,
    /// `None`: the service's only port, else the listener's.
    pub port: Option<u16>,
    /// Relative; a single backend's is ignored; 0 among several was dropped.
    pub weight: u32,
    pub headers: HeaderOperations,
    pub origin: Origin,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderOperations {
    pub request: HeaderEdit,
    pub response: HeaderEdit,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderEdit {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

impl HeaderEdit {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Istio HTTPRetry. `attempts` 0 disables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RetryPolicy {
    pub attempts: u32,
    pub per_try_timeout: Option<Duration>,
    /// Envoy `retry_on` words and integers; empty: Istio's default list.
    pub retry_on: String,
    pub backoff: Option<Duration>,
    pub retry_remote_localities: bool,
    pub ignore_previous_hosts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TlsRule {
    pub origin: Origin,
    pub matches: Vec<L4Match>,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TcpRule {
    pub origin: Origin,
    pub matches: Vec<L4Match>,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct L4Match {
    /// TLS only.
    pub sni_hosts: Vec<String>,
    pub destination_subnets: Vec<String>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: Option<String>,
    pub gateways: Vec<GatewayRef>,
}
