//! Fairlead is installed into real clusters, joined, checked, broken, and taken out again.
//!
//! Invariant: the clusters' lists of objects are at the end what they were at the beginning, and that is one of the facts.

use super::bed::Bed;
use super::command::{output, output_of};
use super::enter;
use crate::tally::Tally;
use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A kubelet makes its Lease when it likes.
const OF_NODES: &str = "kube-node-lease/";
/// Objects that come and go by themselves.
const TRANSIENT: &[&str] = &["events", "events.events.k8s.io"];
/// From two empty clusters to two that are ready.
const BOUND_SECONDS: u64 = 60;
/// How long a fault, or its end, may take to be seen: leases of peers are 15 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Between looks: they would take the processors from what they wait for.
const AGAIN: Duration = Duration::from_millis(500);

struct Run<'a> {
    bed: &'a Bed,
    tally: Tally,
}

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let mut run = Run { bed, tally: Tally::default() };
    let before = [objects(bed, 1)?, objects(bed, 2)?];
    let result = run.installed();
    for cluster in [1, 2] {
        let said = run.fairlead(&["uninstall", "--context", &context(cluster), "--crds"])?;
        run.tally.note(&format!("c{cluster} uninstall"), succeeded(&said));
        as_before(bed, cluster, &before[usize::from(cluster) - 1], &mut run.tally)?;
    }
    result?;
    Ok(run.tally)
}

fn context(cluster: u8) -> String {
    format!("c{cluster}")
}

/// Every object of every kind, as `kind namespace/name`.
pub(super) fn objects(bed: &Bed, cluster: u8) -> anyhow::Result<BTreeSet<String>> {
    let kinds = output(enter::kubectl(bed, cluster)?.args(["api-resources", "--verbs=list", "-o", "name"]))?;
    let mut all = BTreeSet::new();
    for kind in kinds.lines().filter(|k| !TRANSIENT.contains(k)) {
        let columns = "custom-columns=NS:.metadata.namespace,N:.metadata.name";
        let list = output(enter::kubectl(bed, cluster)?.args(["get", kind, "-A", "--no-headers", "-o", columns]))?;
        let names = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join("/"));
        all.extend(names.filter(|name| !name.starts_with(OF_NODES)).map(|name| format!("{kind} {name}")));
    }
    Ok(all)
}

/// The fact that an installation left nothing and took nothing away.
pub(super) fn as_before(bed: &Bed, cluster: u8, before: &BTreeSet<String>, tally: &mut Tally) -> anyhow::Result<()> {
    let left: Vec<_> = before.symmetric_difference(&objects(bed, cluster)?).cloned().collect();
    let same = if left.is_empty() { Ok(()) } else { Err(left.join(", ")) };
    tally.note(&format!("c{cluster} has the objects it had before"), same);
    Ok(())
}

pub(super) fn succeeded(said: &Output) -> Result<(), String> {
    if said.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}{}", said.status, String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr)))
}

/// Asks `check`, by its `words`, until within patience what it says holds, and its exit code fits that.
pub(super) fn told(
    program: impl Fn() -> anyhow::Result<Command>,
    words: &[&str],
    holds: impl Fn(&[Value]) -> bool,
) -> anyhow::Result<Result<(), String>> {
    let begun = Instant::now();
    loop {
        let said = program()?.args(words).output()?;
        let rows: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let failed = rows.iter().any(|r| r["state"] == "failed");
        let code = said.status.code() == Some(i32::from(failed));
        if !rows.is_empty() && code && holds(&rows) {
            return Ok(Ok(()));
        }
        std::thread::sleep(AGAIN);
        if begun.elapsed() > PATIENCE {
            let errors = String::from_utf8_lossy(&said.stderr);
            return Ok(Err(format!("{}: {}{errors}", said.status, not_well(&rows))));
        }
    }
}

/// Findings of `check` that are not ok, in words.
fn not_well(rows: &[Value]) -> String {
    let rows = rows.iter().filter(|r| r["state"] != "ok");
    rows.map(|r| format!("{} {}: {}", r["code"], r["check"], r["message"])).collect::<Vec<_>>().join("; ")
}

