//! `fairlead check` on clusters that are broken on purpose: each fault has its code, and nothing is said of what is well.
//!
//! Faults are real: packet rules and routes of the nodes, objects that are deleted, clusters installed anew. All clusters share the machine's
//! clock and were installed with one program, so of clocks and versions it is the asking side that differs from them. Invariant: what was
//! broken is mended before the next fact, and the clusters are left without Fairlead.

use super::bed::Bed;
use super::command::{output, output_of};
use super::install::told;
use super::plan::Plan;
use super::{enter, requirements};
use crate::tally::Tally;
use anyhow::Context as _;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

const TABLE: &str = "check-fault";
/// A captured pod, and one that says it is and was never.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: check, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: captured, namespace: check}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: 'testbed.local/tools:1', imagePullPolicy: Never, command: [sleep, '100000']}]
";
const OPEN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: open, namespace: default, labels: {security.istio.io/tlsMode: istio, sidecar.istio.io/inject: 'false'}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: 'testbed.local/tools:1', imagePullPolicy: Never, command: [sleep, '100000']}]
";

/// Who asks.
enum Asker {
    /// The program as it was installed.
    Same,
    /// On a machine whose clock is this much ahead.
    Ahead(&'static str),
    /// A program that says it is of another version.
    Other(PathBuf),
}

impl Asker {
    fn command(&self, bed: &Bed) -> anyhow::Result<Command> {
        let mut command = match self {
            Self::Same | Self::Ahead(_) => enter::fairlead(bed)?,
            Self::Other(program) => {
                let mut command = enter::lan(bed)?;
                command.arg(program);
                command
            }
        };
        if let Self::Ahead(time) = self {
            command
                .env("LD_PRELOAD", requirements::FAKE_TIME)
                .env("FAKETIME", time)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        Ok(command)
    }
}

struct Run<'a> {
    bed: &'a Bed,
    plan: Plan,
    tally: Tally,
}

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let plan = bed.plan(enter::shape(bed)?);
    let mut run = Run { bed, plan, tally: Tally::default() };
    let result = run.all();
    run.mend()?;
    for cluster in [1, 2] {
        let words = ["delete", "namespace", "check", "--ignore-not-found", "--timeout=60s"];
        output(enter::kubectl(bed, cluster)?.args(words))?;
        run.kubectl(cluster, &["delete", "pod", "open", "-n", "default", "--ignore-not-found"])?;
        run.uninstall(cluster)?;
    }
    result?;
    Ok(run.tally)
}

