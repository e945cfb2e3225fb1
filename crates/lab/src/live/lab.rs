//! A mesh that runs: what can be asked of it and done to it.
//!
//! The verbs of `fairlead lab` and the conditions of call tables are the same methods. Invariant: what was changed here is known
//! here, so that [`Lab::heal_all`] undoes exactly that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_calls::{Answer, Names};
use ipnet::IpNet;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::admin::{self, AdminError};
use super::authority::Authorities;
use super::layout::Layout;
use super::processes::{PROBE_ADDRESS, PROGRAM, Parts};
use super::spec::{EAST_WEST, MeshSpec, Part, SYSTEM_NAMESPACE};
use super::start::{StartOptions, all, rows};
use crate::faults::{Fault, Heal};
use crate::rules::{Chain, Hook, Match, Rule, Table, Transport, Verdict};
use crate::topology::{Plan, PlanError};
use crate::{Done, Handle, HandleError};

/// Control planes answer within a second of their start, or something is wrong.
const CONTROL_PATIENCE: Duration = Duration::from_secs(30);

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The mesh cannot be laid out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The substrate refused.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// A control plane or proxy refused, or did not answer.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A CA or certificate could not be made.
    #[error("certificates of the lab: {0}")]
    Authority(String),
    /// Files of the lab.
    #[error("{0}")]
    State(String),
    /// The start took too long.
    #[error("the mesh is not ready:\n{}", .0.join("\n"))]
    NotReady(Vec<String>),
    /// A name that means nothing here, or words that make no sense together.
    #[error("{0}")]
    Unknown(String),
    /// It makes sense, and a control plane refuses it.
    #[error("{0}")]
    Refused(String),
}

impl LabError {
    /// Whether the question was wrong, not the state of the mesh.
    pub fn is_wrong_words(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Handle(HandleError::UnknownTarget(_) | HandleError::NoProcess { .. }))
    }
}

/// A running mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: MeshSpec,
    names: Names,
    handle: Handle,
    layout: Layout,
    authorities: Authorities,
    options: StartOptions,
    program: PathBuf,
    changed: Mutex<Changed>,
}

/// What is not as it was started, beside the faults of the substrate.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed {
    unhealthy: BTreeSet<String>,
    drained: BTreeSet<String>,
    answers: BTreeSet<String>,
    pub(super) detached: BTreeSet<String>,
    /// Pairs: a cluster, and the one that alone detached it.
    pub(super) detached_here: BTreeSet<(String, String)>,
}

