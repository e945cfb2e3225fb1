//! The list of failures, on real clusters, under load between pods.
//!
//! Half of the calls stay in the caller's cluster, half go to the other: so either can serve when the other cannot. Must never judge by
//! what was told to be broken: only by who answered when. Invariant: every failure is healed before the next, and the last, the end of a
//! cluster, leaves it started anew.

use super::inside::{PROXY, Pods};
use super::load::{Load, Report};
use super::rotation::{Rotation, not_whole, rotation};
use super::{Mesh, PATIENCE};
use crate::cluster::bed::Bed;
use crate::cluster::enter;
use crate::cluster::faults::{self, Fault};
use crate::cluster::supervisor::set_stopped;
use crate::cluster::{images, start, stop};
use crate::tally::Tally;
use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const CALLER: &str = "east/app/client-0";
const REQUEST: &str = "GET http://web/";
/// Calls a second. Debug builds on two cores that are not idle answer more than this.
const RATE: u32 = 40;
/// All is well for so long at first.
const BEFORE: Duration = Duration::from_secs(3);
/// Nothing new goes to what is dead after this, and what is healed is back after this, as docs/failure-modes.md says.
const BOUND: u64 = 10;
/// Set, every failure lasts a minute, and API servers stay away for five.
const LONG: &str = "FAIRLEAD_LONG_FAILURES";

/// What is broken, and what must be seen.
struct Failure {
    name: &'static str,
    /// The cluster that cannot be reached meanwhile; none: nothing may be noticed.
    dead: Option<&'static str>,
    /// How long it stays broken.
    lasts: Duration,
    /// How long is looked after it was healed.
    after: Duration,
    act: fn(&Run<'_>) -> anyhow::Result<()>,
    heal: fn(&Run<'_>) -> anyhow::Result<()>,
}

struct Run<'a> {
    mesh: &'a Mesh<'a>,
    tally: Tally,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn by_itself(_: &Run<'_>) -> anyhow::Result<()> {
    Ok(())
}

const LIST: &[Failure] = &[
    Failure {
        name: "control planes killed, all of them",
        dead: None,
        lasts: seconds(9),
        after: Duration::ZERO,
        act: |run| run.for_all(|run, cluster| run.kill_container(cluster, "app", "fairlead-control", "control")),
        heal: by_itself,
    },
    Failure {
        name: "etcd stopped, both",
        dead: None,
        lasts: seconds(9),
        after: seconds(2),
        act: |run| run.components("etcd", true),
        heal: |run| run.components("etcd", false),
    },
    Failure {
        name: "API server stopped, both",
        dead: None,
        lasts: seconds(12),
        after: seconds(2),
        act: |run| run.components("kube-apiserver", true),
        heal: |run| run.components("kube-apiserver", false),
    },
    // A kubelet starts what was killed: how long it is away is the kubelet's.
    Failure {
        name: "pod killed",
        dead: None,
        lasts: seconds(1),
        after: seconds(20),
        act: |run| run.kill_pod("west", "app", "web"),
        heal: by_itself,
    },
    Failure {
        name: "gateway killed",
        dead: None,
        lasts: seconds(1),
        after: seconds(20),
        act: |run| run.kill_pod("west", "app", "fairlead-eastwest"),
        heal: by_itself,
    },
    Failure {
        name: "link cut",
        dead: Some("west"),
        lasts: seconds(13),
        after: seconds(14),
        act: |run| faults::break_link(run.mesh.bed, 1, 2, Fault::Cut),
        heal: |run| faults::heal_link(run.mesh.bed, 1, 2),
    },
    Failure {
        name: "link blackholed",
        dead: Some("west"),
        lasts: seconds(13),
        after: seconds(14),
        act: |run| faults::break_link(run.mesh.bed, 1, 2, Fault::Blackhole),
        heal: |run| faults::heal_link(run.mesh.bed, 1, 2),
    },
    Failure {
        name: "node hung",
        dead: Some("west"),
        lasts: seconds(13),
        after: seconds(14),
        act: |run| faults::hang(run.mesh.bed, 2),
        heal: |run| faults::resume(run.mesh.bed, 2),
    },
    Failure {
        name: "cluster killed",
        dead: Some("west"),
        lasts: seconds(13),
        after: Duration::ZERO,
        act: |run| stop::kill(run.mesh.bed, 2),
        heal: by_itself,
    },
];

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let members = [(1, "east"), (2, "west")];
    let mesh = Mesh::new(bed, Path::new("testbed/meshes/failures"), &members)?;
    let mut run = Run { mesh: &mesh, tally: Tally::default() };
    let result = mesh.start().and_then(|()| run.all());
    // Whatever became of the list.
    faults::heal(bed)?;
    for (cluster, _) in members {
        if bed.process(cluster).is_some() {
            faults::resume(bed, cluster)?;
        }
    }
    run.components("etcd", false)?;
    run.components("kube-apiserver", false)?;
    let members: Vec<_> = members.into_iter().filter(|(cluster, _)| bed.process(*cluster).is_some()).collect();
    Mesh { members: &members, ..mesh.clone() }.end()?;
    if members.len() < 2 {
        start::up(bed, 2, enter::shape(bed)?, None)?;
        images::load(bed, &crate::image::path(), &[2])?;
    }
    result?;
    Ok(run.tally)
}

impl Run<'_> {
    fn all(&mut self) -> anyhow::Result<()> {
        let long = std::env::var_os(LONG).is_some();
        if long {
            self.short_certificates()?;
        }
        let before = rotation(Pods::read(self.mesh)?.get(CALLER)?)?;
        for failure in LIST {
            let lasts = match (long, failure.name.starts_with("API server")) {
                (true, true) => seconds(300),
                (true, false) => failure.lasts.max(seconds(60)),
                (false, _) => failure.lasts,
            };
            self.settled(&before).with_context(|| format!("before: {}", failure.name))?;
            self.one(failure, lasts)?;
        }
        Ok(())
    }

