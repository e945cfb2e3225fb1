//! From what the caller saw and the proxies wrote down to an outcome of the call-table interface.
//!
//! Pure. Who received a request is told by the echo program, or by the record of the proxy in front of it; gateways and tries by the
//! record of the first proxy on the way; identity and TLS of the last hop by the callee's. Must never look at configuration.
//! Invariant: a record is used for one call.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fairlead_calls::expect::{LastHopTls, Received, Response};
use fairlead_calls::names::short_form;
use fairlead_calls::{DecidedBy, Outcome};
use serde::Deserialize;

use super::caller::Seen;
use super::index::Index;
use super::records::{CallRecord, OriginRecord};

/// What an echo program tells.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Echo {
    pub(super) workload: String,
    cluster: String,
    port: u16,
    protocol: String,
    method: String,
    path: String,
    authority: String,
    tls: bool,
    caller: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
}

/// Where a call came from and what kind it is.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The caller: a workload, or `outside`.
    pub caller: String,
    /// Its sidecar saw the call.
    pub through_sidecar: bool,
    /// The gateway or workload that was dialled by name.
    pub dialled: Option<String>,
    /// The dialled name is a gateway.
    pub dialled_gateway: bool,
    /// Requests are told apart by their id; else by connection.
    pub http: bool,
    /// Of gRPC calls.
    pub grpc: bool,
}

impl Origin {
    /// Each request is given to somebody by itself, and told apart by itself, however many share a connection.
    pub(super) fn is_balanced_by_request(&self) -> bool {
        self.http && self.through_sidecar
    }

    /// Whose record is the first of the way.
    pub(super) fn first_proxy(&self) -> Option<(&str, &'static str)> {
        if self.through_sidecar {
            return Some((&self.caller, "outbound"));
        }
        self.dialled.as_deref().filter(|_| self.dialled_gateway).map(|gateway| (gateway, "gateway"))
    }
}

/// One call: what it got, and who decided.
#[derive(Debug)]
pub(super) struct Told {
    pub outcome: Outcome,
    pub decided_by: Vec<DecidedBy>,
}

/// What the call got. `gateway_at` names the gateway of a wide-area address, `named` the service of a virtual address, `written` the
/// place of a cluster's policy.
pub(super) fn outcome(
    origin: &Origin,
    seen: &Seen,
    index: &mut Index,
    gateway_at: &dyn Fn(IpAddr) -> Option<String>,
    named: &dyn Fn(IpAddr) -> Option<String>,
    written: &dyn Fn(&str, &str) -> Option<OriginRecord>,
) -> Told {
    let echo = echo(seen);
    let mut records: Vec<(String, CallRecord)> = Vec::new();
    if origin.http {
        records.extend(index.of_request(origin, seen, echo.as_ref()).into_iter().cloned());
        if records.is_empty() {
            records.extend(unread(origin, seen, index, echo.as_ref()));
        }
    } else if let Some((owner, _)) = origin.first_proxy() {
        records.extend(index.outbound(origin, seen).cloned().map(|r| (owner.to_owned(), r)));
    }
    let first = first(origin, &records).cloned();
    let mut to = echo.as_ref().map(Echo::destination);
    if !origin.http {
        let tried = first.as_ref().and_then(|f| f.endpoint.as_ref()?.name());
        let named = origin.dialled.clone().filter(|_| !origin.dialled_gateway);
        if let Some(callee) = to.clone().or(tried).or(named)
            && let Some(record) = index.take_inbound(&callee, seen)
        {
            records.push((callee, record));
        }
    }
    if to.is_none() {
        // A program that answers otherwise, or without a body, does not say who it is; its proxy knows that it was reached. Of
        // several tries the last counts, which the caller's proxy names.
        let last = first.as_ref().and_then(|f| f.endpoint.as_ref()?.name());
        let reached = |(_, r): &&(String, CallRecord)| r.direction == "inbound" && r.reached_program();
        let tried_last = records.iter().filter(reached).find(|(owner, _)| Some(owner) == last.as_ref());
        to = tried_last.or_else(|| records.iter().rev().find(reached)).map(|(owner, _)| owner.clone());
    }
    let callee =
        to.as_ref().and_then(|to| records.iter().rev().find(|(owner, r)| owner == to && r.direction == "inbound"));
    let denied_by = records.iter().find_map(|(_, r)| r.denied_by.clone());
    let passed = to.is_some() || denied_by.is_some() || records.iter().any(|(_, r)| r.direction == "inbound");
    let tls = to.as_ref().map(|_| last_hop(callee.map(|(_, r)| r), echo.as_ref()));
    let mut outcome = Outcome {
        status: seen.status.clone(),
        grpc_status: seen.grpc_status,
        via: match (passed, answered_at_the_edge(origin, &records)) {
            (true, _) => via(origin, &records, gateway_at),
            (false, Some(gateway)) => vec![short_form(gateway)],
            (false, None) => Vec::new(),
        },
        tls,
        seen_as: to
            .as_ref()
            .and_then(|_| callee.and_then(|(_, r)| r.peer.clone()).or_else(|| echo.as_ref()?.caller.clone())),
        received: echo.as_ref().map(Echo::received),
        response: response(seen),
        attempts: first.as_ref().map(|r| r.attempts),
        delay: first.as_ref().and_then(|r| r.injected_delay_ms).map(Duration::from_millis),
        route: first.as_ref().and_then(|r| r.route_object.clone()),
        flags: first.as_ref().map(|r| r.flags.clone()).unwrap_or_default(),
        resolves: seen.resolves.as_ref().map(|list| resolved(list, named)),
        denied_by,
        to,
        ..Outcome::default()
    };
    if origin.grpc && outcome.to.is_none() {
        outcome.proxy_status = proxy_status(outcome.grpc_status);
    }
    Told { decided_by: decided_by(&records, written), outcome }
}

