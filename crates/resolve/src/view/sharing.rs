//! What did not change is the same allocation as before.
//!
//! Never changes a value. Invariant: the result equals the input; memoisation downstream may compare by pointer first.

use fairlead_model::gateway::GatewayConfig;
use fairlead_model::origin::ObjectKey;
use fairlead_model::route::RouteSet;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Values by key.
pub(super) fn map<K: Ord, V: Eq>(new: BTreeMap<K, V>, old: Option<&BTreeMap<K, Arc<V>>>) -> BTreeMap<K, Arc<V>> {
    let share = |key: &K, value: V| match old.and_then(|old| old.get(key)) {
        Some(known) if **known == value => known.clone(),
        _ => Arc::new(value),
    };
    new.into_iter()
        .map(|(key, value)| {
            let shared = share(&key, value);
            (key, shared)
        })
        .collect()
}

/// Values by key that are shared already, perhaps with something else. As a rule they are, and then the map stays too.
pub(crate) fn arcs<K: Ord + Clone, V: Eq>(
    mut new: Arc<BTreeMap<K, Arc<V>>>,
    old: Option<&Arc<BTreeMap<K, Arc<V>>>>,
) -> Arc<BTreeMap<K, Arc<V>>> {
    let Some(old) = old.filter(|old| !Arc::ptr_eq(old, &new)) else { return new };
    let mut olds = old.iter().peekable();
    let (mut equal, mut same) = (Vec::new(), 0);
    for (key, value) in new.iter() {
        while olds.next_if(|(other, _)| *other < key).is_some() {}
        let Some((_, known)) = olds.next_if(|(other, _)| *other == key) else { continue };
        if Arc::ptr_eq(known, value) {
            same += 1;
        } else if known == value {
            equal.push((key.clone(), known.clone()));
        }
    }
    if same + equal.len() == new.len() && new.len() == old.len() {
        return old.clone();
    }
    if !equal.is_empty() {
        let new = Arc::make_mut(&mut new);
        for (key, known) in equal {
            new.insert(key, known);
        }
    }
    new
}

/// Lists of things that come from one object each.
pub(super) fn list<V: FromObject + Eq>(new: &[Arc<V>], old: Option<&[Arc<V>]>) -> Vec<Arc<V>> {
    let known: HashMap<&ObjectKey, &Arc<V>> =
        old.unwrap_or_default().iter().map(|value| (value.object(), value)).collect();
    let share = |value: &Arc<V>| match known.get(value.object()) {
        Some(known) if *known == value => (*known).clone(),
        _ => value.clone(),
    };
    new.iter().map(share).collect()
}

/// A thing that comes from one object.
pub(super) trait FromObject {
    fn object(&self) -> &ObjectKey;
}

impl FromObject for RouteSet {
    fn object(&self) -> &ObjectKey {
        &self.origin.object
    }
}

impl FromObject for GatewayConfig {
    fn object(&self) -> &ObjectKey {
        &self.origin.object
    }
}
