//! The streams that stand: proxies and peers, and what each has taken.
//!
//! Invariant: an entry lives exactly as long as its stream; what the last stream of a workload had taken is kept for showing.

use crate::event::ViewSender;
use fairlead_model::{ClientKind, ClusterId, WorkloadRef};
use fairlead_xds::server::StreamId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Default)]
pub struct Streams {
    pub proxies: BTreeMap<StreamId, ProxyStream>,
    pub peers: BTreeMap<StreamId, PeerStream>,
}

pub struct ProxyStream {
    pub workload: WorkloadRef,
    pub identity: String,
    pub client: ClientKind,
    pub version: String,
    pub views: ViewSender,
    pub taken: Taken,
}

pub struct PeerStream {
    pub cluster: ClusterId,
    pub views: ViewSender,
}

/// What a stream has settled.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The newest generation it was offered.
    pub offered: u64,
    /// The newest it has taken.
    pub generation: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    pub rejected: usize,
    pub nacks: u64,
    pub last_nack: Option<String>,
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

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
