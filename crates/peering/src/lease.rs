//! Whether a peer's control stream is fresh.
//!
//! Pure: time is an argument, from the receiver's monotonic clock. Invariant: a stream that is alive renews the lease by being alive
//! (its HTTP/2 pings answer within 10 s); one that ended or is silent stops being fresh when the lease is over.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Lease {
    connected: bool,
    renewed: Instant,
    duration: Duration,
}

impl Lease {
    /// Staleness contract: 15 s.
    pub const DURATION: Duration = Duration::from_secs(15);

    /// Not yet connected; counted from now.
    pub fn new(now: Instant, duration: Duration) -> Self {
        Self { connected: false, renewed: now, duration }
    }

    pub fn connected(&mut self, now: Instant) {
        self.connected = true;
        self.renewed = now;
    }

    pub fn disconnected(&mut self, now: Instant) {
        if self.connected {
            self.renewed = now;
        }
        self.connected = false;
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    pub fn is_stale(&self, now: Instant) -> bool {
        self.ends().is_some_and(|end| now >= end)
    }

    /// When it is over; never, while the stream stands.
    pub fn ends(&self) -> Option<Instant> {
        (!self.connected).then(|| self.renewed + self.duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_fifteen_seconds_after_the_stream() {
        let t = Instant::now();
        let mut lease = Lease::new(t, Lease::DURATION);
        assert!(!lease.is_stale(t));
        lease.connected(t);
        assert!(!lease.is_stale(t + Duration::from_secs(3600)));
        assert_eq!(lease.ends(), None);
        lease.disconnected(t + Duration::from_secs(100));
        lease.disconnected(t + Duration::from_secs(110));
        assert!(!lease.is_stale(t + Duration::from_secs(114)));
        assert!(lease.is_stale(t + Duration::from_secs(115)));
        assert_eq!(lease.ends(), Some(t + Duration::from_secs(115)));
    }
}
