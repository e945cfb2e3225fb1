//! From what a caller in a pod was told, and what the proxies wrote down, to an outcome of the call-table interface.
//!
//! Who received a request is told by the echo program, else by the record of the proxy in front of it; gateways and tries by the record of
//! the first proxy on the way; identity and TLS of the last hop by the callee's. Must never look at configuration.

use super::inside::Pods;
use super::pods::Known;
use fairlead_calls::expect::{Expect, LastHopTls, Received, Response};
use fairlead_calls::{Outcome, RequestKind};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A record is there when the call has ended, within milliseconds.
const RECORDS_WITHIN: Duration = Duration::from_secs(4);

/// Where a call came from.
pub struct Origin<'a> {
    pub caller: &'a str,
    /// The first proxy of the way, if one keeps records.
    pub first: Option<&'a str>,
    /// The name that was dialled instead of an address that a name resolved to.
    pub dialled: Option<&'a str>,
    pub kind: RequestKind,
}

impl Origin<'_> {
    fn is_http(&self) -> bool {
        matches!(self.kind, RequestKind::Http | RequestKind::Grpc)
    }
}

/// The proxies' records of one batch of calls.
#[derive(Default)]
pub struct Records {
    /// By proxy, the last number that was read.
    places: BTreeMap<String, u64>,
    by_id: HashMap<String, Vec<(String, Value)>>,
    connections: BTreeMap<String, Vec<Value>>,
}

impl Records {
    /// What was written before is not about the calls that follow.
    pub fn begin(&mut self, pods: &Pods, of: impl Iterator<Item = String>) {
        for owner in of {
            self.read(pods, &owner);
        }
        self.by_id.clear();
        self.connections.clear();
    }

    fn read(&mut self, pods: &Pods, owner: &str) {
        let since = self.places.get(owner).copied().unwrap_or_default();
        let Some(pod) = pods.0.get(owner).filter(|pod| pod.has_proxy()) else { return };
        let told = pod.admin("GET", &format!("/fairlead/records?since={since}"));
        let found: Vec<Value> = told.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        for record in found {
            self.places.insert(owner.to_owned(), record["seq"].as_u64().unwrap_or(since));
            match record["request-id"].as_str().filter(|_| record["protocol"] != "tcp") {
                Some(id) => self.by_id.entry(id.to_owned()).or_default().push((owner.to_owned(), record)),
                None => self.connections.entry(owner.to_owned()).or_default().push(record),
            }
        }
    }

    /// Reads until there is what must be there: the first proxy's, and the callee's where one answered.
    fn gather(&mut self, pods: &Pods, origin: &Origin<'_>, told: &[Value]) {
        let deadline = Instant::now() + RECORDS_WITHIN;
        loop {
            let mut owners: Vec<String> = origin.first.iter().map(|first| (*first).to_owned()).collect();
            owners.extend(told.iter().filter_map(echoed).map(str::to_owned));
            owners.extend(origin.dialled.map(str::to_owned));
            owners.sort();
            owners.dedup();
            for owner in owners.clone() {
                self.read(pods, &owner);
            }
            let tried: Vec<String> = told.iter().filter_map(|one| endpoint(self.outbound(origin, one)?)).collect();
            for owner in tried.iter().filter(|owner| !owners.contains(owner)).collect::<std::collections::BTreeSet<_>>()
            {
                self.read(pods, owner);
            }
            let complete = told.iter().all(|one| {
                let outbound =
                    origin.first.is_none() || one["dialled"].is_null() || self.outbound(origin, one).is_some();
                let callee =
                    echoed(one).filter(|callee| pods.0.get(*callee).is_some_and(super::inside::Pod::has_proxy));
                outbound && callee.is_none_or(|callee| self.inbound(origin, one, callee).is_some())
            });
            if complete || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn of_request<'r>(&'r self, told: &'r Value) -> impl Iterator<Item = &'r (String, Value)> {
        let ids = [&told["requestId"], &told["body"]["headers"]["x-request-id"]];
        let second = ids[1].as_str().filter(|id| Some(*id) != ids[0].as_str());
        ids[0].as_str().into_iter().chain(second).filter_map(|id| self.by_id.get(id)).flatten()
    }

    fn outbound<'r>(&'r self, origin: &Origin<'_>, told: &'r Value) -> Option<&'r Value> {
        let first = origin.first?;
        let of_first = |record: &&Value| record["direction"] != "inbound";
        if origin.is_http() {
            let found =
                self.of_request(told).filter(|(owner, _)| owner == first).map(|(_, record)| record).find(of_first);
            if found.is_some() {
                return found;
            }
        }
        let here = |record: &&Value| of_first(record) && record["remote"] == told["local"];
        self.connections.get(first)?.iter().find(here)
    }

