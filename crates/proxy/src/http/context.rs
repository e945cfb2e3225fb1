//! What all requests of one downstream connection share, and the configuration that holds for the next of them.
//!
//! Invariant: a changed listener takes effect with the next request, also on old connections: policy is never older than
//! the snapshot.

use crate::telemetry::Logger;
use crate::upstream::World;
use crate::worker::{Connection, Worker};
use fairlead_engine::listener::{HttpManager, Listener, NetworkFilter};
use fairlead_transport::GuardSignals;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Shared by a connection's requests.
pub struct HttpContext {
    pub worker: Rc<Worker>,
    pub connection: Rc<Connection>,
    /// Of the HTTP/1 layer below hyper.
    pub signals: Option<Arc<GuardSignals>>,
    current: RefCell<Current>,
}

#[derive(Clone)]
struct Current {
    listener: Arc<Listener>,
    manager: Arc<HttpManager>,
    log: Option<Rc<Logger>>,
    /// The chain is gone from the configuration.
    orphaned: bool,
}

/// What holds for one request.
pub struct Config {
    pub manager: Arc<HttpManager>,
    pub log: Option<Rc<Logger>>,
    /// The connection should not be used again.
    pub orphaned: bool,
}

impl HttpContext {
    pub fn new(
        worker: Rc<Worker>,
        connection: Rc<Connection>,
        manager: Arc<HttpManager>,
        signals: Option<Arc<GuardSignals>>,
    ) -> Rc<Self> {
        let log = worker.telemetry.logs.logger(&worker.telemetry.sink, &manager.access_log);
        let current = Current { listener: connection.listener.clone(), manager, log, orphaned: false };
        Rc::new(Self { worker, connection, signals, current: RefCell::new(current) })
    }

    /// The configuration for a request that pinned `world`.
    pub fn config(&self, world: &World) -> Config {
        let mut current = self.current.borrow_mut();
        match world.snapshot.listener(&current.listener.name) {
            Some(listener) if Arc::ptr_eq(listener, &current.listener) => {}
            Some(listener) => *current = self.renewed(listener, &current),
            None => current.orphaned = true,
        }
        Config { manager: current.manager.clone(), log: current.log.clone(), orphaned: current.orphaned }
    }

    fn renewed(&self, listener: &Arc<Listener>, old: &Current) -> Current {
        let own = &self.connection.chain.name;
        let chain = listener.chains.iter().chain(listener.default_chain.as_ref()).find(|chain| chain.name == *own);
        match chain.and_then(|chain| chain.terminal()) {
            Some(NetworkFilter::Http(manager)) => {
                let telemetry = &self.worker.telemetry;
                let log = telemetry.logs.logger(&telemetry.sink, &manager.access_log);
                Current { listener: listener.clone(), manager: manager.clone(), log, orphaned: false }
            }
            // The policy that held when it was accepted goes on holding for the last request on it.
            _ => Current { listener: listener.clone(), orphaned: true, ..old.clone() },
        }
    }
}
