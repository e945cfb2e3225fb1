//! Primary-remote on real clusters: one control plane's cluster serves another, over networks that do not reach each other's pods.
//!
//! Installed by the commands, its credential revoked and brought anew, its table held against pods. Invariant: the clusters' lists of
//! objects are at the end what they were at the beginning, and that is one of the facts.

use super::bed::Bed;
use super::command::output;
use super::enter;
use super::install::{as_before, objects, succeeded};
use super::mesh;
use crate::tally::Tally;
use serde_json::Value;
use std::process::Output;
use std::time::{Duration, Instant};

const ROOT: &str = "tests/meshes/pair";
const DOMAIN: &str = "pair.example";
/// From two empty clusters to one mesh.
const BOUND_SECONDS: u64 = 60;
/// For what a control plane notices by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the remote's control plane keeps its own, in the primary.
const HOME: &str = "fairlead-remote-west";

struct Run<'a> {
    bed: &'a Bed,
    tally: Tally,
}

/// The step of the suite: c1 is the primary, c2 its remote.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let mut run = Run { bed, tally: Tally::default() };
    let before = [objects(bed, 1)?, objects(bed, 2)?];
    let result = run.installed();
    let said = run.fairlead(&["uninstall", "--context", "c2", "--primary", "c1", "--crds"])?;
    run.tally.note("the remote is uninstalled, with what serves it", succeeded(&said));
    let said = run.fairlead(&["uninstall", "--context", "c1", "--crds"])?;
    run.tally.note("the primary is uninstalled", succeeded(&said));
    for (cluster, before) in [1, 2].into_iter().zip(&before) {
        as_before(bed, cluster, before, &mut run.tally)?;
    }
    result?;
    Ok(run.tally)
}

impl Run<'_> {
    fn fairlead(&self, words: &[&str]) -> anyhow::Result<Output> {
        Ok(enter::fairlead(self.bed)?.args(words).output()?)
    }

    fn list(&self, what: &str) -> anyhow::Result<Vec<Value>> {
        let said = self.fairlead(&["get", what, "--context", "c2", "-o", "json"])?;
        succeeded(&said).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(serde_json::from_slice(&said.stdout)?)
    }

    fn installed(&mut self) -> anyhow::Result<()> {
        let (begun, records) = (Instant::now(), mesh::records());
        let words = ["--cluster", "east", "--mesh-trust-domain", DOMAIN, "--set", &records];
        let said = self.fairlead(&[&["install", "--context", "c1"], &words[..]].concat())?;
        self.tally.note("the primary is installed", succeeded(&said));
        // The bed's load balancers share their node's address, on which the primary's own ports are taken.
        let words = ["--cluster", "west", "--primary", "c1", "--set", "remote.port=15112", "--set", &records];
        let said = self.fairlead(&[&["install", "--context", "c2"], &words[..]].concat())?;
        self.tally.note("the remote is installed and joined", succeeded(&said));
        let seconds = begun.elapsed().as_secs();
        let soon = if seconds <= BOUND_SECONDS { Ok(()) } else { Err(format!("more than {BOUND_SECONDS} s")) };
        self.tally.note(&format!("by two commands, in {seconds} s"), soon);
        self.what_is_where()?;
        self.checked("check is content with both")?;
        self.credential()?;
        let tally = mesh::on_installed(self.bed, ROOT, &[(1, "east"), (2, "west")])?;
        self.tally += tally;
        let said = self.fairlead(&["uninstall", "--context", "c1"])?;
        let refused = said.status.code() == Some(2) && String::from_utf8_lossy(&said.stderr).contains("west");
        let refused = if refused { Ok(()) } else { Err(format!("{said:?}")) };
        self.tally.note("a primary does not go before its remote", refused);
        Ok(())
    }

    /// The remote has no control plane and no secret of ours; the primary keeps its CA apart.
    fn what_is_where(&mut self) -> anyhow::Result<()> {
        let names = |cluster: u8, namespace: &str, kind: &str| -> anyhow::Result<String> {
            let mut kubectl = enter::kubectl(self.bed, cluster)?;
            output(kubectl.args(["get", kind, "-n", namespace, "-o", "name"]))
        };
        let deployments = names(2, "fairlead-system", "deployments")?;
        let secrets = names(2, "fairlead-system", "secrets")?;
        let (apart, own) = (names(1, HOME, "secrets")?, names(1, "fairlead-system", "secrets")?);
        let alone = deployments.trim() == "deployment.apps/fairlead-eastwest" && secrets.trim().is_empty();
        let alone = if alone { Ok(()) } else { Err(format!("{deployments} {secrets}")) };
        self.tally.note("the remote runs a gateway and holds no secret", alone);
        let kept =
            apart.contains("fairlead-ca") && own.contains("fairlead-ca") && !own.contains("secret/fairlead-remote");
        self.tally
            .note("its CA is held by its primary, apart", if kept { Ok(()) } else { Err(format!("{apart} {own}")) });
        let members = self.list("clusters")?;
        let known = |name: &str| members.iter().any(|row| row["cluster"] == name && row["stream"] != "stale");
        let both = if known("east") && known("west") { Ok(()) } else { Err(format!("{members:?}")) };
        self.tally.note("get clusters --context of the remote asks its control plane", both);
        Ok(())
    }

    /// Paths between gateways are proved in their own time.
    fn checked(&mut self, fact: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let said = succeeded(&self.fairlead(&["check", "--context", "c1", "--context", "c2"])?);
            if said.is_ok() || begun.elapsed() > PATIENCE {
                self.tally.note(fact, said);
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// An account that is deleted takes its tokens with it; a join brings a new one.
    fn credential(&mut self) -> anyhow::Result<()> {
        let mut kubectl = enter::kubectl(self.bed, 2)?;
        output(kubectl.args(["delete", "serviceaccount", "fairlead-primary", "-n", "fairlead-system"]))?;
        self.tally.note("a revoked credential is told of", self.until_told(true)?);
        let said = self.fairlead(&["check", "--context", "c2", "-o", "json"])?;
        let rows: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let told = rows.iter().any(|r| r["state"] == "failed" && r["remedy"].to_string().contains("fairlead join"));
        self.tally.note("check says what repairs it", if told { Ok(()) } else { Err(format!("{said:?}")) });
        let said = self.fairlead(&["join", "--context", "c2", "--primary", "c1"])?;
        self.tally.note("join brings a new one", succeeded(&said));
        self.tally.note("which is used", self.until_told(false)?);
        self.checked("check is content again")
    }

    /// Until the remote's control plane says, or does not say any more, that its credential is refused.
    fn until_told(&self, wanted: bool) -> anyhow::Result<Result<(), String>> {
        let begun = Instant::now();
        loop {
            let told = self.list("diagnostics")?.iter().any(|row| row["code"] == "FL0505");
            if told == wanted {
                return Ok(Ok(()));
            }
            if begun.elapsed() > PATIENCE {
                return Ok(Err(format!("not within {PATIENCE:?}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
