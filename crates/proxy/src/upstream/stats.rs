//! Counters and circuit breakers of one Envoy cluster.
//!
//! Limits hold over all workers, as Envoy's do. Invariant: whatever was admitted is given back when its guard is dropped.

use super::member::MemberState;
use fairlead_engine::upstream::CircuitBreakers;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Counters of an Envoy cluster; names follow Envoy's.
#[derive(Debug, Default)]
pub struct ClusterStats {
    pub rq_active: AtomicU32,
    pub rq_pending: AtomicU32,
    pub cx_active: AtomicU32,
    pub retries_active: AtomicU32,
    pub rq_total: AtomicU64,
    pub rq_retry: AtomicU64,
    pub rq_retry_success: AtomicU64,
    pub rq_overflow: AtomicU64,
    pub cx_total: AtomicU64,
    pub cx_overflow: AtomicU64,
    pub cx_connect_fail: AtomicU64,
    pub none_healthy: AtomicU64,
    freed: Notify,
}

/// One request admitted to an Envoy cluster and endpoint.
#[derive(Debug)]
pub struct InUse {
    cluster: Arc<ClusterStats>,
    member: Arc<MemberState>,
}

/// A counted part of a circuit breaker.
#[derive(Debug)]
pub struct Admitted {
    stats: Arc<ClusterStats>,
    what: Resource,
}

/// What a circuit breaker counts beside requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connection,
    Pending,
    Retry,
}

impl ClusterStats {
    /// Admits a request; `None` when the breaker is open.
    pub fn request(self: &Arc<Self>, limits: &CircuitBreakers, member: &Arc<MemberState>) -> Option<InUse> {
        if !admit(&self.rq_active, limits.max_requests) {
            self.rq_overflow.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.rq_total.fetch_add(1, Ordering::Relaxed);
        member.rq_active.fetch_add(1, Ordering::Relaxed);
        member.rq_total.fetch_add(1, Ordering::Relaxed);
        Some(InUse { cluster: self.clone(), member: member.clone() })
    }

    /// Admits a connection, a request waiting for one, or a retry.
    pub fn admit(self: &Arc<Self>, what: Resource, limits: &CircuitBreakers) -> Option<Admitted> {
        let limit = match what {
            Resource::Connection => limits.max_connections,
            Resource::Pending => limits.max_pending_requests,
            Resource::Retry => self.retry_limit(limits),
        };
        if !admit(self.counter(what), limit) {
            let overflow = if what == Resource::Connection { &self.cx_overflow } else { &self.rq_overflow };
            overflow.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Admitted { stats: self.clone(), what })
    }

    /// Waits until a request or connection has ended.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    pub fn retries_are_full(&self, limits: &CircuitBreakers) -> bool {
        self.retries_active.load(Ordering::Relaxed) >= self.retry_limit(limits)
    }

    fn retry_limit(&self, limits: &CircuitBreakers) -> u32 {
        match limits.retry_budget_percent {
            None => limits.max_retries,
            Some(percent) => {
                let active = self.rq_active.load(Ordering::Relaxed) + self.rq_pending.load(Ordering::Relaxed);
                ((f64::from(active) * percent / 100.0) as u32).max(limits.min_retry_concurrency)
            }
        }
    }

    fn wake(&self) {
        if self.rq_pending.load(Ordering::Relaxed) > 0 {
            self.freed.notify_waiters();
        }
    }

    fn counter(&self, what: Resource) -> &AtomicU32 {
        match what {
            Resource::Connection => &self.cx_active,
            Resource::Pending => &self.rq_pending,
            Resource::Retry => &self.retries_active,
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.cluster.rq_active.fetch_sub(1, Ordering::Relaxed);
        self.member.rq_active.fetch_sub(1, Ordering::Relaxed);
        self.cluster.wake();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.stats.counter(self.what).fetch_sub(1, Ordering::Relaxed);
        self.stats.wake();
    }
}

/// Counts one more unless that passes `limit`.
fn admit(counter: &AtomicU32, limit: u32) -> bool {
    if counter.fetch_add(1, Ordering::Relaxed) < limit {
        return true;
    }
    counter.fetch_sub(1, Ordering::Relaxed);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers_open_and_close() {
        let stats = Arc::new(ClusterStats::default());
        let limits = CircuitBreakers { max_connections: 1, ..CircuitBreakers::default() };
        let first = stats.admit(Resource::Connection, &limits);
        assert!(first.is_some());
        assert!(stats.admit(Resource::Connection, &limits).is_none());
        drop(first);
        assert!(stats.admit(Resource::Connection, &limits).is_some());
        assert_eq!(stats.cx_overflow.load(Ordering::Relaxed), 1);
    }
}
