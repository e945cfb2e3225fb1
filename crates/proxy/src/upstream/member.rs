//! One endpoint as this proxy knows it: the resource, and what calls to it have shown.
//!
//! Invariant: the state is shared by all workers and outlives updates of the resource for as long as connections made for
//! the old one would serve the new one.

use fairlead_engine::outlier::Monitor;
use fairlead_engine::upstream::Endpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An endpoint of an Envoy cluster.
#[derive(Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    pub state: Arc<MemberState>,
    /// Where the Envoy cluster has outlier detection.
    pub monitor: Option<Arc<Monitor>>,
    /// Position in [`fairlead_engine::upstream::Endpoints::iter`].
    pub index: usize,
}

/// What is counted of an endpoint. Names follow Envoy's `/clusters`.
#[derive(Debug, Default)]
pub struct MemberState {
    /// Names the connections to this endpoint; another address, identity or server name gives another number.
    pub slot: u64,
    pub rq_active: AtomicU32,
    pub cx_active: AtomicU32,
    pub rq_total: AtomicU64,
    pub rq_success: AtomicU64,
    pub rq_error: AtomicU64,
    pub rq_timeout: AtomicU64,
    pub cx_total: AtomicU64,
    pub cx_connect_fail: AtomicU64,
}

impl MemberState {
    pub fn new(slot: u64) -> Arc<Self> {
        Arc::new(Self { slot, ..Self::default() })
    }

    /// Notes how a request ended; `ok`: answered, and not with 5xx.
    pub fn finished(&self, ok: bool) {
        let counter = if ok { &self.rq_success } else { &self.rq_error };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
