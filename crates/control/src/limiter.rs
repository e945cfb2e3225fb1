//! How often strangers may try something: buckets of attempts that fill with time, for each source and for all together.
//!
//! An attempt is taken before what it costs and given back when it was good, so that only what is no good counts. Sources that failed
//! lately share a bucket of their own: they use up nothing of those that did not. Pure: time is an argument. Invariants: over any span no more
//! attempts fail than the buckets hold plus what filled them; the table of sources is bounded.

use crate::places::Source;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Sources that are told apart; the rest are together one that failed.
const SOURCES: usize = 8192;

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// One source.
    pub each: Rate,
    /// All that did not fail lately.
    pub clean: Rate,
    /// All that did.
    pub failed: Rate,
}

#[derive(Debug)]
pub struct Limiter {
    rates: Rates,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clean: Bucket,
    failed: Bucket,
    sources: HashMap<Source, Of>,
}

#[derive(Debug)]
struct Of {
    bucket: Bucket,
    /// Attempts under way.
    open: u32,
    has_failed: bool,
}

/// An attempt that is under way: it failed, unless it is said to be good.
#[derive(Debug)]
pub struct Attempt {
    limiter: Arc<Limiter>,
    source: Source,
    of_failed: bool,
    is_good: bool,
}

impl Limiter {
    pub fn new(rates: Rates) -> Arc<Self> {
        let state =
            State { clean: Bucket::full(rates.clean), failed: Bucket::full(rates.failed), sources: HashMap::new() };
        Arc::new(Self { rates, state: Mutex::new(state) })
    }

    /// Takes an attempt, if there is one.
    pub fn take(self: &Arc<Self>, source: Source, now: Instant) -> Option<Attempt> {
        let mut state = self.state.lock();
        let State { clean, failed, sources } = &mut *state;
        if sources.len() >= SOURCES && !sources.contains_key(&source) {
            let each = self.rates.each;
            sources.retain(|_, of| of.open > 0 || of.bucket.filled(each, now) < f64::from(each.burst));
        }
        let has_room = sources.len() < SOURCES;
        let of = match sources.get_mut(&source) {
            Some(of) => Some(of),
            None if has_room => Some(sources.entry(source).or_insert_with(|| Of::new(self.rates.each))),
            None => None,
        };
        let of_failed = match &of {
            // Full again: what it failed in is long ago.
            Some(of) if of.bucket.filled(self.rates.each, now) >= f64::from(self.rates.each.burst) => false,
            Some(of) => of.has_failed,
            None => true,
        };
        let (shared, rate) = if of_failed { (failed, self.rates.failed) } else { (clean, self.rates.clean) };
        if !shared.has(rate, now) {
            return None;
        }
        if let Some(of) = of {
            of.has_failed = of_failed;
            if !of.bucket.take(self.rates.each, now) {
                return None;
            }
            of.open += 1;
        }
        shared.take(rate, now);
        Some(Attempt { limiter: self.clone(), source, of_failed, is_good: false })
    }
}

impl Attempt {
    /// It costs nothing.
    pub fn was_good(mut self) {
        self.is_good = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let rates = self.limiter.rates;
        let mut state = self.limiter.state.lock();
        if let Some(of) = state.sources.get_mut(&self.source) {
            of.open = of.open.saturating_sub(1);
            of.has_failed |= !self.is_good;
            if self.is_good {
                of.bucket.give_back(rates.each);
            }
        }
        match (self.is_good, self.of_failed) {
            (false, _) => {}
            (true, true) => state.failed.give_back(rates.failed),
            (true, false) => state.clean.give_back(rates.clean),
        }
    }
}

impl Of {
    fn new(rate: Rate) -> Self {
        Self { bucket: Bucket::full(rate), open: 0, has_failed: false }
    }
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    last: Option<Instant>,
}

impl Bucket {
    fn full(rate: Rate) -> Self {
        Self { left: rate.burst.into(), last: None }
    }

    fn filled(&self, rate: Rate, now: Instant) -> f64 {
        let since = self.last.map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f64());
        (self.left + since * f64::from(rate.per_second)).min(rate.burst.into())
    }

    fn has(&self, rate: Rate, now: Instant) -> bool {
        self.filled(rate, now) >= 1.0
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let filled = self.filled(rate, now);
        let passes = filled >= 1.0;
        (self.left, self.last) = (if passes { filled - 1.0 } else { filled }, Some(now));
        passes
    }

    fn give_back(&mut self, rate: Rate) {
        self.left = (self.left + 1.0).min(rate.burst.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    const RATES: Rates = Rates {
        each: Rate { per_second: 5, burst: 10 },
        clean: Rate { per_second: 10, burst: 30 },
        failed: Rate { per_second: 1, burst: 5 },
    };

    fn source(n: u32) -> Source {
        IpAddr::from(Ipv4Addr::from_bits(0xc633_0000 + n)).into()
    }

    fn failing(limiter: &Arc<Limiter>, source: Source, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| limiter.take(source, now).is_some()).count()
    }

    #[test]
    fn what_is_no_good_counts_and_what_is_good_does_not() {
        let limiter = Limiter::new(RATES);
        let t = Instant::now();
        for _ in 0..1000 {
            limiter.take(source(1), t).unwrap().was_good();
        }
        // The first fails as one of the clean, the others as one of those that failed.
        assert_eq!(failing(&limiter, source(2), 50, t), 1 + 5);
        assert_eq!(failing(&limiter, source(3), 50, t), 1, "those that failed share a bucket");
        limiter.take(source(1), t).unwrap().was_good();
        assert_eq!(failing(&limiter, source(2), 50, t + Duration::from_secs(1)), 1);
        // Full again, it is like any other.
        assert_eq!(failing(&limiter, source(2), 50, t + Duration::from_secs(60)), 1 + 5);
    }

    #[test]
    fn attempts_under_way_are_counted_before_they_are_judged() {
        let limiter = Limiter::new(RATES);
        let t = Instant::now();
        let held: Vec<Attempt> = std::iter::from_fn(|| limiter.take(source(1), t)).collect();
        assert_eq!(held.len(), 10, "of one source");
        let others: Vec<Attempt> = (2..100).filter_map(|n| limiter.take(source(n), t)).collect();
        assert_eq!(others.len(), 20, "of all");
        held.into_iter().chain(others).for_each(Attempt::was_good);
        assert_eq!(std::iter::from_fn(|| limiter.take(source(1), t)).collect::<Vec<_>>().len(), 10);
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let many = Rate { per_second: 1, burst: 1_000_000 };
        let limiter = Limiter::new(Rates { clean: many, failed: many, ..RATES });
        let t = Instant::now();
        for n in 0..3 * SOURCES as u32 {
            drop(limiter.take(source(n), t));
        }
        assert_eq!(limiter.state.lock().sources.len(), SOURCES);
        let later = t + Duration::from_secs(10);
        limiter.take(source(9_999_999), later).unwrap().was_good();
        assert_eq!(limiter.state.lock().sources.len(), 1, "those that are full again are forgotten");
    }
}
