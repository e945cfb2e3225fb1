//! Bytes of requests that are held at once: so many in all, and so many for each source.
//!
//! Invariant: what is counted has come; what is dropped is given back.

use crate::places::Source;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug)]
pub struct Budget {
    all: usize,
    each: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_source: HashMap<Source, usize>,
}

/// What one request holds.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    source: Source,
    bytes: usize,
}

impl Budget {
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, held: Mutex::default() })
    }

    pub fn share(self: &Arc<Self>, source: Source) -> Share {
        Share { budget: self.clone(), source, bytes: 0 }
    }
}

impl Share {
    /// Counts bytes that came; whether there is room for them.
    pub fn more(&mut self, bytes: usize) -> bool {
        let Budget { all, each, held } = &*self.budget;
        let mut held = held.lock();
        let of_source = held.by_source.get(&self.source).copied().unwrap_or_default();
        let fits = held.all + bytes <= *all && of_source + bytes <= *each;
        if fits {
            held.all += bytes;
            held.by_source.insert(self.source, of_source + bytes);
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.budget.held.lock();
        held.all -= self.bytes;
        let of_source = held.by_source.get(&self.source).copied().unwrap_or_default().saturating_sub(self.bytes);
        match of_source {
            0 => drop(held.by_source.remove(&self.source)),
            left => drop(held.by_source.insert(self.source, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn one_source_cannot_hold_everything() {
        let budget = Budget::new(100, 60);
        let [a, b] = [1, 2].map(|n| Source::from(IpAddr::from([192, 0, 2, n])));
        let (mut one, mut two, mut other) = (budget.share(a), budget.share(a), budget.share(b));
        assert!(one.more(50) && !two.more(11) && two.more(10) && !one.more(1));
        assert!(other.more(40) && !other.more(1), "all together");
        drop((one, two));
        assert!(other.more(20));
        drop(other);
        assert!(budget.held.lock().by_source.is_empty() && budget.held.lock().all == 0);
    }
}
