//! Makes each stream's view of the newest resolution, beside the owner, so that resolving never waits for generating.
//!
//! A queue of streams and a few threads. A stream that is due gets its view of whatever is newest when its turn comes, so what was
//! resolved meanwhile reaches those still waiting at once, and those already served come again at the end. Invariants: a stream is
//! made for by one thread at a time; it never goes back to an older resolution; equal content is the same allocation as before, and
//! what proxies have in common is one for all ([`crate::offer`]).

use crate::authority::now;
use crate::event::Client;
use crate::offer::{Offers, Seat};
use fairlead_identity::SignedStatement;
use fairlead_model::mesh::GatewayKind;
use fairlead_model::{ClientKind, ProxyDescription, ProxyRole, ResolvedMesh, WorkloadRef};
use fairlead_peering::Sender as PeerSender;
use fairlead_resolve::ClusterState;
use fairlead_xds::server::Views;
use fairlead_xds::{Resource, ResourceView};
use fairlead_xdsgen::Memo;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{oneshot, watch};

/// Threads that generate; more would only compete with the proxies on a small machine.
const THREADS: usize = 2;

/// What is there to be published.
pub struct Edition {
    /// Grows from edition to edition, over restarts too: peers are told it. The mesh's generation may stand still while trust or
    /// statements change.
    pub number: u64,
    /// What it was made of, as [`crate::freshness::Known`] writes it.
    pub freshness: Arc<str>,
    pub mesh: Arc<ResolvedMesh>,
    pub state: Arc<ClusterState>,
    pub trust: Option<Resource>,
    pub statements: Arc<Vec<SignedStatement>>,
}

/// One stream's place.
pub struct Slot {
    pub client: Client,
    /// The newest generation its view was made of.
    offered: AtomicU64,
    work: Mutex<Work>,
    queued: Mutex<bool>,
}

#[derive(Default)]
struct Work {
    edition: u64,
    views: Option<watch::Sender<Arc<dyn ResourceView>>>,
    reply: Option<oneshot::Sender<Result<Views, String>>>,
    seat: Seat,
    sender: PeerSender,
    dismissed: bool,
}

/// The queue and its threads; they end with it.
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    offers: Offers,
    state: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    newest: Option<Arc<Edition>>,
    due: VecDeque<Arc<Slot>>,
    closed: bool,
}

impl Slot {
    /// A place for a stream that waits for its first view.
    pub fn new(client: Client, reply: oneshot::Sender<Result<Views, String>>) -> Arc<Self> {
        let sender = PeerSender::at(now().as_secs().cast_signed());
        let work = Work { reply: Some(reply), sender, ..Work::default() };
        Arc::new(Self { client, offered: AtomicU64::new(0), work: Mutex::new(work), queued: Mutex::new(false) })
    }

    pub fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    /// Ends the stream.
    pub fn dismiss(&self) {
        let mut work = self.work.lock();
        work.dismissed = true;
        work.views = None;
        work.reply = None;
    }
}

impl Publisher {
    pub fn new(memo: Arc<Memo>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { offers: Offers::new(memo), state: Mutex::default(), wake: Condvar::new() });
        for _ in 0..THREADS {
            let shared = shared.clone();
            std::thread::Builder::new().name("publisher".into()).spawn(move || shared.run())?;
        }
        Ok(Self { shared })
    }

    /// There is something new for these streams.
    pub fn publish(&self, edition: Arc<Edition>, slots: impl IntoIterator<Item = Arc<Slot>>) {
        self.shared.offers.tidy();
        self.shared.state.lock().newest = Some(edition);
        // Streams that came before the first edition are in the queue already: nothing else would wake anybody for them.
        self.shared.wake.notify_all();
        for slot in slots {
            self.enqueue(slot);
        }
    }

    /// One stream is due.
    pub fn enqueue(&self, slot: Arc<Slot>) {
        if !std::mem::replace(&mut *slot.queued.lock(), true) {
            self.shared.state.lock().due.push_back(slot);
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        while let Some(slot) = self.next() {
            // From here on a newer edition puts the slot into the queue again.
            *slot.queued.lock() = false;
            let mut work = slot.work.lock();
            let Some(edition) = self.state.lock().newest.clone() else { continue };
            if work.dismissed || work.edition >= edition.number {
                continue;
            }
            work.edition = edition.number;
            // A defect in what is made for one costs that one its change, and nobody else anything.
            let made = std::panic::catch_unwind(AssertUnwindSafe(|| self.make(&mut work, &edition, &slot.client)));
            let made = made.unwrap_or_else(|_| {
                tracing::error!(client = ?slot.client, "its configuration cannot be made, which is a defect; what it has stays");
                Err("its configuration cannot be made; the control plane's log says where".into())
            });
            slot.offered.store(edition.mesh.generation, Ordering::Relaxed);
            give(&mut work, made);
        }
    }

    fn make(
        &self,
        work: &mut Work,
        edition: &Arc<Edition>,
        client: &Client,
    ) -> Result<Option<Arc<dyn ResourceView>>, String> {
        match client {
            Client::Proxy { workload, identity, kind, .. } => {
                let given = work.views.is_some();
                self.offers.view(&mut work.seat, edition, workload, identity, *kind, given)
            }
            Client::Peer { cluster } => {
                // What it says of itself comes first: on Kubernetes objects name the own cluster's network only.
                let said = edition.mesh.members.get(cluster).map(|member| member.networks.clone());
                let summary = match said.filter(|networks| !networks.is_empty()) {
                    Some(networks) => {
                        let audience = fairlead_resolve::Audience { cluster: cluster.clone(), networks };
                        fairlead_resolve::export_to(&edition.state, &audience)
                    }
                    None => fairlead_resolve::export(&edition.state, cluster),
                };
                let view = work.sender.view(edition.number, &summary, &edition.statements);
                Ok(view.map(|view| Arc::new(view) as Arc<dyn ResourceView>))
            }
        }
    }

    fn next(&self) -> Option<Arc<Slot>> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if state.newest.is_some()
                && let Some(slot) = state.due.pop_front()
            {
                return Some(slot);
            }
            self.wake.wait(&mut state);
        }
    }
}

/// Hands a view to the stream: the first through its reply, later ones through the channel.
fn give(work: &mut Work, made: Result<Option<Arc<dyn ResourceView>>, String>) {
    match (made, &work.views) {
        (Ok(Some(view)), Some(views)) => drop(views.send_replace(view)),
        (Ok(Some(view)), None) => {
            let (views, receiver) = watch::channel(view);
            work.views = Some(views);
            if let Some(reply) = work.reply.take() {
                let _ = reply.send(Ok(receiver));
            }
        }
        (Ok(None), _) => {}
        (Err(why), _) => {
            if let Some(reply) = work.reply.take() {
                let _ = reply.send(Err(why));
            }
        }
    }
}

/// The description of a proxy that runs beside a workload of this cluster.
pub fn describe(
    mesh: &ResolvedMesh,
    workload: &WorkloadRef,
    identity: &str,
    client: ClientKind,
) -> Option<ProxyDescription> {
    let found = mesh.workloads.get(workload)?;
    Some(ProxyDescription {
        workload: workload.clone(),
        role: match found.gateway {
            None => ProxyRole::Sidecar,
            Some(GatewayKind::Ingress) => ProxyRole::Gateway,
            Some(GatewayKind::EastWest) => ProxyRole::EastWest,
        },
        client,
        network: found.network.clone(),
        locality: (*found.locality).clone(),
        addresses: found.addresses.clone(),
        labels: found.labels.to_map(),
        service_account: found.service_account.to_string(),
        identity: identity.to_owned(),
    })
}
