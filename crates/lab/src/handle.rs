//! A running lab: what is built, what runs in it, what is broken.
//!
//! The one object that the layer above works with. Cheap to clone. Invariant: what is broken is always exactly what
//! [`Handle::faults`] says; a change of it is installed as a difference, by one caller at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fairlead_capture::CaptureSpec;
use fairlead_capture::netlink::NetlinkError;
use fairlead_capture::rules::{self, Table};
use tokio::sync::{Mutex, broadcast};
use tokio::task::JoinSet;

use crate::faults::{self, Down, Fault, Faults, Heal};
use crate::netns::{NetNs, NetNsError};
use crate::process::{Event, ProcessError, ProcessSpec, State, Status, Supervisor};
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
    /// A target that has no such process.
    #[error("{target} has no process {process}; there are: {}", .there.join(", "))]
    NoProcess {
        /// The target as written.
        target: String,
        /// The process that was meant.
        process: String,
        /// Those that it has.
        there: Vec<String>,
    },
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

/// What a change did to processes, each by owner and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Those that ran and were killed.
    pub killed: Vec<(String, String)>,
    /// Those that were away and were started again.
    pub started: Vec<(String, String)>,
    /// Those that ran, were ended in order and started again.
    pub restarted: Vec<(String, String)>,
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
    pub async fn capture(&self, name: &str, capture: &CaptureSpec) -> Result<(), HandleError> {
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
    /// were, all at once. A kill of this target, or of something in it, ends with it; what a wider one holds stays down.
    ///
    /// # Errors
    /// [`HandleError::Held`] when nothing of it may run.
    pub async fn restart(&self, target: &str, process: Option<&str>) -> Result<Done, HandleError> {
        let mut broken = self.inner.broken.lock().await;
        let plan = self.plan();
        if faults::resolve(&plan, target).is_empty() {
            return Err(HandleError::UnknownTarget(target.to_owned()));
        }
        let target = self.owner(target);
        let own = Fault::Kill { target: target.clone(), process: process.map(str::to_owned) };
        let meant = faults::down(&plan, &Faults::default().with(own));
        let kills = |fault: &&Fault| matches!(fault, Fault::Kill { .. }) && fault.is_within(&target);
        let lifted: Vec<Fault> = broken.faults.iter().filter(kills).cloned().collect();
        let remaining = lifted.into_iter().fold(broken.faults.clone(), |faults, f| faults.without(&Heal::Fault(f)));
        let held = faults::down(&plan, &remaining);
        let covered = |downs: &[Down], status: &Status| downs.iter().any(|d| d.covers(&status.owner, &status.name));
        let chosen: Vec<Status> = self.processes().into_iter().filter(|s| covered(&meant, s)).collect();
        if let Some(first) = chosen.first()
            && chosen.iter().all(|status| covered(&held, status))
        {
            let holds = held.iter().find(|d| d.covers(&first.owner, &first.name));
            let fault = holds.map(|d| format!("kill {}", d.target)).unwrap_or_default();
            return Err(HandleError::Held { owner: first.owner.clone(), name: first.name.clone(), fault });
        }
        let free: Vec<Status> = chosen.into_iter().filter(|s| !covered(&held, s)).collect();
        let (alive, dead): (Vec<_>, Vec<_>) = free.into_iter().partition(|s| s.pid.is_some());
        broken.held.extend(dead.into_iter().map(|s| (s.owner, s.name)));
        let mut done = self.make(&mut broken, remaining).await?;
        let restarts = self.start_again(alive.into_iter().map(|s| (s.owner, s.name))).await;
        for (key, outcome) in restarts {
            outcome?;
            done.restarted.push(key);
        }
        done.restarted.sort();
        Ok(done)
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
        self.make(&mut broken, faults).await.map(drop)?;
        Ok(built)
    }

    /// Breaks something. Breaking it twice is breaking it once.
    pub async fn fault(&self, fault: Fault) -> Result<Done, HandleError> {
        let mut broken = self.inner.broken.lock().await;
        let faults = broken.faults.with(fault);
        self.make(&mut broken, faults).await
    }

    /// Makes something whole: rules go, killed processes are started as they were, and are ready when this returns. With
    /// everything, or a target, goes what was stopped there in any other way, so that nothing stays away unnoticed.
    pub async fn heal(&self, heal: &Heal) -> Result<Done, HandleError> {
        let mut broken = self.inner.broken.lock().await;
        let faults = broken.faults.without(heal);
        let plan = self.plan();
        let meant = match heal {
            Heal::Target(target) => {
                let own = Fault::Kill { target: self.owner(target), process: None };
                faults::down(&plan, &Faults::default().with(own))
            }
            Heal::All | Heal::Fault(_) => Vec::new(),
        };
        let stopped = self.processes().into_iter().filter(|s| s.state == State::Stopped);
        let away = stopped.filter(|s| *heal == Heal::All || meant.iter().any(|d| d.covers(&s.owner, &s.name)));
        broken.held.extend(away.map(|s| (s.owner, s.name)));
        self.make(&mut broken, faults).await
    }

    /// The processes that a target has.
    ///
    /// # Errors
    /// [`HandleError::UnknownTarget`].
    pub fn processes_of(&self, target: &str) -> Result<Vec<Status>, HandleError> {
        let plan = self.plan();
        if faults::resolve(&plan, target).is_empty() {
            return Err(HandleError::UnknownTarget(target.to_owned()));
        }
        let own = Fault::Kill { target: self.owner(target), process: None };
        let meant = faults::down(&plan, &Faults::default().with(own));
        let covered = |status: &Status| meant.iter().any(|d| d.covers(&status.owner, &status.name));
        Ok(self.processes().into_iter().filter(covered).collect())
    }

    /// What is broken.
    pub async fn faults(&self) -> Faults {
        self.inner.broken.lock().await.faults.clone()
    }

    /// Installs the difference between what is broken and what is to be. What could not be done is tried again by the next
    /// change, since only what was done is remembered.
    async fn make(&self, broken: &mut Broken, faults: Faults) -> Result<Done, HandleError> {
        let plan = self.plan();
        let tables = faults::tables(&plan, &faults).map_err(HandleError::UnknownTarget)?;
        let down = faults::down(&plan, &faults);
        broken.faults = faults;
        let gone = broken.installed.keys().filter(|name| !tables.contains_key(*name)).map(|name| (name.clone(), None));
        let changed = tables.iter().filter(|(name, table)| broken.installed.get(*name) != Some(*table));
        let changes: Vec<_> = gone.chain(changed.map(|(name, table)| (name.clone(), Some(table.clone())))).collect();
        self.install_all(broken, changes).await?;
        let killed = self.hold(broken, &down).await;
        let started = self.release(broken, &down).await?;
        Ok(Done { killed, started, restarted: Vec::new() })
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
    async fn hold(&self, broken: &mut Broken, down: &[Down]) -> Vec<(String, String)> {
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
        let mut killed = kills.join_all().await;
        killed.sort();
        broken.held.extend(killed.iter().cloned());
        killed
    }

    /// Starts what was held and need not be any more.
    async fn release(&self, broken: &mut Broken, down: &[Down]) -> Result<Vec<(String, String)>, HandleError> {
        let free: Vec<_> = broken.held.iter().filter(|(o, n)| !down.iter().any(|d| d.covers(o, n))).cloned().collect();
        let (mut first, mut started) = (Ok(()), Vec::new());
        for (key, done) in self.start_again(free.into_iter()).await {
            match done {
                Ok(()) => {
                    broken.held.remove(&key);
                    started.push(key);
                }
                Err(ProcessError::Unknown { .. } | ProcessError::Running { .. }) => drop(broken.held.remove(&key)),
                // It runs and becomes ready when what it waits for is there; it must not be ended once more for that.
                Err(e @ ProcessError::Late { .. }) => {
                    broken.held.remove(&key);
                    first = first.and(Err(e));
                }
                Err(e) => first = first.and(Err(e)),
            }
        }
        first?;
        started.sort();
        Ok(started)
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
