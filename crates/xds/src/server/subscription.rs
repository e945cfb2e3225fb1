//! What one client wants of one type, what it has, and the difference to what there is.
//!
//! The one subscription core: wildcard, legacy wildcard, names, names that do not exist yet. It knows no encoding.
//! Invariant: `held` is what the client has or has been sent; a difference is computed from `held` and a view
//! alone, so it never matters how often, or from which server, the client got there. What a view knows of its own changes
//! only spares the comparing.

use super::holdings::{Held, Holdings};
use crate::nack::Nack;
use crate::{Absence, Name, Resource, ResourceView, Resources, Version};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// One type on one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub wildcard: bool,
    pub names: BTreeSet<Name>,
    /// Whether names or `*` were ever given: an empty list means everything only before.
    pub explicit: bool,
    pub held: Holdings,
    /// Names the client waits to hear of, even if only that they do not exist.
    owed: BTreeSet<Name>,
    /// The client waits for a response, even an empty one.
    pub answer_due: bool,
    pub outstanding: Option<Outstanding>,
    pub rejected: BTreeMap<Name, Version>,
    changes: Changes,
    compared: Option<Arc<Resources>>,
    stale: bool,
}

/// A response the client has not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Outstanding {
    pub nonce: String,
    pub generation: u64,
    pub sent: Vec<Name>,
}

/// What is to be told to the client.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub upserts: Vec<Resource>,
    /// Those of the upserts that the client had no version of.
    pub new: Vec<Name>,
    pub removed: Vec<Name>,
    pub refusals: Vec<(Name, i32, String)>,
}

#[derive(Debug, Default)]
struct Changes {
    upserts: VecDeque<Resource>,
    /// Names asked for that do not exist: told at once.
    absent: Vec<(Name, Absence)>,
    /// Names the client has that are gone: told last.
    removals: Vec<Name>,
    /// Some name is pending, so the next view matters even if its map is the same.
    waiting: bool,
}

impl Subscription {
    pub(super) fn new() -> Self {
        Subscription { answer_due: true, stale: true, ..Subscription::default() }
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn want_all(&mut self) {
        self.wildcard = true;
        self.answer_due = true;
        self.stale = true;
    }

    /// Adds a name. One that was sent before is sent again: the client may have dropped it in between.
    pub(super) fn want(&mut self, name: &Name) {
        self.names.insert(name.clone());
        self.held.remove(name);
        self.owed.insert(name.clone());
        self.stale = true;
    }

    pub(super) fn unwant_all(&mut self) {
        self.wildcard = false;
        self.held.keep(&self.names);
        self.rejected.retain(|name, _| self.names.contains(name));
        self.owed.retain(|name| self.names.contains(name));
        self.stale = true;
    }

    /// Takes a name out. Under a wildcard the client cannot know whether it still gets the resource, so it is told.
    pub(super) fn unwant(&mut self, name: &str) -> bool {
        let was = self.names.remove(name);
        self.rejected.remove(name);
        self.held.remove(name);
        if self.wildcard {
            self.owed.insert(name.into());
        } else {
            self.owed.remove(name);
        }
        self.stale = true;
        was
    }

    /// What the client has of these names is to be sent again.
    pub(super) fn resend<'a>(&mut self, names: impl Iterator<Item = &'a Name>) {
        for name in names.filter(|name| self.held.contains(name)) {
            self.owed.insert(name.clone());
            self.stale = true;
        }
    }

