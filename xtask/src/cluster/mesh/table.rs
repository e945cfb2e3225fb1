//! A call table held against pods: each call is made in its caller's place, with what is given broken, and compared by the rules of
//! `fairlead test`.
//!
//! Calls with the same conditions share them. Invariant: a call that is not made is counted as skipped, with the reason; a condition that
//! does not come about fails the call.

use super::given::{self, State};
use super::inside::{PROXY_USER, Pod, Pods};
use super::outcome::{Origin, Records, outcomes};
use super::pods::Known;
use super::rotation::{Rotation, not_whole, rotation};
use super::{Mesh, PATIENCE, certificates};
use crate::cluster::enter;
use crate::tally::Tally;
use anyhow::{Context as _, bail};
use fairlead_calls::call::ClientTls;
use fairlead_calls::names::long_form;
use fairlead_calls::{Call, Got, MeshDirectory, Mode, Table, TableCall, compare, times};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

/// Who is in no cluster.
const OUTSIDE: &str = "outside";

pub fn run(mesh: &Mesh<'_>) -> anyhow::Result<Tally> {
    let directory = MeshDirectory::read(mesh.root)?;
    let table = Table::read(&directory.tables).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let mut run = Run {
        mesh,
        known: Known::read(mesh)?,
        pods: Pods::read(mesh)?,
        records: Records::default(),
        baselines: BTreeMap::new(),
        tally: Tally::default(),
    };
    let mut groups: Vec<(State, Vec<&TableCall>)> = Vec::new();
    for call in &table.calls {
        if let Some(reason) = given::out_of_reach(&call.call.given) {
            run.tally.skipped += 1;
            println!("skip {}: {reason}", call.call.why);
            continue;
        }
        let state = State::of(&call.call.given, &run.known.names, mesh.is_flat()?).map_err(|e| anyhow::anyhow!(e))?;
        match groups.iter_mut().find(|(other, _)| *other == state) {
            Some((_, calls)) => calls.push(call),
            None => groups.push((state, vec![call])),
        }
    }
    groups.sort_by_key(|(state, _)| state.cost());
    for (name, pod) in run.pods.0.clone().iter().filter(|(_, pod)| pod.has_proxy()) {
        run.baselines.insert(name.clone(), rotation(pod)?);
    }
    for (state, calls) in &groups {
        run.group(state, calls)?;
    }
    Ok(run.tally)
}

struct Run<'a> {
    mesh: &'a Mesh<'a>,
    known: Known,
    pods: Pods,
    records: Records,
    /// What proxies held while all was well.
    baselines: BTreeMap<String, Rotation>,
    tally: Tally,
}

/// A caller's proxy, and what it must hold while all is well of what is called.
struct Watched {
    caller: String,
    /// How names of Envoy clusters go on that are meant.
    host: String,
    baseline: Rotation,
    pod: Pod,
}

impl Watched {
    fn viewer(&self) -> &str {
        self.caller.split('/').next().unwrap_or_default()
    }

    fn rotation(&self) -> anyhow::Result<Rotation> {
        Ok(of_host(&rotation(&self.pod)?, &self.host))
    }
}

fn of_host(all: &Rotation, host: &str) -> Rotation {
    let mine = all.iter().filter(|((cluster, _), _)| cluster.contains(host));
    mine.map(|(key, held)| (key.clone(), held.clone())).collect()
}

/// A call that can be made.
struct Ready {
    command: Command,
    /// The first proxy of the way.
    first: Option<String>,
    dialled: Option<String>,
}

