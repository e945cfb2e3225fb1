//! `FAIRLEAD_APP_PROBES`: what the proxy asks of the program when the kubelet asks the proxy: probes, and hooks over HTTP.
//!
//! Invariant: a port is a number, and whoever reads it needs nothing else of the pod.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By path: `/app-health/<container>/livez|readyz|startupz`, `/app-lifecycle/<container>/poststartz|prestopz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppProbes(pub BTreeMap<String, AppProbe>);

/// One question. Exactly one of the three ways is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppProbe {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
    /// For the answer, at least 1; absent of a hook, which lasts as long as it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

/// A request; 200 to 399 is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// Begins with `/`; may have a query.
    pub path: String,
    pub port: u16,
    /// `HTTP` or `HTTPS`; the certificate is not verified, as by the kubelet.
    pub scheme: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<Header>,
}

/// A header of the request; `Host` replaces the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

/// A connection; that it opens is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpSocket {
    pub port: u16,
}

/// `grpc.health.v1.Health/Check`; `SERVING` is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grpc {
    pub port: u16,
    #[serde(default)]
    pub service: String,
}
