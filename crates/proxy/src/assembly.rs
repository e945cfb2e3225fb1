//! Putting a proxy together: shared state, workers, conductor, and its end.
//!
//! Invariant: drain goes through its stages in order and is bounded, whatever connections do.

use crate::dns::{DnsTable, Upstreams};
use crate::identity::MeshIdentity;
use crate::options::ProxyOptions;
use crate::shared::{EndpointChanges, Shared};
use crate::telemetry::{Families, LogSink, PeerInfo, Records};
use crate::upstream::{Command, Conductor, Paths, SimpleTls, World};
use crate::worker::{BoundAddresses, Stage, WorkerEvent, WorkerHandle, spawn};
use arc_swap::ArcSwap;
use fairlead_engine::Snapshot;
use fairlead_model::ProxyRole;
use fairlead_runtime::metrics::Registry;
use fairlead_runtime::{Drain, Published, Readiness};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// A proxy whose workers run.
pub struct Assembly {
    pub shared: Arc<Shared>,
    pub options: Arc<ProxyOptions>,
    pub readiness: Readiness,
    pub drain: Drain,
    pub names: Arc<ArcSwap<DnsTable>>,
    commands: UnboundedSender<Command>,
    workers: Vec<WorkerHandle>,
}

impl Assembly {
    /// Starts workers and conductor. Must be called on the control thread's runtime.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(options: Arc<ProxyOptions>, identity: Option<MeshIdentity>) -> std::io::Result<Self> {
        let registry = Registry::new();
        let families = Arc::new(Families::new(&registry));
        let own = PeerInfo {
            workload: options.workload.name.to_string(),
            namespace: options.workload.namespace.to_string(),
            cluster: options.workload.cluster.to_string(),
            canonical_service: options.canonical_service.clone(),
            canonical_revision: options.canonical_revision.clone(),
            principal: identity.as_ref().map(|identity| identity.spiffe().as_str().to_owned()).unwrap_or_default(),
        };
        let (trouble, troubles) = unbounded_channel();
        let shared = Arc::new(Shared {
            world: Published::new(World::default()),
            identity: identity.clone(),
            own_header: own.header(),
            own: Arc::new(own),
            registry,
            families,
            records: (options.records > 0).then(|| Arc::new(Records::new(options.records))),
            log_sink: LogSink::new(options.access_log.clone()),
            bind: options.bind.clone(),
            addresses: BoundAddresses::default(),
            mark: options.mark,
            resolvers: Upstreams { servers: options.resolvers.clone(), mark: options.mark },
            hostname: options.workload.name.to_string(),
            in_flight: AtomicUsize::new(0),
            trouble,
            paths: Paths::default(),
            simple_tls: SimpleTls::default(),
            changes: EndpointChanges::default(),
            drained: Default::default(),
        });
        let workers: Vec<WorkerHandle> =
            (0..options.concurrency.max(1)).map(|number| spawn(shared.clone(), number)).collect::<Result<_, _>>()?;
        let (commands, inbox) = unbounded_channel();
        let events: Vec<_> = workers.iter().map(|worker| worker.events.clone()).collect();
        let conductor = Conductor::new(shared.clone(), events.clone(), commands.clone());
        tokio::spawn(conductor.run(inbox, troubles));
        if options.role == ProxyRole::EastWest {
            let _ = commands.send(Command::ProbeAlways);
        }
        if let Some(identity) = identity {
            tokio::spawn(follow_trust(identity, events));
        }
        Ok(Self {
            shared,
            options,
            readiness: Readiness::new(),
            drain: Drain::new(),
            names: Arc::default(),
            commands,
            workers,
        })
    }

    /// Takes a snapshot into use.
    pub fn apply(&self, snapshot: &Arc<Snapshot>) {
        apply(&self.commands, &self.names, &self.options, snapshot);
    }

    /// For those who bring snapshots from elsewhere.
    pub fn applier(&self) -> impl Fn(&Arc<Snapshot>) + Send + Sync + 'static {
        let (commands, names, options) = (self.commands.clone(), self.names.clone(), self.options.clone());
        move |snapshot| apply(&commands, &names, &options, snapshot)
    }

    /// Where a listener is bound, once it is.
    pub async fn listening(&self, name: &str) -> SocketAddr {
        self.shared.addresses.wait(name).await
    }

    /// Drains and ends: callers are told to leave, then idle connections close, then what is left is cut.
    pub async fn end(self) {
        let times = self.options.drain;
        let deadline = Instant::now() + times.grace + times.limit;
        self.drain.start();
        self.tell(&WorkerEvent::Drain(Stage::Leaving));
        tokio::time::sleep(times.grace).await;
        self.tell(&WorkerEvent::Drain(Stage::Closing));
        while self.shared.in_flight.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.tell(&WorkerEvent::Drain(Stage::Cut));
        self.drain.close();
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = tokio::time::timeout(Duration::from_secs(2), joined).await;
    }

    /// Senders to all workers.
    pub fn events(&self) -> Vec<UnboundedSender<WorkerEvent>> {
        self.workers.iter().map(|worker| worker.events.clone()).collect()
    }

    fn tell(&self, event: &WorkerEvent) {
        for worker in &self.workers {
            // A worker that has ended needs no news.
            let _ = worker.events.send(event.clone());
        }
    }
}

fn apply(
    commands: &UnboundedSender<Command>,
    names: &ArcSwap<DnsTable>,
    options: &ProxyOptions,
    snapshot: &Arc<Snapshot>,
) {
    if let Some(table) = snapshot.names() {
        names.store(Arc::new(DnsTable::new(table, &options.workload.namespace)));
    }
    // The conductor lives as long as the runtime.
    let _ = commands.send(Command::Snapshot(snapshot.clone()));
}

async fn follow_trust(identity: MeshIdentity, workers: Vec<UnboundedSender<WorkerEvent>>) {
    let mut changes = identity.trust_changes();
    loop {
        changes.changed().await;
        for worker in &workers {
            let _ = worker.send(WorkerEvent::Trust);
        }
    }
}