    fn one(&mut self, failure: &Failure, lasts: Duration) -> anyhow::Result<()> {
        let pods = Pods::read(self.mesh)?;
        let load = Load::start(self.mesh, pods.get(CALLER)?, REQUEST, RATE, BEFORE + lasts + failure.after)?;
        load.until(BEFORE);
        let broken = load.elapsed();
        (failure.act)(self).with_context(|| failure.name)?;
        load.until(BEFORE + lasts);
        let peering = if failure.dead.is_none() { self.peering(&pods) } else { Ok(()) };
        let healing = load.elapsed();
        (failure.heal)(self).with_context(|| failure.name)?;
        let healed = load.elapsed();
        let report = load.end()?;
        println!("     {}: {}", failure.name, report.course(&["east", "west"]));
        let name = failure.name;
        self.tally.note(&format!("{name}: no call failed"), none_failed(&report));
        let course = Course { broken: broken.as_secs(), healing: healing.as_secs(), healed: healed.as_secs() + 1 };
        match failure.dead {
            Some(dead) => {
                self.tally.note(&format!("{name}: after {BOUND} s nothing goes there"), course.left(&report, dead));
                if !failure.after.is_zero() {
                    self.tally
                        .note(&format!("{name}: it returns within {BOUND} s, slowly"), course.back(&report, dead));
                }
            }
            None if failure.after > seconds(10) => {
                self.tally.note(&format!("{name}: it returns"), course.returned(&report, "west"));
            }
            None => {
                self.tally.note(&format!("{name}: traffic goes on as it did"), course.undisturbed(&report));
                self.tally.note(&format!("{name}: peering goes on"), peering);
            }
        }
        Ok(())
    }

