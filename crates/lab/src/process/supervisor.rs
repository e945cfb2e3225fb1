//! Starts, watches and ends processes.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use super::ProcessSpec;
use crate::namespace::place;
use crate::netns::NetNs;

/// A process that is started again is waited for so long.
const AGAIN_WITHIN: Duration = Duration::from_secs(20);
/// Longer than any lab.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What becomes of a process that is not ready in time.
#[derive(Debug, Clone, Copy)]
enum Late {
    Ended,
    GoesOn,
}

/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs and is not ready yet.
    Starting,
    /// It runs and was ready.
    Ready,
    /// It was stopped or killed on purpose.
    Stopped,
    /// It ended by itself.
    Ended {
        /// How, in words.
        how: String,
        /// The last lines of its log.
        log: String,
    },
}

/// A process as it is now.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whose.
    pub owner: String,
    /// Its name there.
    pub name: String,
    /// Its process id inside the lab, while it runs.
    pub pid: Option<u32>,
    /// How it is.
    pub state: State,
    /// Its log.
    pub log: PathBuf,
    /// How often it was started.
    pub starts: u32,
}

/// A process ended by itself.
#[derive(Debug, Clone)]
pub struct Event {
    /// Whose.
    pub owner: String,
    /// Its name there.
    pub name: String,
    /// How, in words.
    pub how: String,
    /// The last lines of its log.
    pub log: String,
}

/// Why a process could not be started or found.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("{owner}: start {name} ({program}): {source}")]
    Start {
        /// Whose.
        owner: String,
        /// Its name there.
        name: String,
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("{owner}: {name} ended before it was ready: {how}; the end of its log:\n{log}")]
    Ended {
        /// Whose.
        owner: String,
        /// Its name there.
        name: String,
        /// How it ended.
        how: String,
        /// The last lines of its log.
        log: String,
    },
    /// It was not ready in time. One that was started again goes on starting.
    #[error("{owner}: {name} was not ready within {within:?}; the end of its log:\n{log}")]
    Late {
        /// Whose.
        owner: String,
        /// Its name there.
        name: String,
        /// The time it had.
        within: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// It runs already.
    #[error("{owner}: {name} runs already")]
    Running {
        /// Whose.
        owner: String,
        /// Its name there.
        name: String,
    },
    /// There is no such process.
    #[error("{owner}: there is no process {name}")]
    Unknown {
        /// Whose.
        owner: String,
        /// Its name there.
        name: String,
    },
}

/// All processes of a lab.
#[derive(Debug)]
pub struct Supervisor {
    directory: PathBuf,
    processes: Mutex<BTreeMap<(String, String), Process>>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Process {
    spec: ProcessSpec,
    log: PathBuf,
    pid: Option<u32>,
    starts: u32,
    /// Set before a process is ended on purpose, so that its watcher does not call it a crash.
    ending: Arc<Mutex<bool>>,
    state: watch::Sender<State>,
}

impl Supervisor {
    /// Logs go below `directory/logs`, files for /etc below `directory/etc`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), processes: Mutex::default(), events: broadcast::channel(256).0 }
    }

    /// Starts a process in a namespace and waits until it is ready; one that is not in time is ended.
    pub async fn start(&self, spec: ProcessSpec, namespace: NetNs) -> Result<(), ProcessError> {
        let within = spec.ready_within;
        self.launch(spec, namespace, within, Late::Ended).await
    }

    async fn launch(
        &self,
        spec: ProcessSpec,
        namespace: NetNs,
        within: Duration,
        late: Late,
    ) -> Result<(), ProcessError> {
        let key = (spec.owner.clone(), spec.name.clone());
        let (mut state, log) = {
            let mut processes = self.lock();
            let starts = match processes.get(&key) {
                Some(old) if !over(&old.state.borrow()) => {
                    return Err(ProcessError::Running { owner: key.0, name: key.1 });
                }
                Some(old) => old.starts + 1,
                None => 1,
            };
            let log = self.directory.join("logs").join(&spec.owner).join(format!("{}.log", spec.name));
            let child = self.command(&spec, &namespace, &log).and_then(|mut c| c.spawn()).map_err(|source| {
                ProcessError::Start {
                    owner: key.0.clone(),
                    name: key.1.clone(),
                    program: spec.program.display().to_string(),
                    source,
                }
            })?;
            let (sender, state) = watch::channel(State::Starting);
            let ending = Arc::new(Mutex::new(false));
            let process = Process {
                pid: child.id(),
                spec: spec.clone(),
                log: log.clone(),
                starts,
                ending: ending.clone(),
                state: sender.clone(),
            };
            processes.insert(key.clone(), process);
            tokio::spawn(watch_over(child, key.clone(), log.clone(), ending, sender, self.events.clone()));
            (state, log)
        };
        let (owner, name) = key.clone();
        let ready = tokio::select! {
            ready = spec.ready.wait(&namespace, within) => ready,
            ended = state.wait_for(|s| !matches!(s, State::Starting)) => {
                let ended = ended.map(|s| s.clone());
                self.forget_pid(&key);
                return match ended {
                    Ok(State::Ended { how, log }) => Err(ProcessError::Ended { owner, name, how, log }),
                    _ => Err(ProcessError::Ended { owner, name, how: "it was stopped".into(), log: String::new() }),
                };
            }
        };
        let sender = self.lock().get(&key).map(|process| process.state.clone());
        if ready {
            sender.iter().for_each(became_ready);
            return Ok(());
        }
        match (late, sender) {
            (Late::GoesOn, Some(sender)) => drop(tokio::spawn(async move {
                tokio::select! {
                    ready = spec.ready.wait(&namespace, FOR_EVER) => if ready { became_ready(&sender) },
                    // Its watcher has told how it ended.
                    _ = state.wait_for(over) => {}
                }
            })),
            _ => self.end(&key, None).await?,
        }
        Err(ProcessError::Late { owner, name, within, log: tail(&log) })
    }

