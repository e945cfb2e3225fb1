//! The ways to other clusters, each named by the address that is dialled: a gateway, or an endpoint on a flat network.
//!
//! Workers note answers here without waiting for anybody; the conductor runs the state machines. Invariant: a path is judged
//! by this proxy's own traffic first, and by probes in its silence or in doubt.

use fairlead_engine::path::PathState;
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What workers and the admin interface see of paths.
#[derive(Debug)]
pub struct Paths {
    epoch: Instant,
    known: RwLock<BTreeMap<SocketAddr, Arc<Meter>>>,
}

#[derive(Debug)]
struct Meter {
    cluster: Arc<str>,
    /// Milliseconds since `epoch` of the last answer; 0: none.
    answered: AtomicU64,
    state: RwLock<PathState>,
}

/// One path for showing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathView {
    pub address: SocketAddr,
    /// The cluster it leads to.
    pub cluster: String,
    /// `up`, `suspect`, `down` or `returning`.
    pub state: &'static str,
    /// Since when it is in doubt, down or coming back.
    pub for_ms: Option<u64>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { epoch: Instant::now(), known: RwLock::default() }
    }
}

impl Paths {
    /// Something came back over the path.
    pub fn answered(&self, address: SocketAddr) {
        if let Some(meter) = self.known.read().get(&address) {
            let now = self.epoch.elapsed().as_millis() as u64;
            meter.answered.store(now.max(1), Ordering::Relaxed);
        }
    }

    /// How long nothing has come back; `None` while nothing ever has.
    pub(super) fn silent_for(&self, address: SocketAddr) -> Option<Duration> {
        let known = self.known.read();
        let at = known.get(&address)?.answered.load(Ordering::Relaxed);
        (at > 0).then(|| self.epoch.elapsed().saturating_sub(Duration::from_millis(at)))
    }

    pub(super) fn add(&self, address: SocketAddr, cluster: &Arc<str>) {
        if self.known.read().contains_key(&address) {
            return;
        }
        let meter = Meter { cluster: cluster.clone(), answered: AtomicU64::new(0), state: RwLock::new(PathState::Up) };
        self.known.write().insert(address, Arc::new(meter));
    }

    pub(super) fn set(&self, address: SocketAddr, state: PathState) {
        if let Some(meter) = self.known.read().get(&address) {
            *meter.state.write() = state;
        }
    }

    pub(super) fn keep(&self, keep: impl Fn(&SocketAddr) -> bool) {
        self.known.write().retain(|address, _| keep(address));
    }

    /// All paths, by address.
    pub fn view(&self) -> Vec<PathView> {
        let known = self.known.read();
        known.iter().map(|(address, meter)| view(*address, meter)).collect()
    }

    /// Whether a path has shown signs of failure that no good sign has cleared yet.
    pub(super) fn is_in_doubt(&self, address: SocketAddr) -> bool {
        let known = self.known.read();
        known.get(&address).is_some_and(|meter| matches!(*meter.state.read(), PathState::Suspect { .. }))
    }

    /// State of one path; `up` when it is none.
    pub fn state_name(&self, address: SocketAddr) -> &'static str {
        self.known.read().get(&address).map_or("up", |meter| name(*meter.state.read()))
    }
}

fn view(address: SocketAddr, meter: &Meter) -> PathView {
    let state = *meter.state.read();
    let since = match state {
        PathState::Up => None,
        PathState::Suspect { since } | PathState::Down { since } | PathState::Returning { since } => Some(since),
    };
    PathView {
        address,
        cluster: meter.cluster.to_string(),
        state: name(state),
        for_ms: since.map(|since| since.elapsed().as_millis() as u64),
    }
}

fn name(state: PathState) -> &'static str {
    match state {
        PathState::Up => "up",
        PathState::Suspect { .. } => "suspect",
        PathState::Down { .. } => "down",
        PathState::Returning { .. } => "returning",
    }
}