impl Run<'_> {
    fn group(&mut self, state: &State, calls: &[&TableCall]) -> anyhow::Result<()> {
        let begun = Instant::now();
        let watched = self.watched(calls)?;
        let settled = self.forget(&watched);
        let forgotten = begun.elapsed();
        let settled = settled.and_then(|()| self.make(state, &watched));
        let after = begun.elapsed();
        for call in calls {
            let result = match &settled {
                Ok(()) => self.one(call).and_then(|faults| match faults.is_empty() {
                    true => Ok(()),
                    false => bail!(faults.join("; ")),
                }),
                Err(error) => Err(anyhow::anyhow!("what is given did not come about: {error:#}")),
            };
            self.tally.note(&call.call.why, result);
        }
        state.heal(self.mesh, &self.pods)?;
        if !state.is_whole() {
            println!(
                "     all forgotten after {:.1} s, given after {:.1} s, healed after {:.1} s",
                forgotten.as_secs_f32(),
                after.as_secs_f32(),
                begun.elapsed().as_secs_f32()
            );
        }
        Ok(())
    }

    /// The proxies of the callers, and what they hold while all is well of what they call.
    fn watched(&self, calls: &[&TableCall]) -> anyhow::Result<Vec<Watched>> {
        let mut all = Vec::new();
        for call in calls {
            for caller in self.known.names.callers(&call.call.from).map_err(|e| anyhow::anyhow!(e))? {
                let (Some(baseline), Some(pod)) = (self.baselines.get(&caller), self.pods.0.get(&caller)) else {
                    continue;
                };
                // Only what this call may use: a whole mesh would take longer to be whole.
                let host = format!("||{}.", call.request.host.split('.').next().unwrap_or_default());
                let baseline = of_host(baseline, &host);
                all.push(Watched { caller, host, baseline, pod: pod.clone() });
            }
        }
        Ok(all)
    }

    /// Waits until nothing is left of what was broken before: what returns does so step by step.
    fn forget(&self, watched: &[Watched]) -> anyhow::Result<()> {
        self.until(|| {
            let mut wrong = Vec::new();
            for one in watched {
                let left = not_whole(&one.rotation()?, &one.baseline);
                wrong.extend(left.iter().map(|left| format!("{}: {left} is not back", one.caller)));
            }
            Ok(wrong)
        })
    }

    /// Makes the state, and waits until the callers' proxies show it.
    fn make(&self, state: &State, watched: &[Watched]) -> anyhow::Result<()> {
        state.make(self.mesh, &self.pods)?;
        self.until(|| {
            let mut wrong = Vec::new();
            for one in watched {
                let differing = state.differences(one.viewer(), &one.rotation()?, &one.baseline);
                wrong.extend(differing.iter().map(|differing| format!("{}: {differing}", one.caller)));
                for peer in state.stale.iter().filter(|peer| *peer != one.viewer()) {
                    if !self.is_stale(one.viewer(), peer)? {
                        wrong.push(format!("{}: the stream of {peer} is not stale", one.viewer()));
                    }
                }
            }
            Ok(wrong)
        })
    }

    fn is_stale(&self, viewer: &str, peer: &str) -> anyhow::Result<bool> {
        let pod = self.pods.labelled(viewer, "app", "fairlead-control").next().context("no control plane")?;
        let rows: Value = serde_json::from_str(&pod.control("GET", "/clusters", "")?)?;
        let rows = rows.as_array().or(rows["items"].as_array());
        Ok(rows.into_iter().flatten().any(|row| row["cluster"] == peer && row["stream"] == "stale"))
    }

    fn until(&self, wrong: impl Fn() -> anyhow::Result<Vec<String>>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = wrong()?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("after {PATIENCE:?}: {}", left.join(", "));
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn one(&mut self, table: &TableCall) -> anyhow::Result<Vec<String>> {
        let call = &table.call;
        let times = times::times(call).map_err(|e| anyhow::anyhow!(e))?;
        let mut faults = Vec::new();
        for caller in self.known.names.callers(&call.from).map_err(|e| anyhow::anyhow!(e))? {
            let mut ready = self.ready(table, &caller)?;
            // Requests are told apart by their ids, connections by what is new.
            let all = self.pods.0.keys().filter(|_| !table.request.is_http()).cloned().collect::<Vec<_>>();
            self.records.begin(&self.pods, all.into_iter());
            let told = make(&mut ready.command, call, times)?;
            let origin = Origin {
                caller: &caller,
                first: ready.first.as_deref(),
                dialled: ready.dialled.as_deref(),
                kind: table.request.kind,
            };
            let got = outcomes(&mut self.records, &self.pods, &self.known, &origin, &call.expect, &told);
            let found = compare(call, &Got::from_samples(got), &self.known.names, Mode::Live { times });
            faults.extend(found.map_err(|e| anyhow::anyhow!(e))?.into_iter().map(|fault| format!("{caller}: {fault}")));
        }
        Ok(faults)
    }

    /// `fairlead call` where the caller stands, but for what is asked and how often.
    fn ready(&self, table: &TableCall, caller: &str) -> anyhow::Result<Ready> {
        let call = &table.call;
        let client = call.client.clone().unwrap_or_default();
        let past = client.bypasses_sidecar();
        let target = self.target(table, caller)?;
        let dialled = target.as_ref().map(|target| target.name.clone());
        let mut command = match (caller == OUTSIDE, &target) {
            (true, Some(target)) if target.inside => enter::node(self.mesh.bed, target.cluster)?,
            (true, _) => enter::lan(self.mesh.bed)?,
            (false, _) if past => self.pods.get(caller)?.network(PROXY_USER)?,
            (false, _) => self.pods.get(caller)?.fairlead(self.mesh)?,
        };
        if caller == OUTSIDE || past {
            command.arg(&self.mesh.binary);
        }
        command.arg("call");
        if let Some(target) = &target {
            command.args(["--at", &target.address]);
        }
        if past && client.tls != Some(ClientTls::None) {
            command.arg("--tls");
            command.args(client.alpn.iter().map(|alpn| format!("--alpn={alpn}")));
            command.args(client.sni.iter().map(|sni| format!("--sni={sni}")));
            if client.tls != Some(ClientTls::Simple) {
                let files =
                    self.certificate(caller, target.as_ref(), client.certificate.as_deref().unwrap_or("mesh"))?;
                command.arg("--certificate").arg(files.certificate).arg("--key").arg(files.key);
            }
        }
        let through = !past && caller != OUTSIDE && self.pods.get(caller)?.has_proxy();
        let edge = dialled.clone().filter(|name| self.known.edges.contains(name));
        Ok(Ready { command, first: if through { Some(caller.to_owned()) } else { edge }, dialled })
    }

    /// What is dialled instead of what a name resolves to.
    fn target(&self, table: &TableCall, caller: &str) -> anyhow::Result<Option<Target>> {
        let plan = self.mesh.bed.plan(enter::shape(self.mesh.bed)?);
        let Some(at) = &table.call.at else {
            if caller != OUTSIDE {
                return Ok(None);
            }
            // From outside a name means the first gateway at the edge.
            let name = self.known.edges.iter().next().context("the mesh has no gateway at its edge")?;
            let cluster = self.pods.get(name)?.cluster;
            let address = format!("{}:{}", plan.node(cluster), table.request.port);
            return Ok(Some(Target { name: name.clone(), cluster, address, inside: false }));
        };
        let (name, port) = at.rsplit_once(':').with_context(|| format!("`{at}`: write WORKLOAD:PORT"))?;
        let found = self.known.names.callers(name).map_err(|e| anyhow::anyhow!(e))?;
        let name = found.into_iter().next().with_context(|| format!("`{name}` is no workload"))?;
        if let Some(pod) = self.pods.0.get(&name) {
            let address = format!("{}:{port}", pod.address);
            return Ok(Some(Target { name, cluster: pod.cluster, address, inside: true }));
        }
        let cluster = self.mesh.number(name.split('/').next().unwrap_or_default())?;
        let address = format!("{}:{port}", plan.node(cluster));
        Ok(Some(Target { name: long_form(&name), cluster, address, inside: false }))
    }

    fn certificate(&self, caller: &str, target: Option<&Target>, kind: &str) -> anyhow::Result<certificates::Files> {
        let domain = |cluster: &str| format!("{cluster}.{}", self.mesh.trust_domain().unwrap_or_default());
        if caller == OUTSIDE {
            let cluster = target.map_or(self.mesh.members[0].0, |target| target.cluster);
            let name = self.mesh.members.iter().find(|(number, _)| *number == cluster).context("no such cluster")?.1;
            let identity = format!("spiffe://{}/ns/outside/sa/outside", domain(name));
            return certificates::mint(self.mesh, cluster, &identity, kind);
        }
        let [cluster, namespace, _] = caller.split('/').collect::<Vec<_>>()[..] else { bail!("{caller}") };
        let pod = self.pods.get(caller)?;
        let identity = format!("spiffe://{}/ns/{namespace}/sa/{}", domain(cluster), pod.account);
        certificates::mint(self.mesh, pod.cluster, &identity, kind)
    }
}

/// What is dialled by a name.
struct Target {
    name: String,
    cluster: u8,
    address: String,
    /// It has an address of the pod network only.
    inside: bool,
}

fn make(command: &mut Command, call: &Call, times: u32) -> anyhow::Result<Vec<Value>> {
    command.arg(&call.request).args(["--times", &times.to_string(), "-o", "json"]);
    for (name, value) in &call.headers {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    if let Some(body) = &call.body {
        command.args(["--body", body]);
    }
    if let Some(http) = call.client.as_ref().and_then(|client| client.http.as_ref()) {
        command.args(["--http", http]);
    }
    let done = command.output()?;
    // 1: some of them failed, which may be what is expected.
    serde_json::from_slice(&done.stdout)
        .with_context(|| format!("no answer: {}", String::from_utf8_lossy(&done.stderr)))
}