impl Run<'_> {
    fn fairlead(&self, words: &[&str]) -> anyhow::Result<Output> {
        Ok(enter::fairlead(self.bed)?.args(words).output()?)
    }

    fn installed(&mut self) -> anyhow::Result<()> {
        for cluster in [1, 2] {
            let said = self.fairlead(&["check", "--before", "--context", &context(cluster)])?;
            self.tally.note(&format!("c{cluster} can be installed into"), succeeded(&said));
        }
        let begun = Instant::now();
        for (cluster, name) in [(1, "east"), (2, "west")] {
            let said = self.fairlead(&["install", "--context", &context(cluster), "--cluster", name])?;
            self.tally.note(&format!("c{cluster} install"), succeeded(&said));
        }
        let seconds = begun.elapsed().as_secs();
        self.tally.note(
            &format!("both are ready after {seconds} s"),
            if seconds <= BOUND_SECONDS { Ok(()) } else { Err(format!("more than {BOUND_SECONDS} s")) },
        );
        self.again()?;
        self.objects_are_valid()?;
        self.commands()?;
        self.checks()?;
        self.revisions()?;
        self.objects_of_users_stay()
    }

    /// A second run changes nothing; one with another value changes that.
    fn again(&mut self) -> anyhow::Result<()> {
        let versions = |run: &Self| -> anyhow::Result<String> {
            let words = [
                "get",
                "all,configmaps,roles,rolebindings",
                "-n",
                "fairlead-system",
                "-l",
                "app.kubernetes.io/part-of=fairlead",
            ];
            let columns = "custom-columns=K:.kind,N:.metadata.name,G:.metadata.generation,S:.spec,D:.data";
            output(enter::kubectl(run.bed, 1)?.args(words).args(["-o", columns]))
        };
        let before = versions(self)?;
        let said = self.fairlead(&["install", "--context", "c1"])?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let quiet =
            text.matches("0 of ").count() == 3 && text.contains("definitions: 0 applied") && versions(self)? == before;
        self.tally
            .note("a second install changes nothing", succeeded(&said).and(if quiet { Ok(()) } else { Err(text) }));
        let said = self.fairlead(&["install", "--context", "c1", "--set", "control.replicas=2"])?;
        let words = ["get", "deployment", "fairlead-control", "-n", "fairlead-system"];
        let path = "jsonpath={.spec.replicas} {.status.readyReplicas}";
        let begun = Instant::now();
        // A pod that was ready may miss a probe on a busy machine.
        let right = loop {
            let replicas = output(enter::kubectl(self.bed, 1)?.args(words).args(["-o", path]))?;
            if replicas.trim() == "2 2" {
                break Ok(());
            }
            if begun.elapsed() > PATIENCE {
                break Err(format!("replicas: {replicas}"));
            }
            std::thread::sleep(AGAIN);
        };
        self.tally.note("another value changes that", succeeded(&said).and(right));
        Ok(())
    }

    /// What --dry-run prints is what the API server takes.
    fn objects_are_valid(&mut self) -> anyhow::Result<()> {
        for words in [&["--cni", "--expose", "nodeport"][..], &["--revision", "canary", "--set", "tags=[prod]"]] {
            let mut all = vec!["install", "--dry-run", "--cluster", "east"];
            all.extend(words);
            let said = self.fairlead(&all)?;
            let text = String::from_utf8(said.stdout.clone()).context("output")?;
            let mut kubectl = enter::kubectl(self.bed, 1)?;
            kubectl.args([
                "apply",
                "--server-side",
                "--dry-run=server",
                "--field-manager=fairlead-install",
                "--validate=strict",
                "-f",
                "-",
            ]);
            let taken = output_of(&mut kubectl, &text).map(drop).map_err(|e| format!("{e:#}"));
            self.tally
                .note(&format!("the API server takes the objects of {}", words.join(" ")), succeeded(&said).and(taken));
        }
        Ok(())
    }

    /// Commands that the control plane answers.
    fn commands(&mut self) -> anyhow::Result<()> {
        let said = self.fairlead(&["token", "create", "--context", "c1"])?;
        self.tally.note("token create --context", succeeded(&said));
        let token = String::from_utf8(said.stdout).context("token")?;
        let said = self.fairlead(&["join", "--context", "c2", token.trim()])?;
        self.tally.note("join --context", succeeded(&said));
        let said = self.fairlead(&["join", "--context", "c2", token.trim()])?;
        let refused = said.status.code() == Some(2) && !said.stderr.is_empty();
        self.tally.note(
            "a token is good once, and exit code and error pass through",
            if refused { Ok(()) } else { Err(format!("{said:?}")) },
        );
        let said = self.fairlead(&["get", "proxies", "--context", "c1", "-o", "json"])?;
        let rows: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let gateway = rows.iter().any(|r| r["workload"].as_str().is_some_and(|w| w.contains("fairlead-eastwest")));
        self.tally.note("get proxies asks every replica", if gateway { Ok(()) } else { Err(format!("{rows:?}")) });
        Ok(())
    }

    /// `check` is content with what works, and names what does not.
    fn checks(&mut self) -> anyhow::Result<()> {
        let all_well = |rows: &[Value]| rows.iter().all(|r| r["state"] != "failed");
        self.check("check is content", &["c1", "c2"], all_well)?;
        let failed = |name: &'static str| {
            move |rows: &[Value]| rows.iter().any(|r| r["check"] == name && r["state"] == "failed" && r["remedy"] != "")
        };
        self.kubectl(&["delete", "mutatingwebhookconfiguration", "fairlead-injector"])?;
        self.check("check tells of a missing webhook", &["c1"], failed("webhook"))?;
        self.kubectl(&["delete", "clusterrolebinding", "fairlead-control"])?;
        self.check("check tells of missing rights", &["c1"], failed("rights"))?;
        self.kubectl(&["delete", "service", "fairlead-eastwest", "-n", "fairlead-system"])?;
        self.check("check tells of a missing gateway address", &["c1"], failed("gateway address"))?;
        let said = self.fairlead(&["install", "--context", "c1"])?;
        self.tally.note("install puts right what is missing", succeeded(&said));
        self.check("check is content again", &["c1"], all_well)
    }

    /// What `check` says within patience: resolvers keep for some seconds that a name was not there.
    fn check(&mut self, fact: &str, contexts: &[&str], holds: impl Fn(&[Value]) -> bool) -> anyhow::Result<()> {
        let mut words = vec!["check", "-o", "json"];
        words.extend(contexts.iter().flat_map(|c| ["--context", c]));
        let result = told(|| enter::fairlead(self.bed), &words, holds)?;
        self.tally.note(fact, result);
        Ok(())
    }

    fn kubectl(&self, words: &[&str]) -> anyhow::Result<()> {
        output(enter::kubectl(self.bed, 1)?.args(words)).map(drop)
    }

    /// A revision beside the first, and only it away again.
    fn revisions(&mut self) -> anyhow::Result<()> {
        let before = objects(self.bed, 2)?;
        let words = [
            "install",
            "--context",
            "c2",
            "--cluster",
            "west",
            "--revision",
            "canary",
            "--set",
            "tags=[prod]",
            "--set",
            "gateway.replicas=1",
        ];
        let said = self.fairlead(&words)?;
        self.tally.note("a second revision beside the first", succeeded(&said));
        let webhooks =
            output(enter::kubectl(self.bed, 2)?.args(["get", "mutatingwebhookconfigurations", "-o", "name"]))?;
        let there = ["fairlead-injector", "fairlead-injector-canary", "fairlead-revision-tag-prod"]
            .iter()
            .all(|n| webhooks.lines().any(|l| l.ends_with(n)));
        self.tally.note("each has its webhooks, and its tag", if there { Ok(()) } else { Err(webhooks) });
        let said = self.fairlead(&["uninstall", "--context", "c2", "--revision", "canary"])?;
        self.tally.note("one revision is taken out", succeeded(&said));
        let words = ["get", "deployment", "fairlead-eastwest", "-n", "fairlead-system", "-o", "yaml"];
        let gateway = output(enter::kubectl(self.bed, 2)?.args(words))?;
        let asks = if gateway.contains("fairlead-control.fairlead-system") { Ok(()) } else { Err(gateway) };
        self.tally.note("the gateway asks the control plane that is left", asks);
        let lasting = |all: &BTreeSet<String>| -> BTreeSet<String> {
            // Pods and their slices go in their own time; what the mesh knows goes on changing.
            let passing = ["fairlead-control-", "fairlead-eastwest-", "secrets fairlead-system/fairlead-state-"];
            let of_control = |line: &&String| !passing.iter().any(|p| line.contains(p));
            all.iter().filter(of_control).cloned().collect()
        };
        let after = objects(self.bed, 2)?;
        let left: Vec<_> = lasting(&before).symmetric_difference(&lasting(&after)).cloned().collect();
        self.tally.note("and nothing else", if left.is_empty() { Ok(()) } else { Err(left.join(", ")) });
        Ok(())
    }

    fn objects_of_users_stay(&mut self) -> anyhow::Result<()> {
        let mine = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: mine, namespace: default}\nspec: {host: reviews.default.svc.cluster.local}\n";
        output_of(enter::kubectl(self.bed, 2)?.args(["apply", "-f", "-"]), mine)?;
        let said = self.fairlead(&["uninstall", "--context", "c2"])?;
        self.tally.note("c2 uninstall", succeeded(&said));
        let kept = output(enter::kubectl(self.bed, 2)?.args(["get", "destinationrule", "mine", "-o", "name"]));
        self.tally.note("objects of users stay, and their definition", kept.map(drop).map_err(|e| format!("{e:#}")));
        Ok(())
    }
}