impl Run<'_> {
    fn all(&mut self) -> anyhow::Result<()> {
        self.fairlead(&["install", "--context", "c1", "--cluster", "east"])?;
        self.fairlead(&["install", "--context", "c2", "--cluster", "west"])?;
        self.tokens()?;
        output_of(enter::kubectl(self.bed, 1)?.args(["apply", "--filename", "-"]), PODS)?;
        self.kubectl(1, &["wait", "--for=condition=Ready", "pod/captured", "-n", "check", "--timeout=90s"])?;
        let sorts = ["dns", "capture", "control path", "data path", "mtu", "peers", "injection"];
        self.told("all is well, and each sort was tried", &["c1", "c2"], None, |rows| {
            let tried =
                |sort: &str| rows.iter().any(|r| r["check"] == sort && r["state"] == "ok" && r["cluster"] == "c1");
            rows.iter().all(|r| r["state"] != "failed") && sorts.iter().all(|sort| tried(sort))
        })?;
        self.askers()?;
        self.ways()?;
        self.objects()?;
        self.installed_anew()
    }

    /// A token that is good, one that has ended, one that was used.
    fn tokens(&mut self) -> anyhow::Result<()> {
        let short = self.fairlead(&["token", "create", "--context", "c1", "--seconds", "1"])?;
        self.fault("a token that has ended", &["c2"], Some(short.trim()), "FL0830", "token create")?;
        let token = self.fairlead(&["token", "create", "--context", "c1"])?;
        self.told("a token that is good", &["c2"], Some(token.trim()), |rows| {
            rows.iter().any(|r| r["check"] == "token" && r["message"] == "east would let west join")
                && rows.iter().all(|r| r["check"] != "token" || r["state"] == "ok")
        })?;
        self.fairlead(&["join", "--context", "c2", token.trim()])?;
        self.fault("a token that was used", &["c2"], Some(token.trim()), "FL0831", "new one")
    }

    /// Who asks has another clock, or is of another version.
    fn askers(&mut self) -> anyhow::Result<()> {
        let ahead = Asker::Ahead("+150s");
        self.fault_for(&ahead, "a clock that is wrong", "FL0804", "NTP")?;
        let other = Asker::Other(of_another_version(self.bed)?);
        self.fault_for(&other, "a version that is too far away", "FL0809", "install")
    }

    fn ways(&mut self) -> anyhow::Result<()> {
        let (near, far) = (self.plan.node(1), self.plan.node(2));
        let gateway = format!("ip saddr {near} tcp dport 15443");
        self.rules(2, &format!("{gateway} drop"))?;
        self.fault("a blocked port", &["c1"], None, "FL0819", "open TCP port 15443")?;
        self.mend()?;
        self.rules(2, &format!("{gateway} ip length > 1000 drop"))?;
        self.fault("packets that are too large", &["c1"], None, "FL0822", "MTU")?;
        self.mend()?;
        output(enter::node(self.bed, 1)?.args(["ip", "route", "add", "unreachable", &format!("{far}/32")]))?;
        self.fault("a missing route", &["c1"], None, "FL0818", "ip route get")?;
        self.mend()?;
        self.well("the ways are mended", &["c1"])
    }

    fn objects(&mut self) -> anyhow::Result<()> {
        output_of(enter::kubectl(self.bed, 1)?.args(["apply", "--filename", "-"]), OPEN)?;
        self.kubectl(1, &["wait", "--for=condition=Ready", "pod/open", "-n", "default", "--timeout=90s"])?;
        self.fault("a pod that is not captured", &["c1"], None, "FL0824", "delete the pod")?;
        self.kubectl(1, &["delete", "pod", "open", "-n", "default"])?;
        self.kubectl(1, &["delete", "mutatingwebhookconfiguration", "fairlead-injector"])?;
        self.fault("a missing webhook", &["c1"], None, "FL0810", "fairlead install")?;
        self.fairlead(&["install", "--context", "c1"])?;
        self.well("the webhook is back", &["c1"])
    }

    /// A cluster that lost its CA, and one that has another's name and network.
    fn installed_anew(&mut self) -> anyhow::Result<()> {
        self.uninstall(2)?;
        self.fairlead(&["install", "--context", "c2", "--cluster", "west"])?;
        self.fault("a wrong root", &["c1"], None, "FL0815", "detach west")?;
        self.uninstall(2)?;
        self.fairlead(&["install", "--context", "c2", "--cluster", "east", "--network", "lan"])?;
        let token = self.fairlead(&["token", "create", "--context", "c1"])?;
        self.fault("a name that is taken, before joining", &["c2"], Some(token.trim()), "FL0827", "--cluster")?;
        self.fairlead(&["install", "--context", "c1", "--network", "lan"])?;
        self.fault("two clusters of one name", &["c1", "c2"], None, "FL0827", "--cluster")?;
        self.fault("clashing pod ranges in one network", &["c1", "c2"], None, "FL0828", "--network")
    }

    /// Within patience, `check` fails with this code, and its next step has these words.
    fn fault(&mut self, fact: &str, at: &[&str], token: Option<&str>, code: &str, next: &str) -> anyhow::Result<()> {
        self.told(&format!("check tells of {fact}"), at, token, |rows| is_told(rows, code, next))
    }

    /// The same of the first cluster, for somebody else.
    fn fault_for(&mut self, asker: &Asker, fact: &str, code: &str, next: &str) -> anyhow::Result<()> {
        self.told_to(asker, &format!("check tells of {fact}"), &["c1"], None, |rows| is_told(rows, code, next))
    }

    fn well(&mut self, fact: &str, at: &[&str]) -> anyhow::Result<()> {
        self.told(fact, at, None, |rows| rows.iter().all(|r| r["state"] != "failed"))
    }

    fn told(
        &mut self,
        fact: &str,
        at: &[&str],
        token: Option<&str>,
        holds: impl Fn(&[Value]) -> bool,
    ) -> anyhow::Result<()> {
        self.told_to(&Asker::Same, fact, at, token, holds)
    }

    fn told_to(
        &mut self,
        asker: &Asker,
        fact: &str,
        at: &[&str],
        token: Option<&str>,
        holds: impl Fn(&[Value]) -> bool,
    ) -> anyhow::Result<()> {
        let mut words = vec!["check", "-o", "json"];
        words.extend(at.iter().flat_map(|context| ["--context", context]));
        words.extend(token.iter().flat_map(|token| ["--token", token]));
        let result = told(|| asker.command(self.bed), &words, holds)?;
        self.tally.note(fact, result);
        Ok(())
    }

    fn fairlead(&self, words: &[&str]) -> anyhow::Result<String> {
        let said = enter::fairlead(self.bed)?.args(words).output()?;
        anyhow::ensure!(said.status.success(), "{}: {}", words.join(" "), String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).context("output")
    }

    fn uninstall(&self, cluster: u8) -> anyhow::Result<()> {
        self.fairlead(&["uninstall", "--context", &format!("c{cluster}"), "--crds"]).map(drop)
    }

    fn kubectl(&self, cluster: u8, words: &[&str]) -> anyhow::Result<()> {
        output(enter::kubectl(self.bed, cluster)?.args(words)).map(drop)
    }

    /// Before a node's own rules see a packet.
    fn rules(&self, cluster: u8, rule: &str) -> anyhow::Result<()> {
        let text = format!(
            "table ip {TABLE} {{\n chain first {{\n type filter hook prerouting priority -300; policy accept;\n {rule}\n }}\n}}\n"
        );
        output_of(enter::node(self.bed, cluster)?.args(["nft", "--file", "-"]), &text).map(drop)
    }

    fn mend(&self) -> anyhow::Result<()> {
        let tables = output(enter::node(self.bed, 2)?.args(["nft", "list", "tables", "ip"]))?;
        if tables.contains(TABLE) {
            output(enter::node(self.bed, 2)?.args(["nft", "delete", "table", "ip", TABLE]))?;
        }
        let far = format!("{}", self.plan.node(2));
        let routes = output(enter::node(self.bed, 1)?.args(["ip", "route", "show", "type", "unreachable"]))?;
        if routes.contains(&far) {
            output(enter::node(self.bed, 1)?.args(["ip", "route", "del", "unreachable", &format!("{far}/32")]))?;
        }
        Ok(())
    }
}

