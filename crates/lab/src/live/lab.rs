//! A mesh that runs: what can be asked of it and done to it.
//!
//! The verbs of `fairlead lab` and the conditions of call tables are the same methods. Invariant: what was changed here is known
//! here, so that [`Lab::heal_all`] undoes exactly that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_calls::Names;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::admin::{self, AdminError};
use super::authority::Authorities;
use super::conditions::Changed;
use super::layout::Layout;
use super::processes::{PROGRAM, Parts};
use super::spec::{EAST_WEST, MeshSpec, Part, SYSTEM_NAMESPACE};
use super::start::{StartOptions, rows};
use crate::faults::{Fault, Heal};
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
    /// Something was broken and healed, and nobody has waited for the effect yet.
    disturbed: AtomicBool,
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
        let (changed, disturbed) = (Mutex::default(), AtomicBool::default());
        let inner = Inner { spec, names, handle, layout, authorities, options, program, changed, disturbed };
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
        let done = self.handle().fault(fault).await?;
        self.follow(&done).await?;
        Ok(words(&done))
    }

    /// Kills the program of a workload, its sidecar stays; other targets are killed whole.
    pub fn kill_of(&self, target: &str) -> Fault {
        let program = self.spec().workload(target).is_some_and(|(_, w)| matches!(w.part, Part::Sidecar | Part::Plain));
        Fault::Kill { target: target.to_owned(), process: program.then(|| PROGRAM.to_owned()) }
    }

    /// Makes whole what names this target, or something in it. Says what was done for it.
    pub async fn heal(&self, target: &str) -> Result<Vec<String>, LabError> {
        let healed = self.handle().heal(&Heal::Target(target.to_owned())).await?;
        self.follow(&healed).await?;
        let mut done = words(&healed);
        let changed = self.changed().clone();
        let meant = |name: &String| name == target || self.names().resolve(target).is_ok_and(|set| set.contains(name));
        done.extend(self.undo(changed, meant).await?);
        self.set_disturbed(true);
        Ok(done)
    }

    /// Makes everything whole. Says what was done for it.
    pub async fn heal_all(&self) -> Result<Vec<String>, LabError> {
        let healed = self.handle().heal(&Heal::All).await?;
        self.follow(&healed).await?;
        let mut done = words(&healed);
        let changed = self.changed().clone();
        done.extend(self.undo(changed, |_| true).await?);
        if !done.is_empty() {
            self.set_disturbed(true);
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
        let done = self.handle().restart(target, None).await?;
        self.follow(&done).await?;
        Ok(words(&done))
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

    pub(super) fn renew_authority(&self, cluster: &str, trust_domain: &str) -> Result<(), LabError> {
        self.inner.authorities.renew(cluster, trust_domain, self.layout()).map_err(LabError::Authority)
    }

    /// Whether proxies may still know of what was broken before: calls that are made now could tell of that.
    pub(super) fn is_disturbed(&self) -> bool {
        self.inner.disturbed.load(Ordering::Relaxed)
    }

    pub(super) fn set_disturbed(&self, disturbed: bool) {
        self.inner.disturbed.store(disturbed, Ordering::Relaxed);
    }

    pub(super) fn changed(&self) -> MutexGuard<'_, Changed> {
        self.inner.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a change did to processes, a line for each owner.
fn words(done: &Done) -> Vec<String> {
    let mut words = Vec::new();
    for (verb, list) in [("killed", &done.killed), ("started", &done.started), ("restarted", &done.restarted)] {
        let mut owners: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
        for (owner, name) in list {
            owners.entry(owner).or_default().push(name);
        }
        words.extend(owners.into_iter().map(|(owner, names)| format!("{verb} {owner} ({})", names.join(", "))));
    }
    words
}
