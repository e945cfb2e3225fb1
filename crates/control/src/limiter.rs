//! How often strangers may try something: a bucket of attempts that fills with time.
//!
//! Pure: time is an argument. Invariant: over any span no more attempts pass than the bucket holds plus what filled it.

use parking_lot::Mutex;
use std::time::Instant;

#[derive(Debug)]
pub struct Limiter {
    per_second: f64,
    most: f64,
    state: Mutex<(f64, Option<Instant>)>,
}

impl Limiter {
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: per_second.into(), most: burst.into(), state: Mutex::new((burst.into(), None)) }
    }

    /// Whether an attempt could be made now; takes none.
    pub fn has_room(&self, now: Instant) -> bool {
        let (left, last) = *self.state.lock();
        self.filled(left, last, now) >= 1.0
    }

    /// Whether one more attempt may be made now; takes it.
    pub fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let (left, last) = *state;
        let left = self.filled(left, last, now);
        let passes = left >= 1.0;
        *state = (if passes { left - 1.0 } else { left }, Some(now));
        passes
    }

    fn filled(&self, left: f64, last: Option<Instant>, now: Instant) -> f64 {
        let since = last.map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f64());
        (left + since * self.per_second).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limiter = Limiter::new(5, 10);
        let t = Instant::now();
        assert!(limiter.has_room(t));
        assert_eq!((0..20).filter(|_| limiter.take(t)).count(), 10);
        assert!(!limiter.has_room(t));
        let later = t + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| limiter.take(later)).count(), 5);
        let much_later = t + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| limiter.take(much_later)).count(), 10);
    }
}
