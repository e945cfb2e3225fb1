//! An orderly end in two phases: first take no new work, then cut what is left.
//!
//! Everything that holds work in flight takes a [`DrainGuard`]; the first phase lasts until the last guard is gone
//! or the grace is over. Invariant: phases only move forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Taking work.
    Running,
    /// Taking no new work, finishing what is in flight.
    Draining,
    /// Cutting what is left.
    Closing,
}

/// The signal and the count of work in flight. Clones are the same signal.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: Arc<watch::Sender<Phase>>,
    flight: Arc<Flight>,
}

/// One piece of work in flight; dropping it ends the work.
#[derive(Debug)]
pub struct DrainGuard {
    flight: Arc<Flight>,
}

impl Drain {
    /// A signal in phase `Running`.
    pub fn new() -> Self {
        Drain { phase: Arc::new(watch::Sender::new(Phase::Running)), flight: Arc::default() }
    }

    /// The phase right now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until new work is to be refused; returns at once afterwards.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until work in flight is to be cut; returns at once afterwards.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Counts one piece of work until the guard is dropped.
    pub fn guard(&self) -> DrainGuard {
        self.flight.count.fetch_add(1, Ordering::AcqRel);
        DrainGuard { flight: self.flight.clone() }
    }

    /// Pieces of work in flight.
    pub fn in_flight(&self) -> usize {
        self.flight.count.load(Ordering::Acquire)
    }

    /// Enters the first phase; nothing happens if it has been entered already.
    pub fn start(&self) {
        self.advance(Phase::Draining);
    }

    /// Enters the second phase.
    pub fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// Both phases: drains until nothing is in flight or `grace` is over, then closes. Returns how many pieces of
    /// work were cut.
    pub async fn run(&self, grace: Duration) -> usize {
        self.start();
        // A grace that is over is not an error: the second phase is there for it.
        let _ = tokio::time::timeout(grace, self.idle()).await;
        let cut = self.in_flight();
        self.close();
        cut
    }

    async fn idle(&self) {
        loop {
            let notified = self.flight.emptied.notified();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    async fn reached(&self, phase: Phase) {
        // The sender lives in `self`, so the channel cannot close under us.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = *now < to;
            if forward {
                *now = to;
            }
            forward
        });
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.flight.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flight.emptied.notify_waiters();
        }
    }
}

#[derive(Debug, Default)]
struct Flight {
    count: AtomicUsize,
    emptied: Notify,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_as_soon_as_nothing_is_in_flight() {
        let drain = Drain::new();
        let guard = drain.guard();
        let waiter = tokio::spawn({
            let drain = drain.clone();
            async move {
                drain.draining().await;
                assert_eq!(drain.phase(), Phase::Draining);
                drop(guard);
            }
        });
        let began = tokio::time::Instant::now();
        assert_eq!(drain.run(Duration::from_secs(30)).await, 0);
        assert_eq!(began.elapsed(), Duration::ZERO);
        waiter.await.unwrap();
        assert_eq!(drain.phase(), Phase::Closing);
    }

    #[tokio::test(start_paused = true)]
    async fn cuts_what_outlives_the_grace() {
        let drain = Drain::new();
        let _guard = drain.guard();
        assert_eq!(drain.run(Duration::from_secs(30)).await, 1);
        drain.closing().await;
        drain.start();
        assert_eq!(drain.phase(), Phase::Closing, "phases never go back");
    }
}