    /// Ends a process, if it runs (SIGTERM, SIGKILL after 10 s), and starts it as it was, in `namespace`: its owner's may have
    /// been built anew since. One that is late goes on starting: what it waits for may come back.
    pub async fn restart(&self, owner: &str, name: &str, namespace: NetNs) -> Result<(), ProcessError> {
        let key = (owner.to_owned(), name.to_owned());
        let spec = self.lock().get(&key).map(|process| process.spec.clone()).ok_or_else(|| unknown(&key))?;
        self.end(&key, Some(Duration::from_secs(10))).await?;
        let within = spec.ready_within.min(AGAIN_WITHIN);
        self.launch(spec, namespace, within, Late::GoesOn).await
    }

    /// SIGTERM, and SIGKILL to what is left after `grace`. One that has ended is left as it is.
    pub async fn stop(&self, owner: &str, name: &str, grace: Duration) -> Result<(), ProcessError> {
        self.end(&(owner.to_owned(), name.to_owned()), Some(grace)).await
    }

    /// SIGKILL.
    pub async fn kill(&self, owner: &str, name: &str) -> Result<(), ProcessError> {
        self.end(&(owner.to_owned(), name.to_owned()), None).await
    }

    /// Stops everything at once.
    pub async fn stop_all(&self, grace: Duration) {
        let keys: Vec<_> = self.lock().keys().cloned().collect();
        let all = keys.iter().map(|key| self.end(key, Some(grace)));
        // Only an unknown key can fail.
        for done in join(all).await {
            let _ = done;
        }
    }

    /// Kills a process and forgets that it was there.
    pub async fn forget(&self, owner: &str, name: &str) -> Result<(), ProcessError> {
        let key = (owner.to_owned(), name.to_owned());
        self.end(&key, None).await?;
        self.lock().remove(&key);
        Ok(())
    }

    /// All processes, by owner and name.
    pub fn statuses(&self) -> Vec<Status> {
        let status = |((owner, name), process): (&(String, String), &Process)| {
            let state = process.state.borrow().clone();
            let runs = matches!(state, State::Starting | State::Ready);
            Status {
                owner: owner.clone(),
                name: name.clone(),
                pid: process.pid.filter(|_| runs),
                state,
                log: process.log.clone(),
                starts: process.starts,
            }
        };
        self.lock().iter().map(status).collect()
    }

    /// Processes that end by themselves, from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn end(&self, key: &(String, String), grace: Option<Duration>) -> Result<(), ProcessError> {
        let (pid, mut state) = {
            let processes = self.lock();
            let process = processes.get(key).ok_or_else(|| unknown(key))?;
            // The number of a process that has ended may be another's by now.
            let Some(pid) = process.pid.filter(|_| !over(&process.state.borrow())) else { return Ok(()) };
            *process.ending.lock().unwrap_or_else(PoisonError::into_inner) = true;
            (pid, process.state.subscribe())
        };
        let group = Pid::from_raw(pid as i32);
        let mut ended = false;
        if let Some(grace) = grace {
            // It may have ended this moment; that is what is wanted.
            let _ = killpg(group, Signal::SIGTERM);
            ended = timeout(grace, state.wait_for(over)).await.is_ok();
        }
        if !ended {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = state.wait_for(over).await;
        }
        self.forget_pid(key);
        Ok(())
    }

    fn command(&self, spec: &ProcessSpec, namespace: &NetNs, log: &Path) -> io::Result<Command> {
        if let Some(directory) = log.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let covers = match &spec.files {
            Some(files) => files.write(&self.directory.join("etc").join(&spec.owner))?,
            None => Vec::new(),
        };
        let mut command = std::process::Command::new(&spec.program);
        command.args(&spec.arguments).envs(spec.environment.iter().map(|(k, v)| (k, v))).process_group(0);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        if let Some(directory) = &spec.directory {
            command.current_dir(directory);
        }
        place(&mut command, namespace, covers);
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        Ok(command)
    }

    fn forget_pid(&self, key: &(String, String)) {
        if let Some(process) = self.lock().get_mut(key) {
            process.pid = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn became_ready(state: &watch::Sender<State>) {
    state.send_if_modified(|s| matches!(s, State::Starting).then(|| *s = State::Ready).is_some());
}

fn over(state: &State) -> bool {
    matches!(state, State::Stopped | State::Ended { .. })
}

fn unknown(key: &(String, String)) -> ProcessError {
    ProcessError::Unknown { owner: key.0.clone(), name: key.1.clone() }
}

/// Waits for a process, ends what it left behind, and says how it went.
async fn watch_over(
    mut child: Child,
    (owner, name): (String, String),
    log: PathBuf,
    ending: Arc<Mutex<bool>>,
    state: watch::Sender<State>,
    events: broadcast::Sender<Event>,
) {
    let group = child.id();
    let how = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(e) => e.to_string(),
    };
    if let Some(group) = group {
        // Children of its own that outlived it. There may be none.
        let _ = killpg(Pid::from_raw(group as i32), Signal::SIGKILL);
    }
    if *ending.lock().unwrap_or_else(PoisonError::into_inner) {
        state.send_replace(State::Stopped);
        return;
    }
    let log = tail(&log);
    tracing::warn!(owner, name, how, "a process ended by itself; the end of its log:\n{log}");
    state.send_replace(State::Ended { how: how.clone(), log: log.clone() });
    // Nobody need listen.
    let _ = events.send(Event { owner, name, how, log });
}

async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut waiting {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => *output = Some(done),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

/// The last lines of a log, at most 20 and 4 KiB.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|e| format!("({}: {e})", path.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
