//! What the program tells of itself and of the request.
//!
//! Invariant: field names are the echo contract (docs/echo.md), read by the live runner.

use anyhow::bail;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Workload {
    pub cluster: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Default, Serialize)]
pub struct Record<'a> {
    pub workload: String,
    pub cluster: &'a str,
    pub port: u16,
    /// `http/1.1`, `http/2`, `grpc` or `tcp`.
    pub protocol: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authority: String,
    /// Inside TLS that the program itself ended.
    pub tls: bool,
    /// The caller's SPIFFE ID as the proxy in front told it; null in plaintext.
    pub caller: Option<String>,
    /// Lower-case names; repeated ones joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// TCP: the line that arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// How a connection came to the program.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub port: u16,
    pub tls: bool,
}

impl Workload {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let [cluster, namespace, name] = parts[..] else {
            bail!("`{text}` does not name a workload: write CLUSTER/NAMESPACE/WORKLOAD");
        };
        Ok(Self { cluster: cluster.into(), namespace: namespace.into(), name: name.into() })
    }

    pub fn record(&self, arrival: Arrival, protocol: &'static str) -> Record<'_> {
        Record {
            workload: format!("{}/{}/{}", self.cluster, self.namespace, self.name),
            cluster: &self.cluster,
            port: arrival.port,
            protocol,
            tls: arrival.tls,
            ..Record::default()
        }
    }
}

/// The URI of the last element of X-Forwarded-Client-Cert (the nearest caller).
pub fn caller(xfcc: &str) -> Option<String> {
    let nearest = xfcc.rsplit(',').next()?;
    let uri = nearest.split(';').find_map(|part| part.trim().strip_prefix("URI="))?;
    Some(uri.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn nearest_caller() {
        let xfcc = "By=spiffe://a/ns/x/sa/y;URI=spiffe://a/ns/b/sa/c,By=spiffe://a/q;Hash=1;URI=spiffe://e/ns/f/sa/g";
        assert_eq!(super::caller(xfcc).as_deref(), Some("spiffe://e/ns/f/sa/g"));
        assert_eq!(super::caller("Hash=1"), None);
    }
}