    /// The client has these versions from an earlier stream, sorted by name; of what is `there` names and versions are shared. As a rule
    /// it has all of it: thousands may come back at once.
    pub(super) fn resume<'a>(
        &mut self,
        versions: impl Iterator<Item = (&'a str, &'a str)>,
        there: Option<&Arc<Resources>>,
    ) {
        // One pass over both, where that is not for a few names.
        let mut offered = there.filter(|_| self.wildcard).into_iter().flat_map(|map| map.iter()).peekable();
        let mut same = |(name, version): (&'a str, &'a str)| {
            while offered.next_if(|resource| *resource.name < *name).is_some() {}
            let next = offered.peek().copied().filter(|resource| *resource.name == *name);
            let found = if self.wildcard { next } else { there.and_then(|map| map.get(name)) };
            (name, version, found.filter(|resource| *resource.version == *version))
        };
        let versions: Vec<_> = versions.map(&mut same).collect();
        let mut has_all = false;
        if let Some(map) = there.filter(|_| self.wildcard && self.names.is_empty() && self.owed.is_empty()) {
            has_all = versions.iter().filter(|(.., known)| known.is_some()).count() == map.len();
            if has_all {
                self.held.settle(map);
            }
        }
        for (name, version, known) in versions {
            if (has_all && known.is_some()) || !self.wants(name) {
                continue;
            }
            self.owed.remove(name);
            let (name, version) = match known {
                Some(resource) => (resource.name.clone(), resource.version.clone()),
                None => (name.into(), version.into()),
            };
            self.held.insert(name, Held { version, body: Bytes::new() });
        }
        self.stale = true;
    }

    /// There is a new view.
    pub(super) fn view_changed(&mut self, map: Option<&Arc<Resources>>) {
        let same = match (map, &self.compared) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (None, None) => true,
            _ => false,
        };
        self.stale |= !same || self.changes.waiting || !self.owed.is_empty();
    }

    /// Computes the difference anew if anything it depends on has changed.
    pub(super) fn refresh(&mut self, view: &dyn ResourceView, type_url: &str) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let map = view.resources(type_url);
        let none = Resources::default();
        let absence = |name: &str| view.absence(type_url, name);
        let hint = map.as_ref().zip(self.held.settled().filter(|_| self.wildcard));
        let hint = hint.and_then(|(map, held)| map.changed_since(held));
        let there = map.as_deref().unwrap_or(&none);
        self.changes = match hint {
            Some(changed) => self.difference_among(&changed, there, absence),
            None => self.difference(there, absence),
        };
        self.compared = map;
        // The client may have all of it already, from an earlier stream.
        self.settle();
    }

    pub(super) fn has_updates(&self) -> bool {
        self.answer_due || !self.changes.upserts.is_empty() || !self.changes.absent.is_empty()
    }

    pub(super) fn has_removals(&self) -> bool {
        !self.changes.removals.is_empty()
    }

    /// Takes additions, changes and answers out, as many as fit into `bytes`, and counts them as held.
    pub(super) fn take_updates(&mut self, bytes: usize, keep_bodies: bool) -> Batch {
        let mut batch = Batch::default();
        let mut size = 0;
        while let Some(resource) = self.changes.upserts.front() {
            size += resource.name.len() + resource.version.len() + resource.body.len();
            if size > bytes && !batch.upserts.is_empty() {
                break;
            }
            let Some(resource) = self.changes.upserts.pop_front() else {
                break;
            };
            let body = if keep_bodies { resource.body.clone() } else { Bytes::new() };
            let held = Held { version: resource.version.clone(), body };
            if self.held.insert(resource.name.clone(), held) {
                batch.new.push(resource.name.clone());
            }
            self.owed.remove(&resource.name);
            self.rejected.remove(&resource.name);
            batch.upserts.push(resource);
        }
        if self.changes.upserts.is_empty() {
            self.changes.upserts = VecDeque::new();
            for (name, absence) in std::mem::take(&mut self.changes.absent) {
                self.forget(&name);
                if let Absence::Refused { code, message } = absence {
                    batch.refusals.push((name.clone(), code, message));
                }
                batch.removed.push(name);
            }
            self.answer_due = false;
        }
        self.settle();
        batch
    }

    /// Once all of a view was sent to one who wants all of it, it has exactly that.
    fn settle(&mut self) {
        let changes = &self.changes;
        let told = changes.upserts.is_empty() && changes.absent.is_empty() && changes.removals.is_empty();
        if let Some(map) = self.compared.as_ref().filter(|_| self.wildcard && told && !changes.waiting && !self.stale) {
            self.held.settle(map);
        }
    }

    /// Takes removals out, as many as fit into `bytes`, and forgets the names.
    pub(super) fn take_removals(&mut self, bytes: usize) -> Vec<Name> {
        let mut size = 0;
        let mut fit = 0;
        for name in &self.changes.removals {
            size += name.len() + 8;
            if size > bytes && fit > 0 {
                break;
            }
            fit += 1;
        }
        let removed: Vec<Name> = self.changes.removals.drain(..fit).collect();
        for name in &removed {
            self.forget(name);
        }
        self.settle();
        removed
    }

    /// The client refused a response, or parts of it.
    pub(super) fn refused(&mut self, response: &Outstanding, nack: &Nack) {
        for name in &response.sent {
            // A client that names nothing has refused everything, as far as we can know.
            let refused = nack.names.is_empty() || nack.names.iter().any(|n| **n == **name);
            if let (true, Some(version)) = (refused, self.held.version(name)) {
                self.rejected.insert(name.clone(), version.clone());
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.held.remove(name);
        self.owed.remove(name);
        self.rejected.remove(name);
    }

    fn difference(&self, map: &Resources, absence: impl Fn(&str) -> Absence) -> Changes {
        let mut changes = Changes::default();
        let owed = |name: &Name| !self.owed.is_empty() && self.owed.contains(name);
        let mut gone: Vec<&Name> = Vec::new();
        if self.wildcard {
            // Both are sorted: one pass.
            let mut held = self.held.iter().peekable();
            for resource in map.iter() {
                while let Some((name, ..)) = held.next_if(|(name, ..)| **name < resource.name) {
                    gone.push(name);
                }
                let had = held.next_if(|(name, ..)| **name == resource.name);
                let same = had.is_some_and(|(_, version, _)| *version == resource.version);
                if !same || owed(&resource.name) {
                    changes.upserts.push_back(resource.clone());
                }
            }
            gone.extend(held.map(|(name, ..)| name));
        } else {
            for resource in self.names.iter().filter_map(|name| map.get(name)) {
                let held = self.held.version(&resource.name);
                if held.is_none_or(|version| *version != resource.version) || owed(&resource.name) {
                    changes.upserts.push_back(resource.clone());
                }
            }
            gone.extend(self.held.iter().map(|(name, ..)| name).filter(|name| !map.contains(name)));
        }
        self.finish(&mut changes, gone, map, absence);
        changes
    }

    /// As [`Self::difference`], where only these names can differ. This is done for every client at every change.
    fn difference_among(&self, names: &[Name], map: &Resources, absence: impl Fn(&str) -> Absence) -> Changes {
        let mut changes = Changes::default();
        let owed: Vec<Name> = self.owed.iter().filter(|name| names.binary_search(name).is_err()).cloned().collect();
        let mut gone: Vec<&Name> = Vec::new();
        let mut all: Vec<&Name> = names.iter().chain(&owed).collect();
        all.sort();
        for name in all {
            match map.get(name) {
                Some(resource) => {
                    let same = self.held.version(name) == Some(&resource.version);
                    if !same || self.owed.contains(name) {
                        changes.upserts.push_back(resource.clone());
                    }
                }
                None if self.held.contains(name) => gone.push(name),
                None => {}
            }
        }
        self.finish(&mut changes, gone, map, absence);
        changes
    }

    /// What is not there (any more).
    fn finish(&self, changes: &mut Changes, gone: Vec<&Name>, map: &Resources, absence: impl Fn(&str) -> Absence) {
        for name in self.owed.iter().filter(|name| !map.contains(name)) {
            match absence(name) {
                Absence::Pending => changes.waiting = true,
                told => changes.absent.push((name.clone(), told)),
            }
        }
        for name in gone.into_iter().filter(|name| !self.owed.contains(*name)) {
            match absence(name) {
                Absence::Pending => changes.waiting = true,
                _ => changes.removals.push(name.clone()),
            }
        }
    }
}
