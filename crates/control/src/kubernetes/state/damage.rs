//! Objects of the state that are there and cannot be read.
//!
//! Invariants: an object that cannot be read is never taken for an empty one, nor written; while one that this process has never read may
//! hold revocations, no other cluster is believed.

use super::shard::holds_members;
use crate::store::Unreadable;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Damage(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What this process has read or written: what was in it is known.
    sound: BTreeSet<String>,
    damaged: BTreeMap<String, String>,
}

impl Damage {
    /// It was read or written.
    pub fn note_known(&self, name: &str) {
        self.0.lock().sound.insert(name.to_owned());
    }

    /// It is as it should be, or not there; whether it was damaged until now.
    pub fn mended(&self, name: &str) -> bool {
        self.0.lock().damaged.remove(name).is_some()
    }

    /// It cannot be read.
    pub fn found(&self, name: &str, why: String) {
        self.0.lock().damaged.insert(name.to_owned(), why);
    }

    /// These are all that are there; whether one that was damaged is not among them.
    pub fn only(&self, there: &BTreeSet<String>) -> bool {
        let damaged = &mut self.0.lock().damaged;
        let before = damaged.len();
        damaged.retain(|name, _| there.contains(name));
        damaged.len() < before
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.lock().damaged.contains_key(name)
    }

    pub fn all(&self) -> Vec<Unreadable> {
        let known = self.0.lock();
        let unreadable = |(name, why): (&String, &String)| Unreadable {
            object: name.clone(),
            why: why.clone(),
            of_members: holds_members(name),
            is_unknown: !known.sound.contains(name),
        };
        known.damaged.iter().map(unreadable).collect()
    }
}
