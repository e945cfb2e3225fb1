//! Whether a peer's control stream is fresh.
//!
//! Pure: time is an argument, from the receiver's monotonic clock. Invariant: a stream that is alive renews the lease by being alive
//! (its HTTP/2 pings answer within 10 s); one that ended or is silent stops being fresh after [`Lease::DURATION`].

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Lease {
    connected: bool,
    renewed: Instant,
}

impl Lease {
    /// Staleness contract: 15 s.
    pub const DURATION: Duration = Duration::from_secs(15);

    /// Not yet connected; counted from now.
    pub fn new(now: Instant) -> Self {
        Self { connected: false, renewed: now }
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

    pub fn is_stale(&self, now: Instant) -> bool {
        !self.connected && now.duration_since(self.renewed) >= Self::DURATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_fifteen_seconds_after_the_stream() {
        let t = Instant::now();
        let mut lease = Lease::new(t);
        assert!(!lease.is_stale(t));
        lease.connected(t);
        assert!(!lease.is_stale(t + Duration::from_secs(3600)));
        lease.disconnected(t + Duration::from_secs(100));
        lease.disconnected(t + Duration::from_secs(110));
        assert!(!lease.is_stale(t + Duration::from_secs(114)));
        assert!(lease.is_stale(t + Duration::from_secs(115)));
    }
}