    fn inbound<'r>(&'r self, origin: &Origin<'_>, told: &'r Value, callee: &str) -> Option<&'r Value> {
        if origin.is_http() {
            let of_callee = |(owner, record): &&(String, Value)| owner == callee && record["direction"] == "inbound";
            let found = self.of_request(told).filter(of_callee).last();
            // What the first proxy read, the callee's read too: connections are of those that went by unread.
            if found.is_some() || self.of_request(told).next().is_some() {
                return found.map(|(_, record)| record);
            }
        }
        // A proxy that looks whether the way is open is nobody's call.
        let received = |record: &&Value| {
            record["direction"] == "inbound" && !record["sni"].as_str().is_some_and(|name| name.starts_with("probe_."))
        };
        self.connections.get(callee)?.iter().rev().find(received)
    }
}

/// What each of some calls got.
pub fn outcomes(
    records: &mut Records,
    pods: &Pods,
    known: &Known,
    origin: &Origin<'_>,
    expect: &Expect,
    told: &[Value],
) -> Vec<Outcome> {
    records.gather(pods, origin, told);
    told.iter().map(|one| outcome(records, known, origin, expect, one)).collect()
}

fn outcome(records: &Records, known: &Known, origin: &Origin<'_>, expect: &Expect, told: &Value) -> Outcome {
    let cluster = origin.caller.split('/').next().unwrap_or_default();
    let first = records.outbound(origin, told);
    let own = echoed(told).map(str::to_owned);
    let tried = first.and_then(endpoint).or_else(|| origin.dialled.map(str::to_owned));
    let callee = own.clone().or(tried);
    let inbound = callee.as_ref().and_then(|callee| records.inbound(origin, told, callee));
    // A program that answers otherwise does not say who it is; its proxy knows that it was reached.
    let to = own.or_else(|| callee.filter(|_| inbound.is_some_and(reached)));
    let denied_by = [first, inbound].into_iter().flatten().find_map(|record| text(&record["denied-by"]));
    let passed = to.is_some() || denied_by.is_some() || inbound.is_some();
    let gateway = first.and_then(|record| record["gateway"].as_str()).filter(|_| passed);
    let mut via: Vec<String> =
        origin.dialled.into_iter().filter(|_| passed).filter_map(|name| known.edge(name)).collect();
    via.extend(gateway.and_then(|address| known.gateway(address)));
    let grpc_status = told["grpcStatus"].as_u64().and_then(|status| u32::try_from(status).ok());
    Outcome {
        status: text(&told["status"]).unwrap_or_default(),
        grpc_status,
        proxy_status: grpc_status.filter(|_| to.is_none()).and_then(proxy_status),
        via,
        tls: to.as_ref().map(|_| last_hop(inbound, &told["body"])),
        seen_as: to
            .as_ref()
            .and_then(|_| inbound.and_then(|r| text(&r["peer"])).or_else(|| text(&told["body"]["caller"]))),
        received: to.as_ref().map(|_| received(expect, &told["body"])),
        response: Some(Response {
            headers: asked(expect.response.as_ref().map(|r| &r.headers), &told["headers"]),
            body: text(&told["body"]),
        }),
        attempts: first.and_then(|record| record["attempts"].as_u64()).and_then(|n| u32::try_from(n).ok()),
        delay: first.and_then(|record| record["injected-delay-ms"].as_u64()).map(Duration::from_millis),
        route: first.and_then(|record| text(&record["route-object"])),
        flags: first.map(|record| list(&record["flags"])).unwrap_or_default(),
        resolves: told["resolves"].as_array().map(|_| known.resolved(cluster, &list(&told["resolves"]))),
        denied_by,
        to,
        ..Outcome::default()
    }
}

/// On the callee's side: its program was given the request.
fn reached(record: &Value) -> bool {
    let before = ["UF", "UH", "NR", "UO", "DPE", "UAEX", "RL"];
    let failed_before = list(&record["flags"]).iter().any(|flag| before.contains(&flag.as_str()));
    record["denied-by"].is_null() && record["attempts"].as_u64().unwrap_or(0) > 0 && !failed_before
}

fn endpoint(record: &Value) -> Option<String> {
    let part = |field: &str| record["endpoint"][field].as_str().filter(|text| !text.is_empty());
    Some(format!("{}/{}/{}", part("cluster")?, part("namespace")?, part("workload")?))
}

fn echoed(told: &Value) -> Option<&str> {
    told["body"]["workload"].as_str()
}

