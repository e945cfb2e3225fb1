//! What a client has of one type: as a rule exactly what a view offers, so it is that view's map and nothing of its own.
//!
//! Invariant: between two answers it says of every name what was sent last, whatever is shared.

use crate::{Name, Resources, Version};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the client has of one resource.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub version: Version,
    /// Kept only where responses carry the full state; else empty.
    pub body: Bytes,
}

/// All it has.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Everything in it, but for the names of `over`.
    whole: Option<Arc<Resources>>,
    /// `None`: not this one.
    over: BTreeMap<Name, Option<Held>>,
}

impl Holdings {
    pub(super) fn version(&self, name: &str) -> Option<&Version> {
        match self.over.get(name) {
            Some(held) => held.as_ref().map(|held| &held.version),
            None => self.whole.as_ref()?.get(name).map(|resource| &resource.version),
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.version(name).is_some()
    }

    /// Whether it had none of that name.
    pub(super) fn insert(&mut self, name: Name, held: Held) -> bool {
        let new = !self.contains(&name);
        self.over.insert(name, Some(held));
        new
    }

    pub(super) fn remove(&mut self, name: &str) {
        if self.whole.as_ref().is_some_and(|whole| whole.contains(name)) {
            self.over.insert(name.into(), None);
        } else {
            self.over.remove(name);
        }
    }

    /// Keeps only those of `names`.
    pub(super) fn keep(&mut self, names: &BTreeSet<Name>) {
        let kept = |name: &Name| {
            let held = match self.over.get(name) {
                Some(held) => held.clone()?,
                None => {
                    let resource = self.whole.as_ref()?.get(name)?;
                    Held { version: resource.version.clone(), body: resource.body.clone() }
                }
            };
            Some((name.clone(), Some(held)))
        };
        self.over = names.iter().filter_map(kept).collect();
        self.whole = None;
    }

    /// It is exactly this.
    pub(super) fn settle(&mut self, whole: &Arc<Resources>) {
        self.whole = Some(whole.clone());
        self.over = BTreeMap::new();
    }

    /// What it is exactly, if it is exactly some map.
    pub(super) fn settled(&self) -> Option<&Arc<Resources>> {
        self.whole.as_ref().filter(|_| self.over.is_empty())
    }

    /// All of it, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Version, &Bytes)> {
        let mut over = self.over.iter().peekable();
        let mut whole = self.whole.as_ref().map(|whole| whole.iter());
        let mut next = whole.as_mut().and_then(Iterator::next);
        let merged = std::iter::from_fn(move || {
            if let (Some(resource), Some((name, _))) = (next, over.peek())
                && resource.name == **name
            {
                next = whole.as_mut().and_then(Iterator::next);
            }
            match (next, over.peek()) {
                (Some(resource), peeked) if peeked.is_none_or(|(name, _)| resource.name < **name) => {
                    next = whole.as_mut().and_then(Iterator::next);
                    Some((&resource.name, Some((&resource.version, &resource.body))))
                }
                _ => over.next().map(|(name, held)| (name, held.as_ref().map(|held| (&held.version, &held.body)))),
            }
        });
        merged.filter_map(|(name, held)| held.map(|(version, body)| (name, version, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;

    fn held(version: &str) -> Held {
        Held { version: version.into(), body: Bytes::new() }
    }

    fn texts(holdings: &Holdings) -> Vec<String> {
        holdings.iter().map(|(name, version, _)| format!("{name}{version}")).collect()
    }

    #[test]
    fn what_is_over_a_map_stands_before_it() {
        let mut holdings = Holdings::default();
        let map: Resources = ["b", "d", "f"].map(|name| Resource::new(name, "1", &b"x"[..])).into_iter().collect();
        let map = Arc::new(map);
        holdings.settle(&map);
        assert!(holdings.settled().is_some_and(|settled| Arc::ptr_eq(settled, &map)));
        assert!(holdings.insert("a".into(), held("2")));
        assert!(!holdings.insert("d".into(), held("2")));
        holdings.remove("f");
        holdings.remove("nobody");
        assert!(holdings.insert("g".into(), held("2")));
        assert_eq!(texts(&holdings), ["a2", "b1", "d2", "g2"]);
        assert_eq!(holdings.version("f"), None);
        assert!(holdings.settled().is_none());
        assert!(holdings.insert("f".into(), held("3")), "one that was taken out is new again");
        holdings.keep(&BTreeSet::from(["b".into(), "g".into(), "x".into()]));
        assert_eq!(texts(&holdings), ["b1", "g2"]);
        holdings.settle(&map);
        assert_eq!(texts(&holdings), ["b1", "d1", "f1"]);
    }
}
