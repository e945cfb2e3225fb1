//! What the proxies wrote down about some calls, and which record is about which call.
//!
//! Pure. HTTP is told apart by its request id; a connection by the proxy it met first, where it went, and the order of time. Must never
//! look at configuration. Invariant: a record is used for one call.

use std::collections::{BTreeMap, HashMap};

use super::caller::Seen;
use super::outcome::{Echo, Origin, echo};
use super::records::CallRecord;

/// Records of one batch of calls.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_id: HashMap<String, Vec<(String, CallRecord)>>,
    /// Without an id: by owner.
    connections: BTreeMap<String, Vec<CallRecord>>,
    /// By the id of a call: which of its first proxy's connections it is.
    paired: HashMap<String, usize>,
    /// By gateway and the caller's address: the id under which it wrote the request down, which may be one of its own.
    at_the_edge: HashMap<(String, String), String>,
}

impl Index {
    pub(super) fn add(&mut self, records: Vec<(String, CallRecord)>) {
        for (owner, record) in records {
            match &record.request_id {
                Some(id) if record.protocol != "tcp" => {
                    if record.direction == "gateway" {
                        self.at_the_edge.insert((owner.clone(), record.remote.clone()), id.clone());
                    }
                    self.by_id.entry(id.clone()).or_default().push((owner, record));
                }
                _ => self.connections.entry(owner).or_default().push(record),
            }
        }
    }

    /// Finds each call's connection in the records of the first proxy on the way. Where there are as many as calls, in the order
    /// of time: a redirected connection may arrive from another port than it left from, when that one was in use a moment ago
    /// towards another address.
    pub(super) fn pair(&mut self, origin: &Origin, seen: &[Seen]) {
        self.paired.clear();
        let Some((owner, direction)) = origin.first_proxy().filter(|_| !origin.http) else { return };
        let Some(records) = self.connections.get(owner) else { return };
        let mut by_destination: BTreeMap<String, (Vec<&Seen>, Vec<usize>)> = BTreeMap::new();
        for one in seen {
            if let Some(dialled) = one.dialled {
                by_destination.entry(dialled.to_string()).or_default().0.push(one);
            }
        }
        for (place, record) in records.iter().enumerate().filter(|(_, r)| r.direction == direction) {
            if let Some((_, places)) = by_destination.get_mut(&record.original_destination) {
                places.push(place);
            }
        }
        for (calls, mut places) in by_destination.into_values().filter(|(calls, places)| calls.len() == places.len()) {
            places.sort_by_key(|place| (&records[*place].time, records[*place].seq));
            self.paired.extend(calls.iter().map(|call| call.request_id.clone()).zip(places));
        }
    }

    /// Whether everything that is to be written down about these calls has been.
    pub(super) fn complete(&self, origin: &Origin, seen: &[Seen], proxied: impl Fn(&str) -> bool) -> bool {
        if !origin.http {
            let mut callees: BTreeMap<String, usize> = BTreeMap::new();
            for callee in seen.iter().filter_map(echo).map(|e| e.workload).filter(|w| proxied(w)) {
                *callees.entry(callee).or_default() += 1;
            }
            let inbound = |callee: &String| {
                let all = self.connections.get(callee).map(Vec::as_slice).unwrap_or_default();
                all.iter().filter(|r| r.is_received_call()).count()
            };
            if callees.iter().any(|(callee, calls)| inbound(callee) < *calls) {
                return false;
            }
        }
        seen.iter().all(|one| self.is_complete(origin, one, &proxied))
    }

    fn is_complete(&self, origin: &Origin, seen: &Seen, proxied: impl Fn(&str) -> bool) -> bool {
        let echo = echo(seen);
        let callee = echo.as_ref().map(|e| e.workload.as_str()).filter(|w| proxied(w));
        if origin.http {
            let records = self.of_request(origin, seen, echo.as_ref());
            let has = |owner: &str| records.iter().any(|(o, _)| o == owner);
            if records.is_empty() && self.outbound(origin, seen).is_some() {
                return callee.is_none_or(|callee| self.received(callee).is_some());
            }
            let answered_at_the_edge = origin.dialled_gateway && echo.is_none() && seen.status.parse::<u16>().is_ok();
            return (!origin.through_sidecar || seen.dialled.is_none() || has(&origin.caller))
                && (!answered_at_the_edge || !records.is_empty() || self.outbound(origin, seen).is_some())
                && callee.is_none_or(has);
        }
        // A gateway that nobody listens on writes nothing down.
        let heard = origin.through_sidecar || matches!(seen.status.as_str(), "ok" | "reset");
        origin.first_proxy().is_none() || seen.dialled.is_none() || !heard || self.outbound(origin, seen).is_some()
    }

    pub(super) fn of_request(&self, origin: &Origin, seen: &Seen, echo: Option<&Echo>) -> Vec<&(String, CallRecord)> {
        // A gateway at the edge may have given the request an id of its own; the program saw that one, and the gateway wrote it down.
        let at_the_edge = || {
            let gateway = origin.dialled.clone().filter(|_| origin.dialled_gateway)?;
            self.at_the_edge.get(&(gateway, seen.local?.to_string()))
        };
        let told = echo.and_then(|e| e.headers.get("x-request-id"));
        let other = told.or_else(at_the_edge).filter(|id| **id != seen.request_id);
        let ids = std::iter::once(&seen.request_id).chain(other);
        ids.filter_map(|id| self.by_id.get(id)).flatten().collect()
    }

