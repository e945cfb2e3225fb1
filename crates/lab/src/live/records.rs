//! The proxies' per-call records: what each of them saw of each call.
//!
//! Mirrors what `/fairlead/records` of a proxy's admin interface answers; fields that are not needed are not read. Invariant: a
//! record is read once, in its proxy's order; a proxy that was started again is read from its beginning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::admin::{self, AdminError};
use super::processes::PROXY;
use crate::Handle;

/// One request or TCP connection as one proxy saw it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CallRecord {
    /// Counts up from 1 in each proxy.
    pub seq: u64,
    /// When it began: RFC 3339, UTC.
    pub time: String,
    /// `outbound`, `inbound` or `gateway`.
    pub direction: String,
    /// `HTTP/1.1`, `HTTP/2`, `tcp`.
    pub protocol: String,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// Server name the caller asked for.
    pub sni: Option<String>,
    /// `VirtualService shop/reviews http[1]`.
    pub route_object: Option<String>,
    /// What decided, with where it is written.
    pub decided_by: Vec<OriginRecord>,
    /// Envoy cluster.
    pub cluster: Option<String>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<EndpointRecord>,
    /// Gateway address of the last try.
    pub gateway: Option<String>,
    /// The address dialled last.
    pub upstream: Option<String>,
    /// Whether the last try went over mesh TLS.
    pub upstream_tls: bool,
    /// Whether the caller came over mesh TLS.
    pub downstream_tls: bool,
    /// The caller's SPIFFE ID.
    pub peer: Option<String>,
    /// The caller's address.
    pub remote: String,
    /// Where the caller meant to go.
    pub original_destination: String,
    /// Tries.
    pub attempts: u32,
    /// Added by fault injection, in milliseconds.
    pub injected_delay_ms: Option<u64>,
    /// 0 for TCP.
    pub status: u16,
    /// Of a gRPC answer.
    pub grpc_status: Option<i32>,
    /// Envoy's short names.
    pub flags: Vec<String>,
    /// Envoy's response code details.
    pub details: String,
    /// `AuthorizationPolicy NAMESPACE/NAME`, or `no-allow`.
    pub denied_by: Option<String>,
    /// Milliseconds.
    pub duration_ms: f64,
}

/// Where something that decided is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct OriginRecord {
    /// `VirtualService shop/reviews`
    pub object: String,
    /// `spec.http[1]`
    pub path: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
}

/// The endpoint of a record.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct EndpointRecord {
    /// Its cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub workload: String,
}

impl EndpointRecord {
    /// `cluster/namespace/name`, if it is a workload.
    pub fn name(&self) -> Option<String> {
        let known = !self.cluster.is_empty() && !self.workload.is_empty();
        known.then(|| format!("{}/{}/{}", self.cluster, self.namespace, self.workload))
    }
}

impl CallRecord {
    /// On a callee's side: somebody's call, and not a proxy that looks whether the way is open.
    pub fn is_received_call(&self) -> bool {
        self.direction == "inbound" && !self.sni.as_deref().is_some_and(|name| name.starts_with("probe_."))
    }

    /// On a callee's side: whether its program was given the request.
    pub fn reached_program(&self) -> bool {
        let failed_before =
            self.flags.iter().any(|f| matches!(f.as_str(), "UF" | "UH" | "NR" | "UO" | "DPE" | "UAEX" | "RL"));
        self.denied_by.is_none() && self.attempts > 0 && !failed_before
    }
}

/// Reads the records of many proxies, each from where it was left.
#[derive(Debug, Default)]
pub struct Reader {
    /// By owner: how often the proxy was started, and the last number read.
    places: BTreeMap<String, (u32, u64)>,
}

impl Reader {
    /// The new records of these proxies. One that does not answer has none.
    pub async fn read(
        &mut self,
        handle: &Handle,
        owners: impl IntoIterator<Item = String>,
    ) -> Vec<(String, CallRecord)> {
        let starts: BTreeMap<String, u32> =
            handle.processes().into_iter().filter(|p| p.name == PROXY).map(|p| (p.owner, p.starts)).collect();
        let mut asking = JoinSet::new();
        for owner in owners {
            let started = starts.get(&owner).copied().unwrap_or(0);
            let since = match self.places.get(&owner) {
                Some((known, last)) if *known == started => *last,
                _ => 0,
            };
            let handle = handle.clone();
            asking.spawn(async move {
                let found = since_of(&handle, &owner, since).await;
                (owner, started, found)
            });
        }
        let mut all = Vec::new();
        for (owner, started, found) in asking.join_all().await {
            let Ok(found) = found else { continue };
            if let Some(last) = found.last() {
                self.places.insert(owner.clone(), (started, last.seq));
            }
            all.extend(found.into_iter().map(|record| (owner.clone(), record)));
        }
        all
    }
}

async fn since_of(handle: &Handle, owner: &str, since: u64) -> Result<Vec<CallRecord>, AdminError> {
    let path = format!("/fairlead/records?since={since}");
    let bytes = admin::proxy(handle, owner, "GET", &path).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| AdminError { what: format!("proxy of {owner}: {path}"), reason: e.to_string() })
}
