//! A call table held against pods: each call is made in its caller's pod, and compared as far as the caller can see.
//!
//! Which gateway, route and identity decided is in the proxies' records, which are not read here; the rest of a call is compared by the
//! very rules of `fairlead test`. Invariant: a call that is not made is counted as skipped, with the reason.

use super::Mesh;
use super::pods::Known;
use crate::cluster::enter;
use crate::suites::Tally;
use anyhow::Context as _;
use fairlead_calls::expect::{Expect, Received, Response};
use fairlead_calls::{Call, Got, MeshDirectory, Mode, Outcome, RequestKind, Table, TableCall, compare, times};
use serde_json::Value;
use std::collections::BTreeMap;

pub fn run(mesh: &Mesh<'_>) -> anyhow::Result<Tally> {
    let directory = MeshDirectory::read(mesh.root)?;
    let table = Table::read(&directory.tables).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let known = Known::read(mesh)?;
    let mut tally = Tally::default();
    for call in &table.calls {
        match one(mesh, &known, call) {
            Ok(Verdict::Skipped(reason)) => {
                tally.skipped += 1;
                println!("skip {}: {reason}", call.call.why);
            }
            Ok(Verdict::Faults(faults)) => {
                tally.note(&call.call.why, if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) });
            }
            Err(error) => tally.note(&call.call.why, Err::<(), _>(error)),
        }
    }
    Ok(tally)
}

enum Verdict {
    Skipped(&'static str),
    Faults(Vec<String>),
}

fn one(mesh: &Mesh<'_>, known: &Known, table: &TableCall) -> anyhow::Result<Verdict> {
    let call = &table.call;
    if let Some(reason) = out_of_reach(call, table.request.kind) {
        return Ok(Verdict::Skipped(reason));
    }
    let seen = Call { expect: visible(&call.expect, table.request.kind), ..call.clone() };
    let times = times::times(call).map_err(|e| anyhow::anyhow!(e))?;
    let mut faults = Vec::new();
    for caller in known.names.callers(&call.from).map_err(|e| anyhow::anyhow!(e))? {
        let outcomes = make(mesh, known, &caller, call, times)?;
        let found = compare(&seen, &Got::from_samples(outcomes), &known.names, Mode::Live { times });
        faults.extend(found.map_err(|e| anyhow::anyhow!(e))?.into_iter().map(|fault| format!("{caller}: {fault}")));
    }
    Ok(Verdict::Faults(faults))
}

fn out_of_reach(call: &Call, kind: RequestKind) -> Option<&'static str> {
    if !call.given.is_empty() {
        return Some("nothing is broken here");
    }
    if call.from == "outside" {
        return Some("no ingress gateway is installed");
    }
    if call.at.is_some() || call.client.as_ref().is_some_and(|client| client.bypasses_sidecar()) {
        return Some("the caller has no certificates of its own");
    }
    matches!(kind, RequestKind::Https | RequestKind::Tls).then_some("the caller makes no TLS of its own")
}

/// What a caller can see for itself. By HTTP it is told what the callee's program was told.
fn visible(expect: &Expect, kind: RequestKind) -> Expect {
    let http = matches!(kind, RequestKind::Http | RequestKind::Grpc);
    Expect {
        via: None,
        tls: None,
        attempts: None,
        route: None,
        denied_by: None,
        flags: None,
        delay: None,
        seen_as: expect.seen_as.clone().filter(|_| http),
        ..expect.clone()
    }
}

fn make(mesh: &Mesh<'_>, known: &Known, caller: &str, call: &Call, times: u32) -> anyhow::Result<Vec<Outcome>> {
    let [cluster, namespace, pod] = caller.split('/').collect::<Vec<_>>()[..] else { anyhow::bail!("{caller}") };
    let number =
        mesh.members.iter().find(|(_, name)| *name == cluster).with_context(|| format!("no cluster {cluster}"))?.0;
    let mut kubectl = enter::kubectl(mesh.bed, number)?;
    kubectl.args(["exec", "-n", namespace, pod, "-c", "app", "--", "fairlead", "call", &call.request]);
    kubectl.args(["--times", &times.to_string(), "-o", "json"]);
    for (name, value) in &call.headers {
        kubectl.args(["-H", &format!("{name}: {value}")]);
    }
    if let Some(body) = &call.body {
        kubectl.args(["--body", body]);
    }
    if let Some(http) = call.client.as_ref().and_then(|client| client.http.as_ref()) {
        kubectl.args(["--http", http]);
    }
    let done = kubectl.output()?;
    // 1: some of them failed, which may be what is expected.
    let calls: Vec<Value> = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("no answer from {caller}: {}", String::from_utf8_lossy(&done.stderr)))?;
    Ok(calls.iter().map(|told| outcome(told, known, cluster, call)).collect())
}

fn outcome(told: &Value, known: &Known, cluster: &str, call: &Call) -> Outcome {
    let body = &told["body"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let echoed = body["workload"].as_str();
    let asked = |wanted: Option<&BTreeMap<String, Option<String>>>, got: &Value| -> BTreeMap<String, Option<String>> {
        let names = wanted.into_iter().flatten().map(|(name, _)| name.clone());
        names.map(|name| (name.clone(), text(&got[name.to_lowercase()]))).collect()
    };
    let received = echoed.map(|_| Received {
        path: text(&body["path"]),
        method: text(&body["method"]),
        authority: text(&body["authority"]),
        port: body["port"].as_u64().and_then(|port| u16::try_from(port).ok()),
        protocol: text(&body["protocol"]),
        headers: asked(call.expect.received.as_ref().map(|r| &r.headers), &body["headers"]),
        ..Received::default()
    });
    let addresses = |value: &Value| value.as_array().map(|all| all.iter().filter_map(text).collect::<Vec<_>>());
    Outcome {
        status: text(&told["status"]).unwrap_or_default(),
        grpc_status: told["grpcStatus"].as_u64().and_then(|status| u32::try_from(status).ok()),
        to: echoed.map(str::to_owned),
        seen_as: text(&body["caller"]),
        received,
        response: Some(Response {
            headers: asked(call.expect.response.as_ref().map(|r| &r.headers), &told["headers"]),
            body: text(body),
        }),
        resolves: addresses(&told["resolves"]).map(|all| known.resolved(cluster, &all)),
        ..Outcome::default()
    }
}
