//! `given` of a call table, on pods: what each word breaks there, and what the caller's proxy must then show.
//!
//! A dead program refuses its connections, and is asked whether it is ready in vain; a cluster that is down is
//! refused by all others. Invariant: [`State::heal`] undoes what [`State::make`] did, but for a revocation, which nothing undoes: such calls come last.

use super::Mesh;
use super::inside::{Pod, Pods};
use super::manifests::{ANSWERS, READY_PORT};
use super::rotation::Rotation;
use crate::cluster::command::{output, output_of};
use crate::cluster::faults::{self, Fault};
use anyhow::Context as _;
use fairlead_calls::{Answer, Given, Names};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};

/// The table of packet rules in a pod.
const TABLE: &str = "given";
/// Nothing gets in.
const EVERYTHING: &str = "iifname != \"lo\" meta l4proto tcp reject with tcp reset; iifname != \"lo\" drop;";

/// What is broken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    down_clusters: BTreeSet<String>,
    closed: BTreeSet<String>,
    down_control: BTreeSet<String>,
    down: BTreeSet<String>,
    unhealthy: BTreeSet<String>,
    drained: BTreeSet<String>,
    drained_clusters: BTreeSet<String>,
    pub stale: BTreeSet<String>,
    revoked: BTreeSet<String>,
    apart: BTreeMap<(String, String), bool>,
    answers: BTreeMap<String, String>,
    /// Clusters that are on one network reach each other without gateways.
    flat: bool,
}

/// Why a call cannot be made on pods.
pub fn out_of_reach(given: &Given) -> Option<&'static str> {
    (!given.returned.is_empty()).then_some("how long ago something came back is not measured to the second here")
}

impl State {
    pub fn of(given: &Given, names: &Names, flat: bool) -> Result<Self, String> {
        let mut state = Self { flat, ..Self::default() };
        for name in &given.down {
            match (names.clusters.contains(name), name.split_once('/')) {
                (true, _) => drop(state.down_clusters.insert(name.clone())),
                (false, Some((cluster, "control"))) => drop(state.down_control.insert(cluster.to_owned())),
                (false, Some((cluster, "east-west"))) => drop(state.closed.insert(cluster.to_owned())),
                _ => state.down.extend(names.resolve(name)?),
            }
        }
        for name in &given.unhealthy {
            state.unhealthy.extend(names.resolve(name)?);
        }
        for name in &given.drained {
            match names.clusters.contains(name) {
                true => drop(state.drained_clusters.insert(name.clone())),
                false => state.drained.extend(names.resolve(name)?),
            }
        }
        for name in &given.stale {
            state.stale.insert(name.strip_suffix("/control").unwrap_or(name).to_owned());
        }
        state.revoked.extend(given.revoked.iter().cloned());
        for (pairs, cut) in [(&given.cut, true), (&given.blackholed, false)] {
            state.apart.extend(pairs.iter().map(|[a, b]| ((a.clone(), b.clone()), cut)));
        }
        for (name, answer) in &given.answers {
            let text = match answer {
                Answer::Status(status) => status.to_string(),
                Answer::Word(word) => word.clone(),
                Answer::Delay { delay } => format!("delay {delay}"),
            };
            state.answers.extend(names.resolve(name)?.into_iter().map(|workload| (workload, text.clone())));
        }
        Ok(state)
    }

    pub fn is_whole(&self) -> bool {
        *self == Self { flat: self.flat, ..Self::default() }
    }

    /// To go from little to much, and what cannot be undone last.
    pub fn cost(&self) -> usize {
        let far =
            self.down_clusters.len() * 100 + self.apart.len() * 50 + self.closed.len() * 20 + self.stale.len() * 30;
        let near = self.down.len()
            + self.unhealthy.len()
            + self.drained.len()
            + self.drained_clusters.len()
            + self.answers.len();
        self.revoked.len() * 10_000 + far + near + self.down_control.len() * 10
    }

