//! The discovery streams that stand, and what each has taken.
//!
//! Invariant: an entry lives exactly as long as its stream, and is counted so long.

use crate::event::Client;
use crate::publisher::Slot;
use fairlead_identity::VerifiedPeer;
use fairlead_model::{ClusterId, WorkloadRef};
use fairlead_xds::server::StreamId;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Streams of one workload; it needs one, and a second while it reconnects.
const PER_PROXY: usize = 8;
/// Streams of one peer: each of its replicas has one, and all may come to the same replica here.
const PER_PEER: usize = 16;

#[derive(Default)]
pub struct Streams {
    all: BTreeMap<StreamId, Stream>,
    /// How many by whose they are: thousands may come at once.
    counts: HashMap<Whose, usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Proxy(WorkloadRef),
    Peer(ClusterId),
}

pub struct Stream {
    /// By whose certificate.
    pub peer: VerifiedPeer,
    pub slot: Arc<Slot>,
    pub taken: Taken,
}

/// What a stream has settled.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The newest generation it has taken.
    pub generation: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    pub rejected: usize,
    pub nacks: u64,
    pub last_nack: Option<String>,
}

impl Streams {
    /// Why this client may have no further stream.
    pub fn too_many(&self, client: &Client) -> Option<String> {
        let most = match client {
            Client::Proxy { .. } => PER_PROXY,
            Client::Peer { .. } => PER_PEER,
        };
        let alike = self.counts.get(&Whose::of(client)).copied().unwrap_or_default();
        (alike >= most).then(|| format!("more than {most} discovery streams of one client"))
    }

    pub fn insert(&mut self, id: StreamId, stream: Stream) {
        *self.counts.entry(Whose::of(&stream.slot.client)).or_default() += 1;
        self.all.insert(id, stream);
    }

    pub fn remove(&mut self, id: StreamId) {
        let Some(stream) = self.all.remove(&id) else { return };
        let whose = Whose::of(&stream.slot.client);
        if let Some(count) = self.counts.get_mut(&whose) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&whose);
            }
        }
    }

    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.all.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.all.values()
    }

    /// Streams of proxies.
    pub fn proxies(&self) -> impl Iterator<Item = (&WorkloadRef, &Stream)> {
        self.all.values().filter_map(|stream| match &stream.slot.client {
            Client::Proxy { workload, .. } => Some((workload, stream)),
            Client::Peer { .. } => None,
        })
    }
}

impl Taken {
    pub fn settled(&mut self, generation: u64, rejected: usize) {
        self.generation = generation;
        self.rejected = rejected;
        self.at_ms = now_ms();
    }

    pub fn nacked(&mut self, names: &[String], detail: &str) {
        self.nacks += 1;
        self.last_nack = Some(format!("{}: {detail}", names.join(", ")));
    }
}

impl Whose {
    fn of(client: &Client) -> Self {
        match client {
            Client::Proxy { workload, .. } => Self::Proxy(workload.clone()),
            Client::Peer { cluster } => Self::Peer(cluster.clone()),
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
