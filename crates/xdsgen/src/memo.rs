//! The one table of generated resources, shared by all proxies.
//!
//! Inputs are not kept, only 128 bits of each by keys of this process alone: held beside their resources they would be most of the
//! table. Invariant: an entry is a function of its input, so nothing is ever invalidated; entries that no proxy has asked for during
//! the last generations are dropped, and the table never holds more than its capacity.

use crate::generated::Generated;
use crate::input::Input;
use ahash::RandomState;
use fairlead_proto::ResourceType;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Looked-up and generated resources since the memo was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeCounters {
    /// Found in the table.
    pub hits: u64,
    /// Not found, therefore generated.
    pub generated: u64,
}

/// By resource type, and what the table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub by_type: BTreeMap<ResourceType, TypeCounters>,
    pub evicted: u64,
    pub entries: u64,
}

/// See the module. Cheap to share by reference; all methods take `&self`.
pub struct Memo {
    shards: Vec<Mutex<Shard>>,
    hashers: [RandomState; 2],
    capacity: usize,
    generation: AtomicU64,
    ticks: AtomicU64,
    evicted: AtomicU64,
}

impl Memo {
    /// Keeps at most about `capacity` resources.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hashers: [RandomState::new(), RandomState::new()],
            capacity: capacity.div_ceil(SHARDS).max(4),
            generation: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    pub fn counters(&self) -> Counters {
        let mut counters = Counters { evicted: self.evicted.load(Ordering::Relaxed), ..Default::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            counters.entries += shard.entries.len() as u64;
            for (kind, c) in &shard.counters {
                let sum = counters.by_type.entry(*kind).or_default();
                sum.hits += c.hits;
                sum.generated += c.generated;
            }
        }
        counters
    }

    /// Notes that meshes of `generation` are being generated; drops what was last used before the ones just past.
    pub(crate) fn advance(&self, generation: u64) {
        if self.generation.fetch_max(generation, Ordering::AcqRel) >= generation {
            return;
        }
        for shard in &self.shards {
            self.retain(&mut shard.lock(), |entry| entry.generation + KEPT_GENERATIONS >= generation);
        }
    }

    /// The resource of this input, generated if need be.
    pub(crate) fn resource(&self, input: Input) -> Arc<Generated> {
        let kind = input.kind();
        let key = self.hashers.each_ref().map(|hasher| hasher.hash_one(&input));
        let shard = &self.shards[key[0] as usize % SHARDS];
        let generation = self.generation.load(Ordering::Acquire);
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        {
            let mut shard = shard.lock();
            if let Some(entry) = shard.entries.get_mut(&key) {
                entry.generation = generation;
                entry.tick = tick;
                let found = Arc::clone(&entry.generated);
                shard.counters.entry(kind).or_default().hits += 1;
                return found;
            }
        }
        // Made without the lock: another thread may make the same, which costs time and nothing else.
        let generated = Arc::new(input.generate());
        let mut shard = shard.lock();
        shard.counters.entry(kind).or_default().generated += 1;
        let entry = Entry { generated: Arc::clone(&generated), generation, tick };
        shard.entries.insert(key, entry);
        if shard.entries.len() > self.capacity {
            let mut ticks: Vec<u64> = shard.entries.values().map(|e| e.tick).collect();
            let middle = ticks.len() / 2;
            let (_, median, _) = ticks.select_nth_unstable(middle);
            let median = *median;
            self.retain(&mut shard, |entry| entry.tick >= median);
        }
        generated
    }

    fn retain(&self, shard: &mut Shard, keep: impl Fn(&Entry) -> bool) {
        let before = shard.entries.len();
        shard.entries.retain(|_, entry| keep(entry));
        self.evicted.fetch_add((before - shard.entries.len()) as u64, Ordering::Relaxed);
    }
}

impl Default for Memo {
    /// Room for 1,000 services × 60 different callers.
    fn default() -> Self {
        Self::with_capacity(200_000)
    }
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("counters", &self.counters()).finish()
    }
}

const SHARDS: usize = 16;
/// A proxy may still be asking for the last generation while another already gets the next.
const KEPT_GENERATIONS: u64 = 2;

#[derive(Default)]
struct Shard {
    entries: HashMap<[u64; 2], Entry, RandomState>,
    counters: BTreeMap<ResourceType, TypeCounters>,
}

struct Entry {
    generated: Arc<Generated>,
    generation: u64,
    tick: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusters::ClusterInput;
    use crate::names::ResourceName;

    fn input(port: u16) -> Input {
        Input::Cluster(ClusterInput::plain(ResourceName::Inbound { port }))
    }

    #[test]
    fn equal_inputs_are_generated_once() {
        let memo = Memo::default();
        let first = memo.resource(input(1));
        let again = memo.resource(input(1));
        assert!(Arc::ptr_eq(&first, &again));
        let counters = memo.counters();
        assert_eq!(counters.by_type[&ResourceType::Cluster], TypeCounters { hits: 1, generated: 1 });
    }

    #[test]
    fn unused_generations_are_dropped() {
        let memo = Memo::default();
        memo.advance(1);
        memo.resource(input(1));
        memo.resource(input(2));
        for generation in 2..=4 {
            memo.advance(generation);
            memo.resource(input(2));
        }
        let counters = memo.counters();
        assert_eq!((counters.entries, counters.evicted), (1, 1));
    }

    #[test]
    fn the_table_is_bounded() {
        let memo = Memo::with_capacity(64);
        for port in 0..5000 {
            memo.resource(input(port));
        }
        assert!(memo.counters().entries <= 64 + SHARDS as u64, "{:?}", memo.counters());
    }
}