/// Records of the connection of an HTTP request that the proxies passed on as bytes.
fn unread(origin: &Origin, seen: &Seen, index: &Index, echo: Option<&Echo>) -> Vec<(String, CallRecord)> {
    let first =
        origin.first_proxy().and_then(|(owner, _)| Some((owner.to_owned(), index.outbound(origin, seen)?.clone())));
    let callee = echo.map(|echo| echo.workload.clone());
    let last = callee.filter(|_| first.is_some()).and_then(|c| index.received(&c).cloned().map(|record| (c, record)));
    first.into_iter().chain(last).collect()
}

/// The gateway that was dialled, when it answered by itself.
fn answered_at_the_edge<'o>(origin: &'o Origin, records: &[(String, CallRecord)]) -> Option<&'o str> {
    let dialled = origin.dialled.as_deref().filter(|_| origin.dialled_gateway)?;
    records.iter().any(|(_, r)| r.direction == "gateway" && r.status > 0).then_some(dialled)
}

/// The rules, destinations and policies that the proxies on the way named. The resources of a proxy carry of a policy its name only:
/// where it is written in a cluster is asked of `written`.
fn decided_by(
    records: &[(String, CallRecord)],
    written: &dyn Fn(&str, &str) -> Option<OriginRecord>,
) -> Vec<DecidedBy> {
    let mut found = Vec::new();
    for (owner, record) in records {
        let cluster = owner.split('/').next().unwrap_or_default();
        let policy = record.denied_by.as_deref().and_then(|name| written(cluster, name));
        found.extend(record.decided_by.iter().cloned().chain(policy).map(|o| DecidedBy {
            object: o.object,
            path: o.path,
            file: o.file,
            line: o.line,
        }));
    }
    found
}

fn first<'r>(origin: &Origin, records: &'r [(String, CallRecord)]) -> Option<&'r CallRecord> {
    let by = |test: &dyn Fn(&(String, CallRecord)) -> bool| records.iter().find(|r| test(r)).map(|(_, r)| r);
    let own = origin
        .through_sidecar
        .then(|| by(&|(owner, r)| *owner == origin.caller && r.direction == "outbound"))
        .flatten();
    own.or_else(|| by(&|(_, r)| r.direction == "gateway")).or_else(|| by(&|(_, r)| r.direction == "inbound"))
}

fn via(
    origin: &Origin,
    records: &[(String, CallRecord)],
    gateway_at: &dyn Fn(IpAddr) -> Option<String>,
) -> Vec<String> {
    let mut via = Vec::new();
    if origin.dialled_gateway
        && let Some(dialled) = &origin.dialled
    {
        via.push(short_form(dialled));
    }
    let through = |r: &CallRecord| r.gateway.as_ref()?.parse::<SocketAddr>().ok().map(|a| a.ip());
    for (_, record) in records.iter().filter(|(_, r)| r.direction != "inbound") {
        if let Some(name) = through(record).and_then(gateway_at)
            && !via.contains(&name)
        {
            via.push(name);
        }
    }
    via
}

/// The callee's proxy tells of TLS that it ended itself, the program of what it had to end.
fn last_hop(record: Option<&CallRecord>, echo: Option<&Echo>) -> LastHopTls {
    match record {
        Some(r) if r.downstream_tls && r.peer.is_some() => LastHopTls::Mutual,
        Some(r) if r.downstream_tls => LastHopTls::Simple,
        _ if echo.is_some_and(|echo| echo.tls) => LastHopTls::Simple,
        _ => LastHopTls::None,
    }
}

fn response(seen: &Seen) -> Option<Response> {
    if seen.headers.is_empty() {
        return None;
    }
    let headers = seen.headers.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    Some(Response { headers, body: Some(String::from_utf8_lossy(&seen.body).into_owned()) })
}