impl Lab {
    pub(super) fn new(
        spec: MeshSpec,
        names: Names,
        handle: Handle,
        layout: Layout,
        authorities: Authorities,
        options: StartOptions,
        program: PathBuf,
    ) -> Self {
        let inner = Inner { spec, names, handle, layout, authorities, options, program, changed: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// What runs.
    pub fn spec(&self) -> &MeshSpec {
        &self.inner.spec
    }

    /// What names mean in call tables.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// The substrate.
    pub fn handle(&self) -> &Handle {
        &self.inner.handle
    }

    /// Where files are.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// The CAs.
    pub fn authorities(&self) -> &Authorities {
        &self.inner.authorities
    }

    /// How processes are described.
    pub fn parts<'a>(&'a self, plan: &'a Plan) -> Parts<'a> {
        let Inner { spec, layout, options, program, .. } = &*self.inner;
        Parts { spec, layout, plan, options, program: Path::new(program) }
    }

    /// Everything that has a proxy: names of the plan.
    pub fn proxies(&self) -> Vec<String> {
        let plan = self.handle().plan();
        let own = self
            .spec()
            .workloads()
            .filter(|(name, w)| w.has_proxy() && !plan.aliases.contains_key(name))
            .map(|(name, _)| name);
        let mut names: Vec<String> = own.collect();
        for cluster in self.spec().clusters.keys() {
            names.extend(plan.gateways(cluster, EAST_WEST).into_iter().map(str::to_owned));
        }
        names
    }

    /// The gateway that answers at a wide-area address: `west/east-west@198.51.100.10`.
    pub fn gateway_at(&self, address: IpAddr) -> Option<String> {
        let plan = self.handle().plan();
        for cluster in self.spec().clusters.keys() {
            for owner in plan.gateways(cluster, EAST_WEST) {
                if plan.namespace(owner).is_some_and(|n| n.wan_addresses().contains(&address)) {
                    return Some(format!("{cluster}/{EAST_WEST}@{address}"));
                }
            }
        }
        let mine = |w: &&(String, &super::spec::MeshWorkload)| {
            w.1.part == Part::EastWest && (w.1.wan.contains(&address) || w.1.addresses.contains(&address))
        };
        let found: Vec<_> = self.spec().workloads().collect();
        found.iter().find(mine).map(|(name, _)| format!("{name}@{address}"))
    }

    /// Starts a control plane and waits until it answers.
    pub async fn start_control(&self, cluster: &str) -> Result<(), LabError> {
        let plan = self.handle().plan();
        let _ = std::fs::remove_file(self.layout().admin(cluster));
        self.handle().spawn(self.parts(&plan).control(cluster)).await?;
        self.control_ready(cluster).await
    }

    /// Waits until a control plane has read its objects.
    pub async fn control_ready(&self, cluster: &str) -> Result<(), LabError> {
        let deadline = Instant::now() + CONTROL_PATIENCE;
        loop {
            match admin::get(&self.layout().admin(cluster), "/ready").await {
                Ok(answer) if answer["ready"] == json!(true) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(e.into()),
                Ok(_) if Instant::now() > deadline => {
                    return Err(LabError::NotReady(vec![format!("{cluster}/control has not read its objects")]));
                }
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Joins every pair of clusters that does not know each other yet, with real tokens.
    pub async fn join_all(&self) -> Result<(), LabError> {
        let clusters: Vec<&String> = self.spec().clusters.keys().collect();
        for (n, issuer) in clusters.iter().enumerate() {
            for joiner in &clusters[n + 1..] {
                let known = admin::get(&self.layout().admin(joiner), "/peers").await?;
                if rows(&known).any(|row| row["cluster"] == issuer.as_str()) {
                    continue;
                }
                let token = admin::post(&self.layout().admin(issuer), "/token", &json!({})).await?;
                admin::post(&self.layout().admin(joiner), "/join", &json!({"token": token["token"]})).await?;
            }
        }
        Ok(())
    }

    /// Breaks something of the substrate. Says what that did to processes.
    pub async fn fault(&self, fault: Fault) -> Result<Vec<String>, LabError> {
        Ok(words(&self.handle().fault(fault).await?))
    }

    /// Kills the program of a workload, its sidecar stays; other targets are killed whole.
    pub fn kill_of(&self, target: &str) -> Fault {
        let program = self.spec().workload(target).is_some_and(|(_, w)| matches!(w.part, Part::Sidecar | Part::Plain));
        Fault::Kill { target: target.to_owned(), process: program.then(|| PROGRAM.to_owned()) }
    }

    /// Says that a workload's program is not ready, whatever it answers; or that it is again.
    pub async fn unhealthy(&self, name: &str, on: bool) -> Result<(), LabError> {
        for workload in self.workloads_of(name)? {
            let probed =
                self.spec().workload(&workload).is_some_and(|(_, w)| w.part == Part::Sidecar && !w.ports.is_empty());
            if !probed {
                return Err(LabError::Unknown(format!(
                    "{workload} has no sidecar that asks whether its program is ready"
                )));
            }
            match on {
                true => self.handle().install(&workload, unanswered_probes()).await?,
                false => self.handle().uninstall(&workload, UNHEALTHY_TABLE).await?,
            }
            let mut changed = self.changed();
            if on {
                changed.unhealthy.insert(workload)
            } else {
                changed.unhealthy.remove(&workload)
            };
        }
        Ok(())
    }

    /// Drains a cluster or a workload, or ends that.
    pub async fn drain(&self, name: &str, on: bool) -> Result<(), LabError> {
        if self.spec().clusters.contains_key(name) {
            admin::post(&self.layout().admin(name), "/drain", &json!({"on": on})).await?;
            let mut changed = self.changed();
            if on {
                changed.drained.insert(name.to_owned())
            } else {
                changed.drained.remove(name)
            };
            return Ok(());
        }
        for workload in self.workloads_of(name)? {
            let path = if on { "/drain" } else { "/undrain" };
            admin::proxy(self.handle(), &workload, "POST", path).await?;
            let mut changed = self.changed();
            if on {
                changed.drained.insert(workload)
            } else {
                changed.drained.remove(&workload)
            };
        }
        Ok(())
    }

    /// Tells programs how to answer; None: as always.
    pub fn answers(&self, name: &str, answer: Option<&Answer>) -> Result<(), LabError> {
        for workload in self.workloads_of(name)? {
            let file = self.layout().answers(&workload);
            let failed = |e: std::io::Error| LabError::State(format!("{}: {e}", file.display()));
            match answer {
                Some(answer) => {
                    // Read at every request: it must never be seen half written.
                    let new = file.with_extension("new");
                    std::fs::write(&new, answer_text(answer))
                        .and_then(|()| std::fs::rename(&new, &file))
                        .map_err(failed)?;
                    self.changed().answers.insert(workload);
                }
                None => {
                    match std::fs::remove_file(&file) {
                        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
                        _ => {}
                    }
                    self.changed().answers.remove(&workload);
                }
            }
        }
        Ok(())
    }

    /// Makes whole what names this target, or something in it. Says what was done for it.
    pub async fn heal(&self, target: &str) -> Result<Vec<String>, LabError> {
        let mut done = words(&self.handle().heal(&Heal::Target(target.to_owned())).await?);
        let changed = self.changed().clone();
        let meant = |name: &String| name == target || self.names().resolve(target).is_ok_and(|set| set.contains(name));
        done.extend(self.undo(changed, meant).await?);
        Ok(done)
    }

    /// Makes everything whole. Says what was done for it.
    pub async fn heal_all(&self) -> Result<Vec<String>, LabError> {
        let mut done = words(&self.handle().heal(&Heal::All).await?);
        let changed = self.changed().clone();
        done.extend(self.undo(changed, |_| true).await?);
        Ok(done)
    }

    async fn undo(&self, changed: Changed, meant: impl Fn(&String) -> bool) -> Result<Vec<String>, LabError> {
        for name in changed.answers.iter().filter(|n| meant(n)) {
            self.answers(name, None)?;
        }
        for name in changed.unhealthy.iter().filter(|n| meant(n)) {
            self.unhealthy(name, false).await?;
        }
        for name in changed.drained.iter().filter(|n| meant(n)) {
            self.drain(name, false).await?;
        }
        let mut done = Vec::new();
        for name in changed.detached.iter().filter(|n| meant(n)) {
            done.extend(self.take_back(name).await?);
        }
        // A cluster that was taken back as a new one is back with everybody.
        for (out, by) in &changed.detached_here {
            let is_back = changed.detached.contains(out) && meant(out);
            if !is_back && (meant(out) || meant(by)) {
                done.extend(self.take_back_here(out, by).await?);
            }
        }
        Ok(done)
    }

    /// Ends all processes at once.
    pub async fn stop(&self) {
        // Their namespaces end with this process; the grace is for logs, not for traffic.
        self.handle().stop_all(Duration::from_millis(500)).await;
    }

    /// Restarts a target's processes, all at once. Says which.
    pub async fn restart(&self, target: &str) -> Result<Vec<String>, LabError> {
        Ok(words(&self.handle().restart(target, None).await?))
    }

    /// What is broken or changed, in words.
    pub async fn broken(&self) -> Vec<String> {
        let mut words: Vec<String> = self.handle().faults().await.iter().map(ToString::to_string).collect();
        let changed = self.changed();
        let lists = [
            ("unhealthy", &changed.unhealthy),
            ("drain", &changed.drained),
            ("answers", &changed.answers),
            ("detach", &changed.detached),
        ];
        for (word, names) in lists {
            words.extend(names.iter().map(|name| format!("{word} {name}")));
        }
        words.extend(changed.detached_here.iter().map(|(out, by)| format!("detach {out} --by {by} --here")));
        words
    }

    /// The workloads that a name means.
    pub fn workloads_of(&self, name: &str) -> Result<BTreeSet<String>, LabError> {
        let found = self.names().resolve(name).map_err(LabError::Unknown)?;
        let built_in = format!("/{SYSTEM_NAMESPACE}/{EAST_WEST}");
        if found.iter().all(|n| self.spec().workload(n).is_some() || n.ends_with(&built_in)) && !found.is_empty() {
            return Ok(found);
        }
        Err(LabError::Unknown(format!("{name} has no workloads")))
    }

    /// Addresses by cluster that a person would like to know.
    pub fn addresses(&self) -> BTreeMap<String, Vec<String>> {
        let plan = self.handle().plan();
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, namespace) in &plan.namespaces {
            let Some(cluster) = &namespace.cluster else { continue };
            let all: Vec<String> = namespace
                .network_addresses()
                .iter()
                .chain(namespace.wan_addresses())
                .map(ToString::to_string)
                .collect();
            found.entry(cluster.clone()).or_default().push(format!("{name} {}", all.join(" ")));
        }
        found
    }

    /// Runs all at once for each of these clusters.
    pub async fn each_control(&self, clusters: impl IntoIterator<Item = String>) -> Result<(), LabError> {
        all(clusters.into_iter().map(|cluster| {
            let lab = self.clone();
            async move { lab.control_ready(&cluster).await }
        }))
        .await
    }

    pub(super) fn renew_authority(&self, cluster: &str, trust_domain: &str) -> Result<(), LabError> {
        self.inner.authorities.renew(cluster, trust_domain, self.layout()).map_err(LabError::Authority)
    }

    pub(super) fn changed(&self) -> MutexGuard<'_, Changed> {
        self.inner.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of the table that stops readiness probes.
const UNHEALTHY_TABLE: &str = "fairlead_unhealthy";

/// Refuses what the proxy asks its program, and nothing else.
fn unanswered_probes() -> Table {
    let probes = [Match::Transport(Transport::Tcp), Match::Destination(IpNet::from(PROBE_ADDRESS))];
    let chain =
        Chain { name: "probes".into(), hook: Hook::FilterOutput, rules: vec![Rule::new(probes, Verdict::Reset)] };
    Table { name: UNHEALTHY_TABLE.into(), chains: vec![chain] }
}

/// What a change did to processes, a line for each owner.
fn words(done: &Done) -> Vec<String> {
    let mut words = Vec::new();
    for (verb, list) in [("killed", &done.killed), ("started", &done.started)] {
        let mut owners: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
        for (owner, name) in list {
            owners.entry(owner).or_default().push(name);
        }
        words.extend(owners.into_iter().map(|(owner, names)| format!("{verb} {owner} ({})", names.join(", "))));
    }
    words
}

/// The words of the echo program's answers file (docs/echo.md).
fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => status.to_string(),
        Answer::Word(word) => word.clone(),
        Answer::Delay { delay } => format!("delay {delay}"),
    }
}
