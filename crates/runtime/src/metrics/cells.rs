//! The cells behind one series: counters, gauges, histograms.
//!
//! Counters and histograms are sharded by thread and padded to a cache line, so workers do not disturb each other.
//! Handles are cheap to clone and stay valid after their series has been dropped from the family. Relaxed ordering
//! suffices: a scrape needs no order between cells.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter {
    shards: Arc<[Padded]>,
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    value: Arc<AtomicI64>,
}

/// A distribution over fixed bounds.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    shards: Arc<[HistogramShard]>,
}

/// What a scrape reads from a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramValue {
    /// Observations at or below each bound, cumulative, then all of them.
    pub cumulative: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

impl Counter {
    /// Adds to the count.
    pub fn add(&self, n: u64) {
        self.shards[shard(self.shards.len())].0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count over all shards.
    pub fn value(&self) -> u64 {
        self.shards.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn new(shards: usize) -> Self {
        Counter { shards: (0..shards.max(1)).map(|_| Padded::default()).collect() }
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// Adds to the value; negative takes away.
    pub fn add(&self, n: i64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn value(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let shard = &self.shards[shard(self.shards.len())];
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        shard.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // Each shard has one writer most of the time: the loop almost always ends at its first try.
        let mut old = shard.sum.load(Ordering::Relaxed);
        loop {
            let new = (f64::from_bits(old) + value).to_bits();
            match shard.sum.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// The distribution over all shards.
    pub fn value(&self) -> HistogramValue {
        let mut cumulative = vec![0; self.bounds.len() + 1];
        let mut sum = 0.0;
        for shard in self.shards.iter() {
            for (total, bucket) in cumulative.iter_mut().zip(&shard.buckets) {
                *total += bucket.load(Ordering::Relaxed);
            }
            sum += f64::from_bits(shard.sum.load(Ordering::Relaxed));
        }
        for i in 1..cumulative.len() {
            cumulative[i] += cumulative[i - 1];
        }
        HistogramValue { cumulative, sum }
    }

    /// The upper bounds, without the infinite one.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    pub(super) fn new(shards: usize, bounds: Arc<[f64]>) -> Self {
        let shard = |_| HistogramShard {
            sum: AtomicU64::new(0f64.to_bits()),
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
        };
        Histogram { shards: (0..shards.max(1)).map(shard).collect(), bounds }
    }
}

/// 64 bytes: one cache line on every machine we run on.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(AtomicU64);

#[derive(Debug)]
#[repr(align(64))]
struct HistogramShard {
    sum: AtomicU64,
    buckets: Box<[AtomicU64]>,
}

/// The calling thread's shard. Threads are numbered as they first count something, so the few workers of a process
/// get a shard each.
fn shard(shards: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static MINE: Cell<usize> = const { Cell::new(usize::MAX) }; }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1));
        }
        mine.get() % shards
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed() {
        let counter = Counter::new(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counter.increment()));
            }
        });
        assert_eq!(counter.value(), 4000);
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::new(2, [1.0, 5.0].into());
        for value in [0.5, 1.0, 3.0, 5.0, 9.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.value(), HistogramValue { cumulative: vec![2, 4, 5], sum: 18.5 });
    }
}
