//! Places for callers that nobody vouches for yet: so many in all, and so many for each source.
//!
//! When all are taken, a source that holds at least two fewer gets the oldest place of the one that holds most, unless that place is young
//! or in use: a few sources with many keep a newcomer out for a moment at most, and nobody loses the only place it has. Pure: time is an argument. Invariants: the table is no larger than
//! the places; what was given is given back when its guard is dropped.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Where a caller comes from: an IPv4 address, or the /64 of an IPv6 address, of which one host may use every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
            v4 => v4,
        })
    }
}

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub all: usize,
    /// For one source.
    pub each: usize,
    /// A place is nobody else's for so long; [`Duration::MAX`]: for ever.
    pub young: Duration,
}

#[derive(Debug)]
pub struct Places {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Oldest first.
    held: BTreeMap<u64, Held>,
    counts: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Held {
    source: Source,
    since: Instant,
    in_use: bool,
    lost: CancellationToken,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("its address has {0} already")]
    Source(usize),
    #[error("all {0} are taken")]
    All(usize),
}

impl Places {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, state: Mutex::default() })
    }

    pub fn take(self: &Arc<Self>, source: Source, now: Instant) -> Result<Place, Full> {
        let mut state = self.state.lock();
        let has = state.counts.get(&source).copied().unwrap_or_default();
        if has >= self.bounds.each {
            return Err(Full::Source(has));
        }
        if state.held.len() >= self.bounds.all {
            let gives = self.bounds.young < Duration::MAX;
            let id = gives.then(|| state.of_the_largest(has, now, self.bounds.young)).flatten();
            let id = id.ok_or(Full::All(self.bounds.all))?;
            if let Some(held) = state.remove(id) {
                held.lost.cancel();
            }
        }
        let (id, lost) = (state.next, CancellationToken::new());
        state.next += 1;
        *state.counts.entry(source).or_default() += 1;
        state.held.insert(id, Held { source, since: now, in_use: false, lost: lost.clone() });
        Ok(Place { id, lost, all: self.clone() })
    }

    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.state.lock().held.len()
    }
}

impl State {
    /// The oldest place of the source that holds most, if it still has as many as the other when it has given one.
    fn of_the_largest(&self, has: usize, now: Instant, young: Duration) -> Option<u64> {
        let free = |held: &Held| !held.in_use && now.saturating_duration_since(held.since) >= young;
        let candidates = self.held.iter().filter(|(_, held)| free(held));
        let counted = candidates.map(|(id, held)| (*id, self.counts.get(&held.source).copied().unwrap_or_default()));
        // Of those that hold equally many the oldest.
        let (id, most) = counted.rev().max_by_key(|(_, count)| *count)?;
        (most > has + 1).then_some(id)
    }

    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        if let Some(count) = self.counts.get_mut(&held.source) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&held.source);
            }
        }
        Some(held)
    }
}

/// One place.
#[derive(Debug)]
pub struct Place {
    id: u64,
    lost: CancellationToken,
    all: Arc<Places>,
}

impl Place {
    /// Cancelled when the place was given to another; who holds it then ends.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// While it is in use nobody else gets it.
    pub fn set_in_use(&self, in_use: bool) {
        if let Some(held) = self.all.state.lock().held.get_mut(&self.id) {
            held.in_use = in_use;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.state.lock().remove(self.id);
    }
}

/// Sources that showed a good certificate not long ago. Two tables of bounded size: when the newer is full, the older is forgotten.
#[derive(Debug, Default)]
pub struct Known(Mutex<[std::collections::HashSet<Source>; 2]>);

/// Of one table.
const KNOWN: usize = 8192;

impl Known {
    pub fn note(&self, source: Source) {
        let [newer, older] = &mut *self.0.lock();
        if newer.len() >= KNOWN && !newer.contains(&source) {
            *older = std::mem::take(newer);
        }
        newer.insert(source);
    }

    pub fn has(&self, source: Source) -> bool {
        self.0.lock().iter().any(|table| table.contains(&source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_secs(1);

    fn source(n: u32) -> Source {
        IpAddr::from(std::net::Ipv4Addr::from_bits(0xc633_0000 + n)).into()
    }

    #[test]
    fn a_source_is_an_address_or_a_prefix() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_newcomer_gets_the_oldest_place_of_the_largest() {
        let places = Places::new(Bounds { all: 8, each: 6, young: YOUNG });
        let begun = Instant::now();
        let mut stranger: Vec<Place> = (0..6).map(|_| places.take(source(1), begun).unwrap()).collect();
        assert_eq!(places.take(source(1), begun).unwrap_err(), Full::Source(6));
        let _two: Vec<Place> = (0..2).map(|_| places.take(source(2), begun).unwrap()).collect();
        assert_eq!(places.take(source(3), begun).unwrap_err(), Full::All(8), "young places are nobody else's");
        let later = begun + YOUNG;
        stranger[0].set_in_use(true);
        let _third = places.take(source(3), later).unwrap();
        assert!(!stranger[0].lost().is_cancelled() && stranger[1].lost().is_cancelled());
        assert_eq!(places.taken(), 8);
        // Who holds as many as the largest takes nothing from it.
        let _more: Vec<Place> = std::iter::from_fn(|| places.take(source(3), later).ok()).collect();
        assert_eq!(stranger.iter().filter(|place| !place.lost().is_cancelled()).count(), 3);
        stranger.clear();
        assert!(places.take(source(1), later).is_ok());
        assert_eq!(places.taken(), 5, "what was left is free, and what was lost is not given back twice");
    }

    #[test]
    fn known_sources_are_few() {
        let known = Known::default();
        for n in 0..5 * KNOWN as u32 {
            known.note(source(n));
        }
        assert!(known.has(source(5 * KNOWN as u32 - 1)) && !known.has(source(0)));
        assert!(known.0.lock().iter().map(|table| table.len()).sum::<usize>() <= 2 * KNOWN);
    }
}
