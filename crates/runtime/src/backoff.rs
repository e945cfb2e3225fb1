//! How long to wait before trying again: exponential, with full jitter.
//!
//! Pure: the caller brings the attempt's number and the randomness, so a test needs neither clock nor seed. The
//! jitter is full (anything between nothing and the cap) because a thousand clients of one dead server must not
//! come back in step.

use std::time::Duration;

/// The shape of a series of delays. `Copy`, so it can live in any configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub base: Duration,
    /// Upper bound of every delay.
    pub max: Duration,
}

impl Backoff {
    /// 500 ms growing to 30 s: gRPC's and Envoy's customary order of magnitude for reconnecting.
    pub const RECONNECT: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(30) };

    /// Delays of at most `base`, 2 × `base`, 4 × `base`… and never more than `max`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Backoff { base, max }
    }

    /// The longest delay before retry number `attempt` (0 is the first retry).
    pub fn ceiling(&self, attempt: u32) -> Duration {
        // 2^20 times any sensible base exceeds any sensible maximum; bounding the shift avoids overflow.
        self.base.saturating_mul(1 << attempt.min(20)).min(self.max)
    }

    /// The delay before retry number `attempt`, for a `random` in `[0, 1)`; values outside are clamped.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        self.ceiling(attempt).mul_f64(random)
    }

    /// [`Backoff::delay`] with the thread's own randomness.
    pub fn sample(&self, attempt: u32) -> Duration {
        self.delay(attempt, fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_maximum_and_jitters_fully() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let ceilings: Vec<u128> = (0..6).map(|n| backoff.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(3, 0.5), Duration::from_millis(400));
        assert_eq!(backoff.delay(u32::MAX, 7.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(0, f64::NAN), Duration::from_millis(100));
        assert!(backoff.sample(2) <= Duration::from_millis(400));
    }
}