    pub fn make(&self, mesh: &Mesh<'_>, pods: &Pods) -> anyhow::Result<()> {
        for (workload, how) in &self.answers {
            std::fs::write(answers(mesh, pods.get(workload)?), how)?;
        }
        for workload in &self.unhealthy {
            refuse(pods.get(workload)?, &format!("tcp dport {READY_PORT} reject with tcp reset;"))?;
        }
        for workload in &self.down {
            let pod = pods.get(workload)?;
            let ports: Vec<_> = pod.ports.iter().chain([&READY_PORT]).map(u16::to_string).collect();
            refuse(pod, &format!("tcp dport {{ {} }} reject with tcp reset;", ports.join(", ")))?;
        }
        for workload in &self.drained {
            pods.get(workload)?.admin("POST", "/drain")?;
        }
        for cluster in &self.drained_clusters {
            drain(pods, cluster, true)?;
        }
        for cluster in &self.closed {
            pods.labelled(cluster, "istio", "eastwestgateway").try_for_each(|pod| refuse(pod, EVERYTHING))?;
        }
        for cluster in &self.down_control {
            pods.labelled(cluster, "app", "fairlead-control").try_for_each(|pod| refuse(pod, EVERYTHING))?;
        }
        for cluster in &self.stale {
            pods.labelled(cluster, "app", "fairlead-control")
                .try_for_each(|pod| pod.signal("control", Signal::SIGSTOP))?;
        }
        for ((one, other), cut) in &self.apart {
            let fault = if *cut { Fault::Cut } else { Fault::Blackhole };
            faults::break_link(mesh.bed, mesh.number(one)?, mesh.number(other)?, fault)?;
        }
        for cluster in &self.down_clusters {
            let number = mesh.number(cluster)?;
            if mesh.directory.is_some() {
                // What is in the lan has no link of its own to cut.
                faults::unplug(mesh.bed, number)?;
                continue;
            }
            for (other, _) in mesh.members.iter().filter(|(other, _)| *other != number) {
                faults::break_link(mesh.bed, number, *other, Fault::Cut)?;
            }
        }
        for cluster in &self.revoked {
            let by = mesh.members.iter().find(|(_, name)| name != cluster).context("nobody is left to revoke it")?;
            mesh.fairlead(&["detach", "--context", &format!("c{}", by.0), cluster])?;
        }
        Ok(())
    }

    pub fn heal(&self, mesh: &Mesh<'_>, pods: &Pods) -> anyhow::Result<()> {
        for cluster in self.down_clusters.iter().filter(|_| mesh.directory.is_some()) {
            faults::plug(mesh.bed, mesh.number(cluster)?)?;
        }
        faults::heal(mesh.bed)?;
        for cluster in &self.stale {
            pods.labelled(cluster, "app", "fairlead-control")
                .try_for_each(|pod| pod.signal("control", Signal::SIGCONT))?;
        }
        for workload in self.unhealthy.iter().chain(&self.down) {
            admit(pods.get(workload)?)?;
        }
        for cluster in self.closed.iter() {
            pods.labelled(cluster, "istio", "eastwestgateway").try_for_each(admit)?;
        }
        for cluster in self.down_control.iter() {
            pods.labelled(cluster, "app", "fairlead-control").try_for_each(admit)?;
        }
        for workload in self.answers.keys() {
            let file = answers(mesh, pods.get(workload)?);
            if file.exists() {
                std::fs::remove_file(file)?;
            }
        }
        for workload in &self.drained {
            pods.get(workload)?.admin("POST", "/undrain")?;
        }
        self.drained_clusters.iter().try_for_each(|cluster| drain(pods, cluster, false))
    }

    /// Endpoints that a proxy of `viewer` holds otherwise than it must.
    pub fn differences(&self, viewer: &str, now: &Rotation, baseline: &Rotation) -> Vec<String> {
        let mut wrong = Vec::new();
        for (cluster, workload) in baseline.iter().filter(|(_, held)| held.healthy).map(|(key, _)| key) {
            // What runs only where all is drained goes on serving.
            let elsewhere = |(other, workload): &(String, String)| other == cluster && !self.is_drained(workload);
            if self.is_drained(workload) && !baseline.keys().any(elsewhere) {
                continue;
            }
            let healthy = now.get(&(cluster.clone(), workload.clone())).is_some_and(|held| held.healthy);
            if self.expected(viewer, workload).is_some_and(|wanted| wanted != healthy) {
                let word = if healthy { "still gets requests" } else { "gets none" };
                wrong.push(format!("{workload} {word} in {cluster}"));
            }
        }
        wrong
    }

