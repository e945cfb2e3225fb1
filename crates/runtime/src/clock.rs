//! The time as an input, for code that compares moments rather than waits for them.
//!
//! Code that waits uses `tokio::time`. Leases and ramps are measured on the monotonic clock only; the wall clock is
//! for what is written into certificates and shown to people. Invariant: `monotonic` never goes back.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A source of both times.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment of this process.
    fn monotonic(&self) -> Duration;
    /// The wall clock; may jump.
    fn wall(&self) -> SystemTime;
}

/// The machine's clocks. The monotonic one is tokio's, so it follows a paused runtime in tests.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

/// A clock that moves when it is told to.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<Mutex<(Duration, SystemTime)>>,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        SystemClock { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl ManualClock {
    /// A clock standing at zero and at `wall`.
    pub fn at(wall: SystemTime) -> Self {
        ManualClock { now: Arc::new(Mutex::new((Duration::ZERO, wall))) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        now.0 += by;
        now.1 += by;
    }

    /// Moves the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, wall: SystemTime) {
        self.now.lock().1 = wall;
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.now.lock().0
    }

    fn wall(&self) -> SystemTime {
        self.now.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_jump_leaves_the_monotonic_time_alone() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        clock.advance(Duration::from_secs(5));
        clock.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH);
    }

    #[tokio::test(start_paused = true)]
    async fn the_system_clock_follows_a_paused_runtime() {
        let clock = SystemClock::new();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.monotonic(), Duration::from_secs(3));
    }
}
