//! The labels of a workload: those it was written with, which its template gives to many, and those of its place, which its node does.
//!
//! Invariant: reads, compares, hashes and is written as one map, in which a label of the place stands before one of the same name.

use crate::matching::{LabelSource, Labels};
use crate::shared::Shared;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};

/// Labels of one workload or endpoint.
#[derive(Clone, Default)]
pub struct WorkloadLabels {
    written: Shared<Labels>,
    place: Shared<Labels>,
}

impl WorkloadLabels {
    /// Both are pooled.
    pub fn new(mut written: Shared<Labels>, mut place: Shared<Labels>) -> Self {
        written.pool();
        place.pool();
        Self { written, place }
    }

    pub fn get(&self, key: &str) -> Option<&String> {
        self.place.get(key).or_else(|| self.written.get(key))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        let (mut written, mut place) = (self.written.iter().peekable(), self.place.iter().peekable());
        std::iter::from_fn(move || match (written.peek(), place.peek()) {
            (Some((below, _)), Some((over, _))) => {
                if below < over {
                    return written.next();
                }
                if below == over {
                    written.next();
                }
                place.next()
            }
            (Some(_), None) => written.next(),
            (None, _) => place.next(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.place.is_empty()
    }

    /// As one map.
    pub fn to_map(&self) -> Labels {
        self.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl LabelSource for WorkloadLabels {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl From<Labels> for WorkloadLabels {
    fn from(labels: Labels) -> Self {
        Self::new(Shared::new(labels), Shared::default())
    }
}

impl PartialEq for WorkloadLabels {
    fn eq(&self, other: &Self) -> bool {
        (self.written.is_same(&other.written) && self.place.is_same(&other.place)) || self.iter().eq(other.iter())
    }
}

impl Eq for WorkloadLabels {}

impl PartialOrd for WorkloadLabels {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WorkloadLabels {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.iter().cmp(other.iter())
    }
}

impl Hash for WorkloadLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (key, value) in self.iter() {
            key.hash(state);
            value.hash(state);
        }
        // Where they end is part of what they are, for whoever hashes something after them.
        state.write_usize(self.iter().count());
    }
}

impl fmt::Debug for WorkloadLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for WorkloadLabels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for WorkloadLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Labels::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(labels: &[(&str, &str)]) -> Labels {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_read_as_one_map() {
        let written = map(&[("app", "a"), ("region", "mine"), ("version", "v1")]);
        let place = map(&[("node", "n1"), ("region", "eu")]);
        let labels = WorkloadLabels::new(written.into(), place.into());
        let one = map(&[("app", "a"), ("node", "n1"), ("region", "eu"), ("version", "v1")]);
        assert_eq!(labels.to_map(), one);
        assert_eq!(labels, WorkloadLabels::from(one.clone()));
        assert_eq!(labels.get("region").map(String::as_str), Some("eu"));
        let text = serde_json::to_string(&labels).unwrap();
        assert_eq!(text, serde_json::to_string(&one).unwrap());
        assert_eq!(serde_json::from_str::<WorkloadLabels>(&text).unwrap(), labels);
        assert!(labels.clone() < WorkloadLabels::from(map(&[("b", "")])) && WorkloadLabels::default().is_empty());
    }
}