/// Something failed with this code, and its next step has these words.
fn is_told(rows: &[Value], code: &str, next: &str) -> bool {
    let mut told = rows.iter().filter(|r| r["code"] == code && r["state"] == "failed");
    told.any(|r| r["remedy"].as_str().is_some_and(|text| text.contains(next)) && r["tried"] != "")
}

/// The program under test, but for what it says its version is: two minor versions on, written as long as ours.
fn of_another_version(bed: &Bed) -> anyhow::Result<PathBuf> {
    let ours = env!("CARGO_PKG_VERSION");
    let mut parts = ours.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let minor: u32 = minor.parse().with_context(|| format!("{ours} is no version"))?;
    let other =
        format!("{major}.{}.{}", if minor < 8 { minor + 2 } else { minor - 2 }, parts.next().unwrap_or_default());
    anyhow::ensure!(other.len() == ours.len(), "{other} is not written like {ours}");
    let mut bytes = std::fs::read(crate::image::program())?;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(ours.len()).position(|window| window == ours.as_bytes()) {
        at += found;
        bytes[at..at + other.len()].copy_from_slice(other.as_bytes());
    }
    let path = bed.state.join("fairlead-of-another-version");
    super::bed::write(&path, bytes)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let said = output(Command::new(&path).arg("--version"))?;
    anyhow::ensure!(said.contains(&other), "a program that was to be {other} says it is {said}");
    Ok(path)
}