fn resolved(addresses: &[IpAddr], named: &dyn Fn(IpAddr) -> Option<String>) -> Vec<String> {
    let mut list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    for name in addresses.iter().filter_map(|a| named(*a)) {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    list
}

/// The HTTP status that a proxy's own gRPC answer maps from (the short form of the interface).
fn proxy_status(grpc: Option<u32>) -> Option<u16> {
    match grpc? {
        7 => Some(403),
        8 => Some(429),
        14 => Some(503),
        4 => Some(504),
        12 => Some(404),
        _ => None,
    }
}

pub(super) fn echo(seen: &Seen) -> Option<Echo> {
    let echo: Echo = serde_json::from_slice(&seen.body).ok()?;
    (echo.workload.split('/').count() == 3 || echo.cluster == "outside").then_some(echo)
}

impl Echo {
    fn destination(&self) -> String {
        match self.workload.strip_prefix("outside/server/") {
            Some(address) => match address.parse::<IpAddr>() {
                Ok(ip) => format!("outside/{}", SocketAddr::new(ip, self.port)),
                Err(_) => format!("outside/{address}:{}", self.port),
            },
            None => self.workload.clone(),
        }
    }

    fn received(&self) -> Received {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Received {
            path: some(&self.path),
            method: some(&self.method),
            authority: some(&self.authority),
            port: Some(self.port),
            protocol: some(&self.protocol),
            headers: self.headers.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            ..Received::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::records::EndpointRecord;

    const CALLER: &str = "east/shop/frontend";
    const CALLEE: &str = "west/shop/reviews-v3";

    fn origin(http: bool) -> Origin {
        Origin {
            caller: CALLER.into(),
            through_sidecar: true,
            dialled: None,
            dialled_gateway: false,
            http,
            grpc: false,
        }
    }

    fn seen(status: &str, body: &str) -> Seen {
        Seen {
            status: status.into(),
            body: body.into(),
            request_id: "1".into(),
            local: Some("10.0.0.1:4000".parse().unwrap()),
            dialled: Some("240.240.0.1:9080".parse().unwrap()),
            ..Seen::default()
        }
    }

    fn outbound(gateway: &str) -> CallRecord {
        CallRecord {
            direction: "outbound".into(),
            request_id: Some("1".into()),
            remote: "10.0.0.1:4000".into(),
            gateway: Some(gateway.into()),
            endpoint: Some(EndpointRecord {
                cluster: "west".into(),
                namespace: "shop".into(),
                workload: "reviews-v3".into(),
            }),
            attempts: 1,
            route_object: Some("VirtualService shop/reviews http[1]".into()),
            ..CallRecord::default()
        }
    }

    fn inbound() -> CallRecord {
        CallRecord {
            direction: "inbound".into(),
            request_id: Some("1".into()),
            downstream_tls: true,
            peer: Some("spiffe://east/ns/shop/sa/frontend".into()),
            remote: "100.64.2.3:5555".into(),
            attempts: 1,
            ..CallRecord::default()
        }
    }

    fn told(origin: &Origin, seen: &Seen, records: Vec<(String, CallRecord)>) -> Outcome {
        let mut index = Index::default();
        index.add(records);
        let gateway = |_: IpAddr| Some("west/east-west@198.19.1.1".to_owned());
        let told = outcome(origin, seen, &mut index, &gateway, &|_| Some("shop/ledger".into()), &written);
        assert!(told.decided_by.iter().all(|d| d.line > 0), "{told:?}");
        told.outcome
    }

    fn written(cluster: &str, policy: &str) -> Option<OriginRecord> {
        (policy != "no-allow").then(|| OriginRecord { object: policy.into(), file: cluster.into(), ..origin_at(3) })
    }

    fn origin_at(line: u32) -> OriginRecord {
        OriginRecord {
            object: "VirtualService shop/reviews".into(),
            path: "spec.http[1]".into(),
            line,
            ..OriginRecord::default()
        }
    }

    #[test]
    fn who_decided_is_told_with_its_place() {
        let denied = CallRecord { denied_by: Some("AuthorizationPolicy shop/p".into()), ..inbound() };
        let routed = CallRecord { decided_by: vec![origin_at(12)], ..outbound("198.19.1.1:15443") };
        let mut index = Index::default();
        index.add(vec![(CALLER.into(), routed), (CALLEE.into(), denied)]);
        let told = outcome(&origin(true), &seen("403", ""), &mut index, &|_| None, &|_| None, &written);
        let places: Vec<_> = told.decided_by.iter().map(|d| (d.object.as_str(), d.file.as_str(), d.line)).collect();
        assert_eq!(places, [("VirtualService shop/reviews", "", 12), ("AuthorizationPolicy shop/p", "west", 3)]);
    }

    #[test]
    fn a_request_across_clusters() {
        let body = r#"{"workload":"west/shop/reviews-v3","cluster":"west","port":9080,"protocol":"http/1.1","method":"GET","path":"/a","authority":"reviews:9080","headers":{"x-request-id":"1"}}"#;
        let records = vec![(CALLER.into(), outbound("198.19.1.1:15443")), (CALLEE.into(), inbound())];
        let got = told(&origin(true), &seen("200", body), records);
        assert_eq!((got.to.as_deref(), got.tls), (Some(CALLEE), Some(LastHopTls::Mutual)));
        assert_eq!(got.via, ["west/east-west@198.19.1.1"]);
        assert_eq!(got.route.as_deref(), Some("VirtualService shop/reviews http[1]"));
        assert_eq!(got.received.unwrap().path.as_deref(), Some("/a"));
    }

    #[test]
    fn a_denied_request_reached_nobody() {
        let denied = CallRecord { denied_by: Some("no-allow".into()), attempts: 0, ..inbound() };
        let records = vec![(CALLER.into(), outbound("198.19.1.1:15443")), (CALLEE.into(), denied)];
        let got = told(&origin(true), &seen("403", "RBAC: access denied"), records);
        assert_eq!((got.to, got.denied_by.as_deref()), (None, Some("no-allow")));
        assert_eq!(got.via.len(), 1, "it did pass the gateway");
    }

    #[test]
    fn a_program_that_answers_otherwise_was_reached() {
        let records = vec![
            (CALLER.into(), outbound("198.19.1.1:15443")),
            (CALLEE.into(), CallRecord { status: 503, ..inbound() }),
        ];
        let got = told(&origin(true), &seen("503", "told to answer 503\n"), records);
        assert_eq!(got.to.as_deref(), Some(CALLEE));
    }

    #[test]
    fn connections_are_told_apart_by_address() {
        let tcp = |record: CallRecord| CallRecord { request_id: None, protocol: "tcp".into(), ..record };
        let denied = CallRecord { denied_by: Some("no-allow".into()), ..tcp(inbound()) };
        let other = CallRecord { remote: "10.0.0.1:4999".into(), ..tcp(outbound("x")) };
        let records =
            vec![(CALLER.into(), other), (CALLER.into(), tcp(outbound("198.19.1.1:15443"))), (CALLEE.into(), denied)];
        let got = told(&origin(false), &seen("reset", ""), records);
        assert_eq!((got.to, got.denied_by.as_deref(), got.attempts), (None, Some("no-allow"), Some(1)));
    }

    #[test]
    fn an_answer_without_a_body_is_of_the_last_try() {
        let last = "west/shop/reviews-v3".to_owned();
        let tried = ("west/shop/reviews-v9".to_owned(), CallRecord { status: 503, ..inbound() });
        let records = vec![(CALLER.into(), outbound("198.19.1.1:15443")), (last.clone(), inbound()), tried];
        assert_eq!(told(&origin(true), &seen("200", ""), records).to, Some(last));
    }

    #[test]
    fn a_gateway_that_answers_by_itself_is_known_by_the_connection() {
        let edge = "east/app/ingress-0".to_owned();
        let outside = Origin {
            caller: "outside".into(),
            through_sidecar: false,
            dialled: Some(edge.clone()),
            dialled_gateway: true,
            ..origin(true)
        };
        let record = CallRecord {
            request_id: Some("another".into()),
            direction: "gateway".into(),
            remote: "10.0.0.1:4000".into(),
            flags: vec!["UH".into()],
            status: 503,
            ..outbound("198.19.1.1:15443")
        };
        let mut index = Index::default();
        index.add(vec![(edge.clone(), record.clone())]);
        let answered = seen("503", "no healthy upstream");
        assert!(index.complete(&outside, std::slice::from_ref(&answered), |_| true));
        assert!(!Index::default().complete(&outside, &[answered.clone()], |_| true));
        let got = told(&outside, &answered, vec![(edge.clone(), record)]);
        assert_eq!((got.via, got.flags, got.to), (vec![edge], vec!["UH".to_owned()], None));
    }

    #[test]
    fn servers_outside_are_named_by_address() {
        let body = r#"{"workload":"outside/server/192.0.2.1","cluster":"outside","port":443}"#;
        let got = told(&origin(true), &seen("200", body), Vec::new());
        assert_eq!((got.to.as_deref(), got.tls), (Some("outside/192.0.2.1:443"), Some(LastHopTls::None)));
        let question =
            Seen { status: "ok".into(), resolves: Some(vec!["240.240.0.1".parse().unwrap()]), ..Seen::default() };
        assert_eq!(told(&origin(false), &question, Vec::new()).resolves.unwrap(), ["240.240.0.1", "shop/ledger"]);
    }
}
