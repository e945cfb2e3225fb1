//! What one client wants of one type, what it has, and the difference to what there is.
//!
//! The one subscription core: wildcard, legacy wildcard, names, names that do not exist yet. It knows no encoding.
//! Invariant: `held` is what the client has or has been sent; a difference is computed from `held` and a view
//! alone, so it never matters how often, or from which server, the client got there.

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
    pub held: BTreeMap<Name, Held>,
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

/// What the client has of one resource.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub version: Version,
    /// Kept only where responses carry the full state; else empty.
    pub body: Bytes,
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
        self.held.retain(|name, _| self.names.contains(name));
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
        for name in names.filter(|name| self.held.contains_key(*name)) {
            self.owed.insert(name.clone());
            self.stale = true;
        }
    }

    /// The client has these versions from an earlier stream.
    pub(super) fn resume(&mut self, versions: impl Iterator<Item = (Name, Version)>) {
        for (name, version) in versions {
            if self.wants(&name) {
                self.owed.remove(&name);
                self.held.insert(name, Held { version, body: Bytes::new() });
            }
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
        self.changes = self.difference(map.as_deref().unwrap_or(&none), |name| view.absence(type_url, name));
        self.compared = map;
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
            if self.held.insert(resource.name.clone(), held).is_none() {
                batch.new.push(resource.name.clone());
            }
            self.owed.remove(&resource.name);
            self.rejected.remove(&resource.name);
            batch.upserts.push(resource);
        }
        if self.changes.upserts.is_empty() {
            for (name, absence) in std::mem::take(&mut self.changes.absent) {
                self.forget(&name);
                if let Absence::Refused { code, message } = absence {
                    batch.refusals.push((name.clone(), code, message));
                }
                batch.removed.push(name);
            }
            self.answer_due = false;
        }
        batch
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
        removed
    }

    /// The client refused a response, or parts of it.
    pub(super) fn refused(&mut self, response: &Outstanding, nack: &Nack) {
        for name in &response.sent {
            // A client that names nothing has refused everything, as far as we can know.
            let refused = nack.names.is_empty() || nack.names.iter().any(|n| **n == **name);
            if let (true, Some(held)) = (refused, self.held.get(name)) {
                self.rejected.insert(name.clone(), held.version.clone());
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
            // Both are sorted: one pass, since this is done for every client at every change.
            let mut held = self.held.iter().peekable();
            for resource in map.iter() {
                while let Some((name, _)) = held.next_if(|(name, _)| **name < resource.name) {
                    gone.push(name);
                }
                let had = held.next_if(|(name, _)| **name == resource.name);
                let same = had.is_some_and(|(_, held)| held.version == resource.version);
                if !same || owed(&resource.name) {
                    changes.upserts.push_back(resource.clone());
                }
            }
            gone.extend(held.map(|(name, _)| name));
        } else {
            for resource in self.names.iter().filter_map(|name| map.get(name)) {
                let held = self.held.get(&resource.name);
                if held.is_none_or(|held| held.version != resource.version) || owed(&resource.name) {
                    changes.upserts.push_back(resource.clone());
                }
            }
            gone.extend(self.held.keys().filter(|name| !map.contains(name)));
        }
        for name in self.owed.iter().filter(|name| !map.contains(name)) {
            match absence(name) {
                Absence::Pending => changes.waiting = true,
                told => changes.absent.push((name.clone(), told)),
            }
        }
        gone.retain(|name| !owed(name));
        for name in gone {
            match absence(name) {
                Absence::Pending => changes.waiting = true,
                _ => changes.removals.push(name.clone()),
            }
        }
        changes
    }
}
