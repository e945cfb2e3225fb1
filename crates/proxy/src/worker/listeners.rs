//! The sockets a worker accepts on, kept in step with the snapshot.
//!
//! A listener that stays keeps its socket; one that goes stops accepting and leaves its connections alone. Invariant: a
//! socket is bound once for each (name, address), whatever else of the listener changes.

use super::accept;
use super::drain::Stage;
use super::run::Worker;
use fairlead_transport::Listener as Socket;
use fairlead_transport::socket::other_wildcard;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Bound sockets by listener name.
#[derive(Default)]
pub struct Listeners {
    bound: RefCell<BTreeMap<Arc<str>, Bound>>,
}

struct Bound {
    wanted: SocketAddr,
    task: JoinHandle<()>,
}

impl Listeners {
    /// Binds what the current world asks for and drops the rest.
    pub fn follow(&self, worker: &Rc<Worker>) {
        let world = worker.world();
        let mut bound = self.bound.borrow_mut();
        let wanted: BTreeMap<Arc<str>, (SocketAddr, bool)> = world
            .snapshot
            .listeners()
            .filter(|listener| listener.bind_to_port)
            .filter_map(|listener| {
                let own = worker.shared.bind.get(&*listener.name).copied().or(listener.address)?;
                Some((listener.name.clone(), (own, listener.use_original_dst)))
            })
            .collect();
        bound.retain(|name, b| {
            let keep = wanted.get(name).is_some_and(|(address, _)| *address == b.wanted) && !b.task.is_finished();
            if !keep {
                b.task.abort();
                worker.shared.addresses.remove(name);
            }
            keep
        });
        if worker.drain.stage() >= Stage::Closing {
            return;
        }
        for (name, (address, captured)) in wanted {
            if bound.contains_key(&name) {
                continue;
            }
            let task = tokio::task::spawn_local(accept_on(worker.clone(), name.clone(), address, captured));
            bound.insert(name, Bound { wanted: address, task });
        }
    }

    /// Accepts no more.
    pub fn close(&self) {
        for (_, bound) in std::mem::take(&mut *self.bound.borrow_mut()) {
            bound.task.abort();
        }
    }
}

async fn accept_on(worker: Rc<Worker>, name: Arc<str>, address: SocketAddr, captured: bool) {
    // Several workers share one port: the first to bind port 0 decides it.
    let address = worker.shared.addresses.claim(&name, address);
    let socket = loop {
        match Socket::bind(address, captured, worker.shared.mark) {
            Ok(socket) => break socket,
            Err(error) => {
                tracing::error!(listener = %name, %error, "listener not bound, trying again");
                worker.shared.addresses.failed(&name, error.to_string());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    // The wildcard address means both families; a pod that has only one needs no second socket.
    let other = other_wildcard(address).map(|ip| SocketAddr::new(ip, socket.local().port()));
    let other = other.and_then(|address| Socket::bind(address, captured, worker.shared.mark).ok());
    worker.shared.addresses.bound(&name, socket.local());
    let accept_other = async || match &other {
        Some(other) => other.accept().await,
        None => std::future::pending().await,
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            accepted = accept_other() => accepted,
        };
        let (worker, name) = (worker.clone(), name.clone());
        tokio::task::spawn_local(async move {
            accept::serve(worker, &name, accepted).await;
        });
    }
}
