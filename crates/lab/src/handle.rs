//! A running lab: what is built, what runs in it, what is broken.
//!
//! The one object that the layer above works with. Cheap to clone. Invariant: what is broken is always exactly what
//! [`Handle::faults`] says; a change of it is installed as a difference, by one caller at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, broadcast};
use tokio::task::JoinSet;

use crate::capture::Capture;
use crate::faults::{self, Down, Fault, Faults, Heal};
use crate::netlink::NetlinkError;
use crate::netns::{NetNs, NetNsError};
use crate::process::{Event, ProcessError, ProcessSpec, Status, Supervisor};
use crate::rules::{self, Table};
use crate::topology::{ApplyError, Plan, Topology};

/// Why something could not be done in a running lab.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The plan could not be built, or does not have this namespace.
    #[error(transparent)]
    Topology(#[from] ApplyError),
    /// A process could not be started or found.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A namespace could not be entered.
    #[error("namespace {namespace}: {source}")]
    Namespace {
        /// Its name.
        namespace: String,
        /// Why.
        source: NetNsError,
    },
    /// A rule was refused.
    #[error("namespace {namespace}: {source}")]
    Rule {
        /// Its name.
        namespace: String,
        /// Why.
        source: NetlinkError,
    },
    /// A fault names something that does not exist.
    #[error(
        "there is no {0} in this lab (a target is CLUSTER, CLUSTER/control, CLUSTER/GATEWAY[@ADDRESS] or CLUSTER/NAMESPACE/WORKLOAD)"
    )]
    UnknownTarget(String),
    /// A process is not to run as long as a fault holds.
    #[error("{owner}: {name} is not started while `{fault}` holds; heal that first")]
    Held {
        /// Whose.
        owner: String,
        /// Its name there.
        name: String,
        /// The target of the fault.
        fault: String,
    },
}

/// A running lab.
#[derive(Debug, Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    topology: RwLock<Topology>,
    supervisor: Supervisor,
    broken: Mutex<Broken>,
}

#[derive(Debug, Default)]
struct Broken {
    faults: Faults,
    /// The tables that are installed for them, by namespace.
    installed: BTreeMap<String, Table>,
    /// The processes that were killed for them: owner and name.
    held: BTreeSet<(String, String)>,
}

