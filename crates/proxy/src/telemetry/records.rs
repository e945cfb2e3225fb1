//! The last calls, one record each, for the live test runner: `/fairlead/records?since=N`.
//!
//! Off unless asked for. Invariant: bounded; a reader that falls behind sees a gap in `seq`, never a stale record twice.

use fairlead_model::Origin;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One request or TCP connection as this proxy saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CallRecord {
    /// Counts up from 1 in each proxy.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// `outbound`, `inbound` or `gateway`.
    pub direction: String,
    /// `HTTP/1.1`, `HTTP/2`, `tcp`.
    pub protocol: String,
    /// `x-request-id`.
    pub request_id: Option<String>,
    pub method: Option<String>,
    pub path: Option<String>,
    pub authority: Option<String>,
    /// Server name the caller asked for.
    pub sni: Option<String>,
    pub listener: String,
    pub filter_chain: String,
    /// Route name.
    pub route: Option<String>,
    /// The rule that decided: `VirtualService shop/reviews http[1]`.
    pub route_object: Option<String>,
    /// The rule again, and the destination's, with where they are written.
    pub decided_by: Vec<OriginRecord>,
    /// Envoy cluster.
    pub cluster: Option<String>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<EndpointRecord>,
    /// Gateway address the last try went through.
    pub gateway: Option<String>,
    /// The address dialled last.
    pub upstream: Option<String>,
    /// Whether the last try went over mesh TLS.
    pub upstream_tls: bool,
    /// Whether the caller came over mesh TLS.
    pub downstream_tls: bool,
    /// The caller's SPIFFE ID.
    pub peer: Option<String>,
    pub remote: String,
    pub original_destination: String,
    pub attempts: u32,
    /// Added by fault injection, in milliseconds.
    pub injected_delay_ms: Option<u64>,
    /// 0 for TCP.
    pub status: u16,
    pub grpc_status: Option<i32>,
    /// Envoy's short names.
    pub flags: Vec<String>,
    pub details: String,
    /// `AuthorizationPolicy NAMESPACE/NAME`, or `no-allow`.
    pub denied_by: Option<String>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
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
    pub file: String,
    pub line: u32,
}

impl From<&Origin> for OriginRecord {
    fn from(origin: &Origin) -> Self {
        Self {
            object: origin.object.to_string(),
            path: origin.path.clone(),
            file: origin.file.to_string(),
            line: origin.line,
        }
    }
}

/// The endpoint of a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct EndpointRecord {
    /// Key inside its Envoy cluster.
    pub key: String,
    pub id: String,
    pub cluster: String,
    pub namespace: String,
    pub workload: String,
    pub identity: String,
    /// Its own address, if known here.
    pub address: Option<String>,
}

/// A bounded ring of records, shared by all workers.
#[derive(Debug)]
pub struct Records {
    capacity: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    records: VecDeque<CallRecord>,
}

impl Records {
    /// Keeps the last `capacity` records.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), ring: Mutex::default() }
    }

    pub fn push(&self, mut record: CallRecord) {
        let mut ring = self.ring.lock();
        ring.last += 1;
        record.seq = ring.last;
        if ring.records.len() == self.capacity {
            ring.records.pop_front();
        }
        ring.records.push_back(record);
    }

    /// Records with a number above `since`, oldest first.
    pub fn since(&self, since: u64) -> Vec<CallRecord> {
        let ring = self.ring.lock();
        let skip = ring.records.partition_point(|record| record.seq <= since);
        ring.records.iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_while_old_records_go() {
        let records = Records::new(2);
        for status in [200, 201, 202] {
            records.push(CallRecord { status, ..CallRecord::default() });
        }
        let seen: Vec<_> = records.since(0).into_iter().map(|r| (r.seq, r.status)).collect();
        assert_eq!(seen, [(2, 201), (3, 202)]);
        assert_eq!(records.since(2).len(), 1);
        assert!(records.since(3).is_empty());
    }
}