    pub(super) fn outbound(&self, origin: &Origin, seen: &Seen) -> Option<&CallRecord> {
        let (owner, direction) = origin.first_proxy()?;
        let all = self.connections.get(owner)?;
        if let Some(place) = self.paired.get(&seen.request_id) {
            return all.get(*place);
        }
        let local = seen.local?.to_string();
        all.iter().find(|r| r.direction == direction && r.remote == local)
    }

    /// The callee's newest record of a connection: of a request that went by unread, maybe with others.
    pub(super) fn received(&self, callee: &str) -> Option<&CallRecord> {
        self.connections.get(callee)?.iter().rev().find(|record| record.is_received_call())
    }

    /// Takes the callee's record of a connection: one from this very address, else the oldest of the identity expected.
    pub(super) fn take_inbound(&mut self, callee: &str, seen: &Seen) -> Option<CallRecord> {
        let all = self.connections.get_mut(callee)?;
        let local = seen.local.map(|a| a.to_string());
        let exact = all.iter().position(|r| r.direction == "inbound" && Some(&r.remote) == local.as_ref());
        let place = exact.or_else(|| all.iter().position(CallRecord::is_received_call))?;
        Some(all.remove(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "east/shop/frontend";

    fn origin() -> Origin {
        Origin {
            caller: CALLER.into(),
            through_sidecar: true,
            dialled: None,
            dialled_gateway: false,
            http: false,
            grpc: false,
        }
    }

    fn call(id: &str, port: u16, dialled: &str) -> Seen {
        Seen {
            status: "reset".into(),
            request_id: id.into(),
            local: Some(([10, 0, 0, 1], port).into()),
            dialled: Some(dialled.parse().unwrap()),
            ..Seen::default()
        }
    }

    fn record(seq: u64, port: u16, destination: &str) -> (String, CallRecord) {
        let record = CallRecord {
            seq,
            time: format!("2026-01-01T00:00:00.{seq:03}Z"),
            direction: "outbound".into(),
            protocol: "tcp".into(),
            remote: format!("10.0.0.1:{port}"),
            original_destination: destination.into(),
            ..CallRecord::default()
        };
        (CALLER.into(), record)
    }

    #[test]
    fn connections_that_arrive_from_other_ports_are_found_in_order() {
        let (one, other) = ("240.240.0.1:80", "240.240.0.2:80");
        // The second call left from 4001 and arrived from 4002, which the third left from, arriving from 4003.
        let seen = [call("a", 4000, one), call("b", 4001, one), call("c", 4002, one), call("d", 4004, other)];
        let mut index = Index::default();
        index.add(vec![record(3, 4003, one), record(4, 4004, other), record(2, 4002, one), record(1, 4000, one)]);
        index.pair(&origin(), &seen);
        assert!(index.complete(&origin(), &seen, |_| true));
        let found: Vec<u64> = seen.iter().map(|one| index.outbound(&origin(), one).unwrap().seq).collect();
        assert_eq!(found, [1, 2, 3, 4]);
    }

    #[test]
    fn while_a_record_is_missing_only_addresses_count() {
        let destination = "240.240.0.1:80";
        let seen = [call("a", 4000, destination), call("b", 4001, destination)];
        let mut index = Index::default();
        index.add(vec![record(1, 4001, destination)]);
        index.pair(&origin(), &seen);
        assert!(!index.complete(&origin(), &seen, |_| true));
        assert!(index.outbound(&origin(), &seen[0]).is_none());
        assert_eq!(index.outbound(&origin(), &seen[1]).unwrap().seq, 1);
    }

    #[test]
    fn a_request_that_goes_by_unread_is_a_connection() {
        let origin = Origin { http: true, ..origin() };
        let callee = "east/shop/db".to_owned();
        let body = br#"{"workload": "east/shop/db", "cluster": "east"}"#;
        let seen = [Seen { status: "200".into(), body: body.to_vec(), ..call("a", 4000, "240.240.0.1:80") }];
        let mut index = Index::default();
        assert!(!index.complete(&origin, &seen, |_| true));
        index.add(vec![record(1, 4000, "240.240.0.1:80")]);
        assert!(!index.complete(&origin, &seen, |_| true), "the callee has not written it down yet");
        let inbound = CallRecord { direction: "inbound".into(), protocol: "tcp".into(), ..CallRecord::default() };
        index.add(vec![(callee.clone(), inbound)]);
        assert!(index.complete(&origin, &seen, |_| true));
        assert!(index.received(&callee).is_some());
    }

    #[test]
    fn a_probe_is_no_call() {
        let callee = "east/shop/db".to_owned();
        let inbound = |sni: Option<&str>, peer: &str| {
            let record = CallRecord {
                direction: "inbound".into(),
                protocol: "tcp".into(),
                sni: sni.map(str::to_owned),
                peer: Some(peer.into()),
                ..CallRecord::default()
            };
            (callee.clone(), record)
        };
        let mut index = Index::default();
        index.add(vec![inbound(Some("probe_.east"), "a prober"), inbound(None, "the caller")]);
        let taken = index.take_inbound(&callee, &call("a", 4000, "240.240.0.1:80")).unwrap();
        assert_eq!(taken.peer.as_deref(), Some("the caller"));
        assert!(index.take_inbound(&callee, &call("b", 4001, "240.240.0.1:80")).is_none());
    }
}