fn last_hop(inbound: Option<&Value>, echo: &Value) -> LastHopTls {
    match inbound {
        Some(record) if record["downstream-tls"] == true && record["peer"].is_string() => LastHopTls::Mutual,
        Some(record) if record["downstream-tls"] == true => LastHopTls::Simple,
        _ if echo["tls"] == true => LastHopTls::Simple,
        _ => LastHopTls::None,
    }
}

fn received(expect: &Expect, body: &Value) -> Received {
    Received {
        path: text(&body["path"]),
        method: text(&body["method"]),
        authority: text(&body["authority"]),
        port: body["port"].as_u64().and_then(|port| u16::try_from(port).ok()),
        protocol: text(&body["protocol"]),
        headers: asked(expect.received.as_ref().map(|r| &r.headers), &body["headers"]),
        ..Received::default()
    }
}

fn asked(wanted: Option<&BTreeMap<String, Option<String>>>, got: &Value) -> BTreeMap<String, Option<String>> {
    let names = wanted.into_iter().flatten().map(|(name, _)| name.clone());
    names.map(|name| (name.clone(), text(&got[name.to_lowercase()]))).collect()
}

/// The HTTP status that a proxy's own gRPC answer maps from.
fn proxy_status(grpc: u32) -> Option<u16> {
    [(7, 403), (8, 429), (14, 503), (4, 504), (12, 404)]
        .into_iter()
        .find(|(code, _)| *code == grpc)
        .map(|(_, http)| http)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CALLER: &str = "east/app/client-0";
    const CALLEE: &str = "west/app/web-0";

    fn origin(kind: RequestKind) -> Origin<'static> {
        Origin { caller: CALLER, first: Some(CALLER), dialled: None, kind }
    }

    fn outbound(mut more: Value) -> Value {
        more["direction"] = json!("outbound");
        more["gateway"] = json!("10.90.0.12:15443");
        more["endpoint"] = json!({"cluster": "west", "namespace": "app", "workload": "web-0"});
        more
    }

    #[test]
    fn a_request_across_clusters_is_told_by_its_proxies() {
        let mut records = Records::default();
        let inbound = json!({"direction": "inbound", "downstream-tls": true, "peer": "spiffe://east/ns/app/sa/client", "attempts": 1});
        records.by_id.insert(
            "1".into(),
            vec![
                (CALLER.into(), outbound(json!({"route-object": "VirtualService app/web http[0]"}))),
                (CALLEE.into(), inbound),
            ],
        );
        let told = json!({"status": "200", "requestId": "1", "local": "10.0.0.1:4000", "dialled": "240.0.0.1:80", "body": {"workload": CALLEE, "path": "/a"}});
        let known = Known::with_node("10.90.0.12", "west");
        let got = outcome(&records, &known, &origin(RequestKind::Http), &Expect::default(), &told);
        assert_eq!(
            (got.to.as_deref(), got.tls, got.via),
            (Some(CALLEE), Some(LastHopTls::Mutual), vec!["west/east-west".to_owned()])
        );
        assert_eq!(got.seen_as.as_deref(), Some("spiffe://east/ns/app/sa/client"));
        assert_eq!(got.route.as_deref(), Some("VirtualService app/web http[0]"));
    }

    #[test]
    fn a_connection_that_was_denied_reached_nobody() {
        let mut records = Records::default();
        let denied = json!({"direction": "inbound", "denied-by": "no-allow", "attempts": 0});
        let probe = json!({"direction": "inbound", "sni": "probe_.east", "attempts": 1});
        records.connections.insert(CALLER.into(), vec![outbound(json!({"remote": "10.0.0.1:4000"}))]);
        records.connections.insert(CALLEE.into(), vec![denied, probe]);
        let told = json!({"status": "reset", "local": "10.0.0.1:4000", "dialled": "240.0.0.1:5432", "body": ""});
        let got = outcome(&records, &Known::default(), &origin(RequestKind::Tcp), &Expect::default(), &told);
        assert_eq!((got.to, got.denied_by.as_deref(), got.tls), (None, Some("no-allow"), None));
    }

    #[test]
    fn a_request_that_nobody_received_is_not_told_by_an_older_connection() {
        let mut records = Records::default();
        records.by_id.insert("1".into(), vec![(CALLER.into(), outbound(json!({"flags": ["UF"]})))]);
        records.connections.insert(CALLEE.into(), vec![json!({"direction": "inbound", "attempts": 1})]);
        let told = json!({"status": "503", "requestId": "1", "local": "10.0.0.1:4000", "dialled": "240.0.0.1:80", "body": "x"});
        let got = outcome(&records, &Known::default(), &origin(RequestKind::Http), &Expect::default(), &told);
        assert_eq!((got.to, got.via, got.flags), (None, Vec::new(), vec!["UF".to_owned()]));
    }
}