    fn is_drained(&self, workload: &str) -> bool {
        self.drained.contains(workload) || self.drained_clusters.contains(of(workload))
    }

    /// Whether a proxy of `viewer` gives requests to a workload; None: nobody can tell it.
    fn expected(&self, viewer: &str, workload: &str) -> Option<bool> {
        let cluster = of(workload);
        let own = cluster == viewer;
        let apart = |a: &str, b: &str| self.apart.contains_key(&(a.to_owned(), b.to_owned()));
        let unreachable = self.revoked.contains(cluster)
            || self.down_clusters.contains(cluster)
            || apart(viewer, cluster)
            || apart(cluster, viewer)
            || !self.flat && self.closed.contains(cluster);
        if !own && unreachable {
            return Some(false);
        }
        let silent = [viewer, cluster].iter().any(|name| self.down_control.contains(*name))
            || !own && self.stale.contains(cluster);
        let out = self.down.contains(workload) || self.unhealthy.contains(workload) || self.is_drained(workload);
        (!silent).then_some(!out)
    }
}

fn of(workload: &str) -> &str {
    workload.split('/').next().unwrap_or_default()
}

/// The file that says how the program in a pod answers, seen from outside its node.
fn answers(mesh: &Mesh<'_>, pod: &Pod) -> std::path::PathBuf {
    let volumes = format!("fs/var/lib/kubelet/pods/{}/volumes/kubernetes.io~empty-dir/{ANSWERS}/{ANSWERS}", pod.uid);
    mesh.bed.cluster(pod.cluster).join(volumes)
}

fn drain(pods: &Pods, cluster: &str, on: bool) -> anyhow::Result<()> {
    let mut all = pods.labelled(cluster, "app", "fairlead-control");
    all.try_for_each(|pod| pod.control("POST", "/drain", &format!("{{\"on\": {on}}}")).map(drop))
}

fn refuse(pod: &Pod, rules: &str) -> anyhow::Result<()> {
    let text =
        format!("table inet {TABLE} {{\n chain input {{\n type filter hook input priority -10; {rules}\n }}\n}}\n");
    output_of(pod.network(0)?.args(["nft", "--file", "-"]), &text).map(drop)
}

/// There is nothing to take away where making it failed half-way.
fn admit(pod: &Pod) -> anyhow::Result<()> {
    if output(pod.network(0)?.args(["nft", "list", "table", "inet", TABLE])).is_err() {
        return Ok(());
    }
    output(pod.network(0)?.args(["nft", "delete", "table", "inet", TABLE])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::rotation::Held;
    use super::*;

    #[test]
    fn who_is_in_rotation_for_whom() {
        let names = Names {
            workloads: ["east/app/web-0", "west/app/web-0"].map(str::to_owned).into(),
            clusters: ["east", "west"].map(str::to_owned).into(),
            ..Names::default()
        };
        let of = |given: Given, flat: bool| State::of(&given, &names, flat).unwrap();
        let down = of(Given { down: vec!["west/east-west".into()], ..Given::default() }, false);
        assert_eq!(down.expected("east", "west/app/web-0"), Some(false), "its gateway is the way in");
        assert_eq!(down.expected("west", "west/app/web-0"), Some(true));
        let down = of(Given { down: vec!["west/east-west".into()], ..Given::default() }, true);
        assert_eq!(down.expected("east", "west/app/web-0"), Some(true), "a flat neighbour needs none");
        let silent = of(Given { down: vec!["west/control".into(), "west/app/web".into()], ..Given::default() }, false);
        assert_eq!(silent.expected("east", "west/app/web-0"), None, "nobody is left to tell");
        let drained = of(Given { drained: vec!["west".into()], ..Given::default() }, false);
        let baseline: Rotation =
            [(("outbound|80||far".to_owned(), "west/app/web-0".to_owned()), Held { healthy: true, whole: true })]
                .into();
        assert!(drained.differences("east", &baseline, &baseline).is_empty(), "it runs nowhere else");
        assert!(!drained.is_whole() && drained.cost() < down.cost() + 1000);
    }
}
