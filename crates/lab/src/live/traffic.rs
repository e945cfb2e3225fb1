//! Who calls whom at the moment: one row by caller and callee cluster, from the records of the callers' proxies.
//!
//! Invariant: a row is about the last window only; nothing is shown that no proxy has seen.

use std::collections::BTreeMap;

use super::lab::Lab;
use super::records::{CallRecord, Reader};

/// Traffic of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `cluster/namespace/workload`
    pub caller: String,
    /// The callee's service (Envoy cluster's host and port).
    pub service: String,
    /// The callee's cluster; `-` when nobody was reached.
    pub cluster: String,
    /// Calls that ended.
    pub calls: usize,
    /// Those that succeeded, of one.
    pub success: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
}

/// Watches all proxies.
#[derive(Debug, Default)]
pub struct Traffic {
    reader: Reader,
}

impl Traffic {
    /// What ended since the last look.
    pub async fn look(&mut self, lab: &Lab) -> Vec<Row> {
        let records = self.reader.read(lab.handle(), lab.proxies()).await;
        rows(&records)
    }
}

fn rows(records: &[(String, CallRecord)]) -> Vec<Row> {
    let mut groups: BTreeMap<(String, String, String), Vec<(bool, f64)>> = BTreeMap::new();
    for (owner, record) in records.iter().filter(|(_, r)| r.direction == "outbound") {
        let cluster = record.endpoint.as_ref().map(|e| e.cluster.clone()).filter(|c| !c.is_empty());
        let key =
            (owner.clone(), service(record.cluster.as_deref().unwrap_or("-")), cluster.unwrap_or_else(|| "-".into()));
        groups.entry(key).or_default().push((succeeded(record), record.duration_ms));
    }
    let row = |((caller, service, cluster), mut calls): ((String, String, String), Vec<(bool, f64)>)| {
        calls.sort_by(|a, b| a.1.total_cmp(&b.1));
        let at = |share: f64| calls.get(((calls.len() - 1) as f64 * share).round() as usize).map_or(0.0, |c| c.1);
        let good = calls.iter().filter(|(good, _)| *good).count();
        Row {
            caller,
            service,
            cluster,
            calls: calls.len(),
            success: good as f64 / calls.len() as f64,
            p50: at(0.5),
            p99: at(0.99),
        }
    };
    groups.into_iter().map(row).collect()
}

fn succeeded(record: &CallRecord) -> bool {
    if record.protocol == "tcp" {
        return record.flags.is_empty();
    }
    record.status < 500 && record.status != 0 && record.grpc_status.is_none_or(|code| code == 0)
}

/// `outbound|9080||reviews.shop.svc.cluster.local` is `reviews.shop:9080`.
fn service(cluster: &str) -> String {
    let parts: Vec<&str> = cluster.split('|').collect();
    match parts[..] {
        [_, port, _, host] => format!("{}:{port}", host.strip_suffix(".svc.cluster.local").unwrap_or(host)),
        _ => cluster.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::records::EndpointRecord;

    #[test]
    fn a_row_for_each_caller_and_cluster() {
        let record = |status: u16, cluster: &str, ms: f64| CallRecord {
            direction: "outbound".into(),
            status,
            cluster: Some("outbound|9080||reviews.shop.svc.cluster.local".into()),
            endpoint: Some(EndpointRecord { cluster: cluster.into(), ..EndpointRecord::default() }),
            duration_ms: ms,
            ..CallRecord::default()
        };
        let inbound = CallRecord { direction: "inbound".into(), ..record(200, "east", 1.0) };
        let records: Vec<_> = [record(200, "east", 1.0), record(503, "east", 9.0), record(200, "west", 2.0), inbound]
            .map(|r| ("east/shop/frontend".to_owned(), r))
            .into();
        let rows = rows(&records);
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].service.as_str(), rows[0].calls, rows[0].success, rows[0].p99),
            ("reviews.shop:9080", 2, 0.5, 9.0)
        );
    }
}