    /// What the control planes that run say of each other: nobody has to be asked by way of an API server.
    fn peering(&self, pods: &Pods) -> anyhow::Result<()> {
        for (_, cluster) in self.mesh.members {
            for pod in pods.labelled(cluster, "app", "fairlead-control") {
                // One that was killed a moment ago has yet to come back.
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let told =
                        pod.control("GET", "/clusters", "").and_then(|text| Ok(serde_json::from_str::<Value>(&text)?));
                    let rows = told.as_ref().ok().and_then(|told| told.as_array().or(told["items"].as_array()));
                    let fresh = |row: &Value| row["stream"] == "self" || row["stream"] == "fresh";
                    if rows.is_some_and(|rows| rows.len() == 2 && rows.iter().all(fresh)) {
                        break;
                    }
                    if Instant::now() > deadline {
                        bail!("{cluster}: {told:?}");
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        Ok(())
    }

    /// Until the caller's proxy holds everything with all of its weight.
    fn settled(&self, before: &Rotation) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.mesh.wait_for_pods_of_all()?;
        self.mesh.wait_for_proxies()?;
        let pods = Pods::read(self.mesh)?;
        let caller = pods.get(CALLER)?;
        loop {
            let missing = not_whole(&rotation(caller)?, before);
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("after {PATIENCE:?} {CALLER} still lacks {}", missing.join(", "));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn for_all(&self, act: impl Fn(&Self, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.mesh.members.iter().try_for_each(|(_, cluster)| act(self, cluster))
    }

    fn kill_pod(&self, cluster: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let pods = Pods::read(self.mesh)?;
        let mut found = pods.labelled(cluster, key, value).filter(|pod| pod.has_proxy()).peekable();
        anyhow::ensure!(found.peek().is_some(), "no pod of {cluster} has {key}={value} and a container {PROXY}");
        found.try_for_each(super::inside::Pod::kill)
    }

    fn kill_container(&self, cluster: &str, key: &str, value: &str, container: &str) -> anyhow::Result<()> {
        let pods = Pods::read(self.mesh)?;
        pods.labelled(cluster, key, value).try_for_each(|pod| pod.signal(container, Signal::SIGKILL))
    }

    fn components(&self, component: &str, stopped: bool) -> anyhow::Result<()> {
        let bed = self.mesh.bed;
        let known = self.mesh.members.iter().filter(|(cluster, _)| bed.cluster(*cluster).is_dir());
        known.clone().try_for_each(|(cluster, _)| set_stopped(&bed.cluster(*cluster), component, stopped))
    }

    /// Certificates that must be renewed while the API servers are away.
    fn short_certificates(&self) -> anyhow::Result<()> {
        let patch = r#"[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--certificate-lifetime=90s"}]"#;
        for (cluster, _) in self.mesh.members {
            for words in [
                &["patch", "deployment", "fairlead-control", "--type=json", "-p", patch][..],
                &["rollout", "status", "deployment/fairlead-control", "--timeout=90s"],
                // Proxies have certificates of a day: new ones are short.
                &["rollout", "restart", "deployment/fairlead-eastwest"],
                &["rollout", "status", "deployment/fairlead-eastwest", "--timeout=90s"],
            ] {
                crate::cluster::command::output(
                    enter::kubectl(self.mesh.bed, *cluster)?.args(["-n", "fairlead-system"]).args(words),
                )?;
            }
            crate::cluster::command::output(
                enter::kubectl(self.mesh.bed, *cluster)?.args(["delete", "pods", "-n", "app", "--all"]),
            )?;
        }
        self.mesh.wait_for_pods_of_all()?;
        self.mesh.wait_for_proxies()
    }
}

fn none_failed(report: &Report) -> Result<(), String> {
    if report.failed == 0 && report.total > 0 { Ok(()) } else { Err(report.failures()) }
}

/// Seconds of the load: when it was broken, when healing began, when it was healed.
struct Course {
    broken: u64,
    healing: u64,
    healed: u64,
}

impl Course {
    /// It answered before, and nothing that was sent later than the bound was answered there.
    fn left(&self, report: &Report, dead: &str) -> Result<(), String> {
        let (before, late) =
            (report.answered(dead, 0..self.broken), report.answered(dead, self.broken + BOUND..self.healing));
        match (before, late) {
            (0, _) => Err(format!("{dead} did not answer before")),
            (_, 0) => Ok(()),
            (_, late) => Err(format!("{late} calls more than {BOUND} s later were answered by {dead}")),
        }
    }

    /// It is back in time, and its first second is less than what it had.
    fn back(&self, report: &Report, dead: &str) -> Result<(), String> {
        let first = report.first(dead, self.healed..report.last() + 1);
        let first = first.filter(|first| *first <= self.healed + BOUND);
        let Some(first) = first else { return Err(format!("{dead} is not back {BOUND} s after {} s", self.healed)) };
        let usual = report.answered(dead, 0..self.broken) / self.broken.max(1);
        // The second in which it returned may be a part of one.
        let slow = report.answered(dead, first + 1..first + 2);
        if slow * 3 < usual * 2 { Ok(()) } else { Err(format!("{slow} calls in a second, as before ({usual})")) }
    }

    /// What is started again by its kubelet answers again before the load ends.
    fn returned(&self, report: &Report, cluster: &str) -> Result<(), String> {
        let before = report.answered(cluster, 0..self.broken);
        let last = report.last();
        if before > 0 && report.answered(cluster, last.saturating_sub(3)..last + 1) > 0 {
            return Ok(());
        }
        Err(format!("{cluster} answered {before} calls before, and none at the end"))
    }

    /// Both answered in every second.
    fn undisturbed(&self, report: &Report) -> Result<(), String> {
        let silent =
            |cluster: &&str| (0..report.last()).any(|second| report.answered(cluster, second..second + 1) == 0);
        let silent: Vec<_> = ["east", "west"].into_iter().filter(silent).collect();
        if silent.is_empty() { Ok(()) } else { Err(format!("{} did not answer in every second", silent.join(", "))) }
    }
}