impl Handle {
    /// Takes over what is built. Logs and the files of workloads go below `directory`.
    pub fn new(topology: Topology, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let supervisor = Supervisor::new(&directory);
        let inner = Inner { directory, topology: RwLock::new(topology), supervisor, broken: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// What is built.
    pub fn plan(&self) -> Plan {
        self.topology(|t| t.plan().clone())
    }

    /// A namespace by any of its names, to open sockets in.
    pub fn namespace(&self, name: &str) -> Result<NetNs, HandleError> {
        Ok(self.topology(|t| t.namespace(name).cloned())?)
    }

    /// Runs `work` on a thread inside a namespace, without blocking the caller's.
    pub async fn in_ns<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HandleError> {
        let namespace = self.namespace(name)?;
        let done = tokio::task::spawn_blocking(move || namespace.run(work)).await;
        done.unwrap_or_else(|e| Err(NetNsError::Thread(e.to_string())))
            .map_err(|source| HandleError::Namespace { namespace: name.to_owned(), source })
    }

    /// Installs a table of rules in a namespace, replacing one of the same name.
    pub async fn install(&self, name: &str, table: Table) -> Result<(), HandleError> {
        let refused = |source| HandleError::Rule { namespace: name.to_owned(), source };
        self.in_ns(name, move || rules::install(&table)).await?.map_err(refused)
    }

    /// Removes a table of rules from a namespace, if it is there.
    pub async fn uninstall(&self, name: &str, table: &str) -> Result<(), HandleError> {
        let table = table.to_owned();
        let refused = |source| HandleError::Rule { namespace: name.to_owned(), source };
        self.in_ns(name, move || rules::remove(&table)).await?.map_err(refused)
    }

    /// Sends a workload's connections through its proxy.
    pub async fn capture(&self, name: &str, capture: &Capture) -> Result<(), HandleError> {
        self.install(name, capture.table()).await
    }

    /// Starts a process in its owner's namespace, and waits until it is ready.
    pub async fn spawn(&self, mut spec: ProcessSpec) -> Result<(), HandleError> {
        spec.owner = self.owner(&spec.owner);
        let namespace = self.namespace(&spec.owner)?;
        let held = {
            let broken = self.inner.broken.lock().await;
            self.topology(|t| faults::down(t.plan(), &broken.faults))
                .into_iter()
                .find(|d| d.covers(&spec.owner, &spec.name))
        };
        match held {
            Some(down) => {
                Err(HandleError::Held { owner: spec.owner, name: spec.name, fault: format!("kill {}", down.target) })
            }
            None => Ok(self.inner.supervisor.start(spec, namespace).await?),
        }
    }

    /// Ends the processes of a target, or the one of this name (SIGTERM, SIGKILL after 10 s), and starts them again as they
    /// were, all at once. Those that a fault holds stay down.
    pub async fn restart(&self, target: &str, process: Option<&str>) -> Result<(), HandleError> {
        let broken = self.inner.broken.lock().await;
        let plan = self.plan();
        if faults::resolve(&plan, target).is_empty() {
            return Err(HandleError::UnknownTarget(target.to_owned()));
        }
        let meant =
            Faults::default().with(Fault::Kill { target: self.owner(target), process: process.map(str::to_owned) });
        let (meant, held) = (faults::down(&plan, &meant), faults::down(&plan, &broken.faults));
        let covered = |downs: &[Down], status: &Status| downs.iter().any(|d| d.covers(&status.owner, &status.name));
        let chosen = self.processes().into_iter().filter(|s| covered(&meant, s) && !covered(&held, s));
        let restarts = self.start_again(chosen.map(|s| (s.owner, s.name))).await;
        Ok(restarts.into_iter().try_for_each(|(_, done)| done)?)
    }

    /// Ends a process: SIGTERM, SIGKILL after `grace`.
    pub async fn stop(&self, owner: &str, name: &str, grace: Duration) -> Result<(), HandleError> {
        Ok(self.inner.supervisor.stop(&self.owner(owner), name, grace).await?)
    }

    /// Ends all processes at once. The namespaces go with the last handle.
    pub async fn stop_all(&self, grace: Duration) {
        self.inner.supervisor.stop_all(grace).await;
    }

    /// All processes.
    pub fn processes(&self) -> Vec<Status> {
        self.inner.supervisor.statuses()
    }

    /// Processes that end by themselves, from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.supervisor.events()
    }

    /// Changes what is built; faults go on holding. The processes of namespaces that are gone, or were built anew, are killed.
    /// Returns the namespaces that are new (or new again): their rules and processes are the caller's to install and start.
    pub async fn update(&self, plan: Plan) -> Result<BTreeSet<String>, HandleError> {
        let mut broken = self.inner.broken.lock().await;
        let built = {
            let mut topology = self.inner.topology.write().unwrap_or_else(PoisonError::into_inner);
            topology.update(plan)?
        };
        let plan = self.plan();
        for status in self.processes() {
            if plan.find(&status.owner).is_none_or(|name| built.contains(name)) {
                self.inner.supervisor.forget(&status.owner, &status.name).await?;
            }
        }
        broken.installed.retain(|name, _| plan.namespaces.contains_key(name) && !built.contains(name));
        let known = broken.faults.iter().filter(|f| f.targets().iter().any(|t| faults::resolve(&plan, t).is_empty()));
        let faults = known
            .cloned()
            .collect::<Vec<_>>()
            .into_iter()
            .fold(broken.faults.clone(), |faults, gone| faults.without(&Heal::Fault(gone)));
        self.make(&mut broken, faults).await?;
        Ok(built)
    }

    /// Breaks something. Breaking it twice is breaking it once.
    pub async fn fault(&self, fault: Fault) -> Result<(), HandleError> {
        let mut broken = self.inner.broken.lock().await;
        let faults = broken.faults.with(fault);
        self.make(&mut broken, faults).await
    }

    /// Makes something whole: rules go, killed processes are started as they were, and are ready when this returns.
    pub async fn heal(&self, heal: &Heal) -> Result<(), HandleError> {
        let mut broken = self.inner.broken.lock().await;
        let faults = broken.faults.without(heal);
        self.make(&mut broken, faults).await
    }

    /// What is broken.
    pub async fn faults(&self) -> Faults {
        self.inner.broken.lock().await.faults.clone()
    }

    /// Installs the difference between what is broken and what is to be. What could not be done is tried again by the next
    /// change, since only what was done is remembered.
    async fn make(&self, broken: &mut Broken, faults: Faults) -> Result<(), HandleError> {
        let plan = self.plan();
        let tables = faults::tables(&plan, &faults).map_err(HandleError::UnknownTarget)?;
        let down = faults::down(&plan, &faults);
        broken.faults = faults;
        let gone = broken.installed.keys().filter(|name| !tables.contains_key(*name)).map(|name| (name.clone(), None));
        let changed = tables.iter().filter(|(name, table)| broken.installed.get(*name) != Some(*table));
        let changes: Vec<_> = gone.chain(changed.map(|(name, table)| (name.clone(), Some(table.clone())))).collect();
        self.install_all(broken, changes).await?;
        self.hold(broken, &down).await;
        self.release(broken, &down).await
    }

    /// Installs or removes the tables of faults in many namespaces at once: each waits some milliseconds for the kernel.
    async fn install_all(&self, broken: &mut Broken, changes: Vec<(String, Option<Table>)>) -> Result<(), HandleError> {
        let mut running = JoinSet::new();
        for (name, table) in changes {
            let handle = self.clone();
            running.spawn(async move {
                let done = match table.clone() {
                    Some(table) => handle.install(&name, table).await,
                    None => handle.uninstall(&name, faults::TABLE).await,
                };
                (name, table, done)
            });
        }
        let mut first = Ok(());
        for (name, table, done) in running.join_all().await {
            match (done, table) {
                (Ok(()), Some(table)) => {
                    broken.installed.insert(name, table);
                }
                (Ok(()), None) => {
                    broken.installed.remove(&name);
                }
                (Err(e), _) => first = first.and(Err(e)),
            }
        }
        first
    }

    /// Kills what must not run.
    async fn hold(&self, broken: &mut Broken, down: &[Down]) {
        let mut kills = JoinSet::new();
        for status in self.processes() {
            if status.pid.is_some() && down.iter().any(|d| d.covers(&status.owner, &status.name)) {
                let handle = self.clone();
                kills.spawn(async move {
                    // Only a process that is unknown could not be killed.
                    let _ = handle.inner.supervisor.kill(&status.owner, &status.name).await;
                    (status.owner, status.name)
                });
            }
        }
        broken.held.extend(kills.join_all().await);
    }

    /// Starts what was held and need not be any more.
    async fn release(&self, broken: &mut Broken, down: &[Down]) -> Result<(), HandleError> {
        let free: Vec<_> = broken.held.iter().filter(|(o, n)| !down.iter().any(|d| d.covers(o, n))).cloned().collect();
        let mut first = Ok(());
        for (key, done) in self.start_again(free.into_iter()).await {
            match done {
                Ok(()) | Err(ProcessError::Unknown { .. } | ProcessError::Running { .. }) => {
                    broken.held.remove(&key);
                }
                Err(e) => first = first.and(Err(e)),
            }
        }
        Ok(first?)
    }

    async fn start_again(
        &self,
        keys: impl Iterator<Item = (String, String)>,
    ) -> Vec<((String, String), Result<(), ProcessError>)> {
        let mut starts = JoinSet::new();
        for (owner, name) in keys {
            let handle = self.clone();
            starts.spawn(async move {
                let done = match handle.namespace(&owner) {
                    Ok(namespace) => handle.inner.supervisor.restart(&owner, &name, namespace).await,
                    // It went with an update; so did its processes.
                    Err(_) => Ok(()),
                };
                ((owner, name), done)
            });
        }
        starts.join_all().await
    }

    /// The name that processes are kept under: the plan's, but a workload that shares a namespace keeps its own.
    fn owner(&self, name: &str) -> String {
        self.topology(|t| match t.plan().find(name) {
            Some(found) if !t.plan().aliases.contains_key(name) => found.to_owned(),
            _ => name.to_owned(),
        })
    }

    fn topology<T>(&self, read: impl FnOnce(&Topology) -> T) -> T {
        read(&self.inner.topology.read().unwrap_or_else(PoisonError::into_inner))
    }
}
