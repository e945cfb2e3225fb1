//! The discovery streams that stand, and what each has taken.
//!
//! Invariant: an entry lives exactly as long as its stream.

use crate::event::Client;
use crate::publisher::Slot;
use fairlead_identity::VerifiedPeer;
use fairlead_model::WorkloadRef;
use fairlead_xds::server::StreamId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Streams of one workload; it needs one, and a second while it reconnects.
const PER_PROXY: usize = 8;
/// Streams of one peer: each of its replicas has one, and all may come to the same replica here.
const PER_PEER: usize = 16;

#[derive(Default)]
pub struct Streams(pub BTreeMap<StreamId, Stream>);

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
        let alike = self.0.values().filter(|s| is_same(&s.slot.client, client)).count();
        (alike >= most).then(|| format!("more than {most} discovery streams of one client"))
    }

    /// Streams of proxies.
    pub fn proxies(&self) -> impl Iterator<Item = (&WorkloadRef, &Stream)> {
        self.0.values().filter_map(|stream| match &stream.slot.client {
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

fn is_same(a: &Client, b: &Client) -> bool {
    match (a, b) {
        (Client::Proxy { workload: a, .. }, Client::Proxy { workload: b, .. }) => a == b,
        (Client::Peer { cluster: a }, Client::Peer { cluster: b }) => a == b,
        _ => false,
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
