//! Starting workers, and what they are told from outside.
//!
//! Invariant: a worker's state is touched by its own thread only; everything else reaches it as a [`WorkerEvent`].

use super::drain::{DrainSignal, Stage};
use super::in_flight::InFlight;
use super::listeners::Listeners;
use super::live::LiveConnections;
use super::pools::Pools;
use crate::shared::Shared;
use crate::telemetry::Telemetry;
use crate::upstream::World;
use ahash::AHashMap;
use fairlead_engine::listener::TlsContext;
use fairlead_runtime::Reader;
use rustls::ServerConfig;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Housekeeping: log buffers, idle connections.
const TICK: Duration = Duration::from_millis(200);
/// Idle upstream connections live this long (ztunnel: 5 min; below common server idle limits of 60 s).
const IDLE_UPSTREAM: Duration = Duration::from_secs(50);

/// One worker's state.
pub struct Worker {
    pub shared: Arc<Shared>,
    pub telemetry: Telemetry,
    pub pools: Pools,
    pub in_flight: InFlight,
    pub live: LiveConnections,
    pub drain: DrainSignal,
    pub server_configs: ServerConfigs,
    world: RefCell<Reader<World>>,
    busy: Cell<usize>,
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// A new world was published: listeners may have changed.
    World,
    /// The endpoint with this connection slot left rotation; attempts without an answer move on.
    Left(u64),
    /// The path through this address is dead.
    PathDown(SocketAddr),
    /// Connections of this slot are not to be used for new requests.
    Retire(u64),
    /// Trust changed: judge every live connection.
    Trust,
    Drain(Stage),
    Undrain,
}

/// Server TLS configurations by context, so that tickets of one configuration resume on it.
#[derive(Default)]
pub struct ServerConfigs(RefCell<AHashMap<usize, (Arc<TlsContext>, Arc<ServerConfig>)>>);

/// Which sockets are bound where; shared by workers so that port 0 is decided once.
#[derive(Debug, Default)]
pub struct BoundAddresses {
    known: parking_lot::Mutex<BTreeMap<String, Binding>>,
    changes: tokio::sync::watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Binding {
    address: SocketAddr,
    bound: bool,
    problem: Option<String>,
}

/// A counted piece of work in flight.
pub struct Busy(Rc<Worker>);

/// A running worker thread.
pub struct WorkerHandle {
    pub events: UnboundedSender<WorkerEvent>,
    pub thread: JoinHandle<()>,
}

impl Worker {
    /// The world as it stands.
    pub fn world(&self) -> Arc<World> {
        self.world.borrow_mut().load().clone()
    }

    /// Counts work in flight until the guard is dropped.
    pub fn busy(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        self.shared.in_flight.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
        self.0.shared.in_flight.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl ServerConfigs {
    /// The configuration of `context`, made by `build` the first time.
    pub fn of(
        &self,
        context: &Arc<TlsContext>,
        build: impl FnOnce(&TlsContext) -> Result<Arc<ServerConfig>, String>,
    ) -> Result<Arc<ServerConfig>, String> {
        let key = Arc::as_ptr(context) as usize;
        if let Some((_, config)) = self.0.borrow().get(&key) {
            return Ok(config.clone());
        }
        let config = build(context)?;
        let mut known = self.0.borrow_mut();
        if known.len() > 256 {
            known.clear();
        }
        known.insert(key, (context.clone(), config.clone()));
        Ok(config)
    }
}

impl BoundAddresses {
    /// The address to bind: the one an earlier worker got, or `wanted`.
    pub fn claim(&self, name: &str, wanted: SocketAddr) -> SocketAddr {
        self.known.lock().get(name).filter(|b| b.bound && b.address.ip() == wanted.ip()).map_or(wanted, |b| b.address)
    }

    pub fn bound(&self, name: &str, address: SocketAddr) {
        self.known.lock().insert(name.to_owned(), Binding { address, bound: true, problem: None });
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn failed(&self, name: &str, problem: String) {
        let mut known = self.known.lock();
        let unbound = Binding { address: SocketAddr::from(([0, 0, 0, 0], 0)), bound: false, problem: None };
        known.entry(name.to_owned()).or_insert(unbound).problem = Some(problem);
        drop(known);
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn remove(&self, name: &str) {
        self.known.lock().remove(name);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Where `name` listens.
    pub fn get(&self, name: &str) -> Option<SocketAddr> {
        self.known.lock().get(name).filter(|b| b.bound).map(|b| b.address)
    }

    /// Listeners that could not be bound, and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let known = self.known.lock();
        known.iter().filter_map(|(name, b)| Some((name.clone(), b.problem.clone()?))).collect()
    }

    /// Waits until `name` listens.
    pub async fn wait(&self, name: &str) -> SocketAddr {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(address) = self.get(name) {
                return address;
            }
            // The sender lives in `self`, so the channel cannot close under us.
            let _ = changes.changed().await;
        }
    }
}

/// Starts one worker on a thread of its own.
///
/// # Errors
/// The thread could not be started.
pub fn spawn(shared: Arc<Shared>, number: usize) -> std::io::Result<WorkerHandle> {
    let (events, inbox) = unbounded_channel();
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(shared, inbox)),
            Err(error) => tracing::error!(%error, "worker has no runtime"),
        }
    })?;
    Ok(WorkerHandle { events, thread })
}

async fn run(shared: Arc<Shared>, mut inbox: UnboundedReceiver<WorkerEvent>) {
    let telemetry =
        Telemetry::new(shared.families.clone(), shared.own.clone(), shared.log_sink.clone(), shared.records.clone());
    let worker = Rc::new(Worker {
        telemetry,
        pools: Pools::default(),
        in_flight: InFlight::default(),
        live: LiveConnections::default(),
        drain: DrainSignal::default(),
        server_configs: ServerConfigs::default(),
        world: RefCell::new(shared.world.reader()),
        busy: Cell::new(0),
        shared,
    });
    let listeners = Listeners::default();
    listeners.follow(&worker);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => handle(&worker, &listeners, event),
                None => break,
            },
            _ = tick.tick() => {
                worker.telemetry.logs.flush();
                worker.pools.sweep(IDLE_UPSTREAM);
            }
        }
        if worker.drain.stage() == Stage::Cut && worker.busy.get() == 0 {
            break;
        }
    }
    worker.telemetry.logs.flush();
}

fn handle(worker: &Rc<Worker>, listeners: &Listeners, event: WorkerEvent) {
    match event {
        WorkerEvent::World => {
            worker.telemetry.forget();
            listeners.follow(worker);
        }
        WorkerEvent::Left(slot) => worker.in_flight.leave(slot),
        WorkerEvent::PathDown(address) => {
            worker.pools.retire_via(address);
            worker.in_flight.leave_path(address);
        }
        WorkerEvent::Retire(slot) => worker.pools.retire(slot),
        WorkerEvent::Trust => {
            if let Some(identity) = &worker.shared.identity {
                worker.live.judge(&identity.current_trust());
            }
        }
        WorkerEvent::Drain(stage) => {
            worker.drain.advance(stage);
            if stage >= Stage::Closing {
                listeners.close();
            }
        }
        WorkerEvent::Undrain => worker.drain.cancel(),
    }
}
