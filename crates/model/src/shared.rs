//! Values that many things have in common, held once: a cluster of ten thousand pods has few templates, nodes and accounts.
//!
//! Never changes what a value is: shared or not, it compares, hashes and is written as the value itself. Invariant: what is pooled
//! is forgotten when nothing else holds it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::{Any, TypeId};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Text that several things may hold.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(Arc<str>);

/// A value that several things may hold; who changes it gets a copy of its own.
#[derive(Default)]
pub struct Shared<T>(Arc<T>);

impl Text {
    /// The one copy of this text: for what recurs, such as names of nodes, accounts and namespaces.
    pub fn pooled(text: &str) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        let pool = pool::<str>();
        let mut pool = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pool.known.get(text) {
            return Self(known.clone());
        }
        Self(pool.add(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// Whether it is the same copy.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Eq + Hash + Send + Sync + 'static> Shared<T> {
    /// The one copy of this value.
    pub fn pooled(value: T) -> Self {
        let pool = pool::<T>();
        let mut pool = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pool.known.get(&value) {
            return Self(known.clone());
        }
        Self(pool.add(Arc::new(value)))
    }

    /// Its equal that everybody holds.
    pub fn pool(&mut self) {
        let pool = pool::<T>();
        let mut pool = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pool.known.get(&*self.0) {
            Some(known) => self.0 = known.clone(),
            None => drop(pool.add(self.0.clone())),
        }
    }
}

/// All values of one type that are held somewhere, and some that were until lately.
struct Pool<T: ?Sized>(Mutex<Known<T>>);

struct Known<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// At this many those that nobody holds are forgotten.
    sweep_at: usize,
}

/// As many are not worth looking through.
const FEW: usize = 256;

impl<T: Eq + Hash + ?Sized> Known<T> {
    fn add(&mut self, value: Arc<T>) -> Arc<T> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = self.known.len() * 2 + FEW;
        }
        self.known.insert(value.clone());
        value
    }
}

/// Pools by the type of their values.
static POOLS: LazyLock<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>> = LazyLock::new(Mutex::default);

fn pool<T: Eq + Hash + Send + Sync + ?Sized + 'static>() -> Arc<Pool<T>> {
    let new = || -> Arc<dyn Any + Send + Sync> {
        Arc::new(Pool::<T>(Mutex::new(Known { known: HashSet::new(), sweep_at: FEW })))
    };
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let found = pools.entry(TypeId::of::<T>()).or_insert_with(new).clone();
    drop(pools);
    // Its key says that it is one; another would only share less.
    found.downcast().unwrap_or_else(|_| Arc::new(Pool(Mutex::new(Known { known: HashSet::new(), sweep_at: FEW }))))
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self(text.as_str().into())
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0.as_ref().to_owned()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<Text> for String {
    fn eq(&self, other: &Text) -> bool {
        **self == *other.0
    }
}

impl PartialEq<Text> for str {
    fn eq(&self, other: &Text) -> bool {
        *self == *other.0
    }
}

impl PartialEq<Text> for &str {
    fn eq(&self, other: &Text) -> bool {
        **self == *other.0
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || *self.0 == *other.0
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: PartialEq> PartialEq<T> for Shared<T> {
    fn eq(&self, other: &T) -> bool {
        *self.0 == *other
    }
}

impl<T: Ord> PartialOrd for Shared<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for Shared<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T: Hash> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<A, T: FromIterator<A>> FromIterator<A> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = A>>(all: I) -> Self {
        Self::new(all.into_iter().collect())
    }
}

impl<'a, T> IntoIterator for &'a Shared<T>
where
    &'a T: IntoIterator,
{
    type Item = <&'a T as IntoIterator>::Item;
    type IntoIter = <&'a T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        (&*self.0).into_iter()
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de> + Eq + Hash + Send + Sync + 'static> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::pooled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn equal_values_are_pooled_and_copies_are_not() {
        let map = |value: u16| BTreeMap::from([(80, value)]);
        let mut first = Shared::pooled(map(1));
        let second = Shared::pooled(map(1));
        assert!(first.is_same(&second));
        first.insert(80, 2);
        assert_eq!((first[&80], second[&80]), (2, 1));
        assert_eq!(first, Shared::new(map(2)));
        first.pool();
        assert!(first.is_same(&Shared::pooled(map(2))));
    }

    #[test]
    fn texts_read_as_texts() {
        let text = Text::pooled("node-1");
        assert!(Arc::ptr_eq(&text.0, &Text::pooled("node-1").0));
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"node-1\"");
        assert_eq!((text.as_str(), &text), ("node-1", &serde_json::from_str::<Text>("\"node-1\"").unwrap()));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        struct Own(usize);
        let held = Shared::pooled(Own(0));
        for number in 1..10 * FEW {
            drop(Shared::pooled(Own(number)));
        }
        assert!(held.is_same(&Shared::pooled(Own(0))));
        assert!(pool::<Own>().0.lock().unwrap().known.len() <= 2 * FEW + 2);
    }
}
