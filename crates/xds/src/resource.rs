//! What discovery carries: a name, a version, and bytes it never looks into.
//!
//! Everything is shared by reference: one resource is one allocation however many streams hold it, and what many views have in common
//! is one map below theirs. Invariants: two resources of one type, name and version have the same body; whoever makes versions answers
//! for it. What a map says of an earlier one is true or not said.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// The name of a resource, unique within its type.
pub type Name = Arc<str>;

/// The version of a resource: compared for equality only.
pub type Version = Arc<str>;

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Name within its type.
    pub name: Name,
    /// Changes whenever the body does.
    pub version: Version,
    /// The encoded `google.protobuf.Any`.
    pub body: Bytes,
}

/// The resources of one type, by name. Shared as `Arc<Resources>`: a view that leaves a type alone shares the map
/// of the view before, and streams see at once that there is nothing to do.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    by_name: BTreeMap<Name, Resource>,
    /// Resources that other maps have too; one in `by_name` of the same name stands before it.
    below: Option<Arc<Resources>>,
    /// How it differs from an earlier map, if that is known.
    since: Option<Since>,
}

#[derive(Clone, Debug)]
struct Since {
    /// Never read: the allocation stays as long as this does, so that no other map can have its address.
    earlier: Weak<Resources>,
    changed: Arc<[Name]>,
}

impl Resource {
    /// A resource; `body` is an encoded `Any`.
    pub fn new(name: impl Into<Name>, version: impl Into<Version>, body: impl Into<Bytes>) -> Self {
        Resource { name: name.into(), version: version.into(), body: body.into() }
    }
}

impl Resources {
    /// These, and those of `below` that have other names.
    pub fn above(below: Arc<Resources>, own: impl IntoIterator<Item = Resource>) -> Self {
        Resources { below: Some(below), ..own.into_iter().collect() }
    }

    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Resource> {
        self.by_name.get(name).or_else(|| self.below.as_ref()?.get(name))
    }

    /// Whether there is a resource of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a resource or replaces the one of its name.
    pub fn insert(&mut self, resource: Resource) {
        self.since = None;
        self.by_name.insert(resource.name.clone(), resource);
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        let mut own = self.by_name.values().peekable();
        let mut below = self.below.as_ref().map(|below| Box::new(below.iter()) as Box<dyn Iterator<Item = &Resource>>);
        let mut next_below = below.as_mut().and_then(Iterator::next);
        std::iter::from_fn(move || {
            while let (Some(under), Some(over)) = (next_below, own.peek())
                && under.name == over.name
            {
                next_below = below.as_mut().and_then(Iterator::next);
            }
            match (next_below, own.peek()) {
                (Some(under), Some(over)) if under.name < over.name => {
                    next_below = below.as_mut().and_then(Iterator::next);
                    Some(under)
                }
                (Some(under), None) => {
                    next_below = below.as_mut().and_then(Iterator::next);
                    Some(under)
                }
                _ => own.next(),
            }
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.below {
            None => self.by_name.len(),
            Some(_) => self.iter().count(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.below.as_ref().is_none_or(|below| below.is_empty())
    }

    /// Whether it is what [`Resources::above`] makes of these, whose names are all different, by name and version.
    pub fn is_above(&self, below: &Arc<Resources>, own: &[Resource]) -> bool {
        self.below.as_ref().is_some_and(|known| Arc::ptr_eq(known, below))
            && self.by_name.len() == own.len()
            && own.iter().all(|new| self.by_name.get(&new.name).is_some_and(|known| known.version == new.version))
    }

    /// The map after `earlier`: that one itself if nothing differs by name and version, else this one, which then knows how it differs.
    pub fn after(mut self, earlier: &Arc<Resources>) -> Arc<Self> {
        let changed = self.compared(earlier);
        if changed.is_empty() {
            return earlier.clone();
        }
        self.since = Some(Since { earlier: Arc::downgrade(earlier), changed: changed.into() });
        Arc::new(self)
    }

    /// `earlier` with these instead of those of the same names, or besides: for a few among many.
    pub fn with(earlier: &Arc<Resources>, resources: impl IntoIterator<Item = Resource>) -> Arc<Self> {
        let news: Vec<Resource> = resources
            .into_iter()
            .filter(|new| earlier.get(&new.name).is_none_or(|old| old.version != new.version))
            .collect();
        if news.is_empty() {
            return earlier.clone();
        }
        let mut changed: Vec<Name> = news.iter().map(|resource| resource.name.clone()).collect();
        changed.sort();
        let mut next = (**earlier).clone();
        next.by_name.extend(news.into_iter().map(|resource| (resource.name.clone(), resource)));
        next.since = Some(Since { earlier: Arc::downgrade(earlier), changed: changed.into() });
        Arc::new(next)
    }

    /// Names, sorted, that may differ from `earlier`; no other does. `None`: not known without comparing.
    pub(crate) fn changed_since(&self, earlier: &Arc<Resources>) -> Option<Vec<Name>> {
        if std::ptr::eq(self, Arc::as_ptr(earlier)) {
            return Some(Vec::new());
        }
        if let Some(since) = self.since.as_ref().filter(|since| since.earlier.as_ptr() == Arc::as_ptr(earlier)) {
            return Some(since.changed.to_vec());
        }
        let (now, then) = (self.below.as_ref()?, earlier.below.as_ref()?);
        let mut changed = if Arc::ptr_eq(now, then) { Vec::new() } else { now.changed_since(then)? };
        changed.extend(self.by_name.keys().chain(earlier.by_name.keys()).cloned());
        changed.sort();
        changed.dedup();
        Some(changed)
    }

    /// Names that only one of the two has, or both at different versions.
    fn compared(&self, other: &Resources) -> Vec<Name> {
        let mut changed = Vec::new();
        let mut theirs = other.iter().peekable();
        for own in self.iter() {
            while let Some(gone) = theirs.next_if(|theirs| theirs.name < own.name) {
                changed.push(gone.name.clone());
            }
            let same = theirs.next_if(|theirs| theirs.name == own.name).is_some_and(|t| t.version == own.version);
            if !same {
                changed.push(own.name.clone());
            }
        }
        changed.extend(theirs.map(|gone| gone.name.clone()));
        changed
    }
}

impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        if self.below.is_none() && other.below.is_none() {
            return self.by_name == other.by_name;
        }
        self.iter().eq(other.iter())
    }
}

impl Eq for Resources {}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let by_name = resources.into_iter().map(|r| (r.name.clone(), r)).collect();
        Resources { by_name, ..Resources::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(resources: &[(&str, &str)]) -> Resources {
        resources.iter().map(|(name, version)| Resource::new(*name, *version, &b"x"[..])).collect()
    }

    fn texts(resources: &Resources) -> Vec<String> {
        resources.iter().map(|r| format!("{}{}", r.name, r.version)).collect()
    }

    fn names(names: Option<Vec<Name>>) -> Option<Vec<String>> {
        names.map(|names| names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_map_above_another_reads_as_one() {
        let below = Arc::new(map(&[("a", "1"), ("c", "1"), ("e", "1")]));
        let above = Resources::above(below.clone(), map(&[("b", "2"), ("c", "2"), ("f", "2")]).by_name.into_values());
        assert_eq!(texts(&above), ["a1", "b2", "c2", "e1", "f2"]);
        assert_eq!(above.len(), 5);
        assert_eq!(&*above.get("c").unwrap().version, "2");
        assert_eq!(&*above.get("e").unwrap().version, "1");
        assert_eq!(above, map(&[("a", "1"), ("b", "2"), ("c", "2"), ("e", "1"), ("f", "2")]));
        assert_eq!(texts(&Resources::above(below.clone(), [])), ["a1", "c1", "e1"]);
        let own = |version: &str| [Resource::new("b", version, &b"x"[..])];
        let above = Resources::above(below.clone(), own("1"));
        assert!(
            above.is_above(&below, &own("1")) && !above.is_above(&below, &own("2")) && !above.is_above(&below, &[])
        );
        assert!(!above.is_above(&Arc::new((*below).clone()), &own("1")));
    }

    #[test]
    fn a_map_knows_how_it_differs_from_the_one_before() {
        let first = Arc::new(map(&[("a", "1"), ("b", "1"), ("c", "1")]));
        assert!(Arc::ptr_eq(&map(&[("a", "1"), ("b", "1"), ("c", "1")]).after(&first), &first));
        let second = map(&[("a", "1"), ("b", "2"), ("d", "1")]).after(&first);
        assert_eq!(names(second.changed_since(&first)), Some(vec!["b".into(), "c".into(), "d".into()]));
        let third = Resources::with(&second, [Resource::new("b", "3", &b"y"[..]), Resource::new("a", "1", &b"x"[..])]);
        assert_eq!(names(third.changed_since(&second)), Some(vec!["b".into()]));
        assert_eq!(names(third.changed_since(&first)), None, "two steps are compared");
        assert_eq!(names(third.changed_since(&third)), Some(Vec::new()));
        assert_eq!(texts(&third), ["a1", "b3", "d1"]);
        assert!(Arc::ptr_eq(&Resources::with(&third, [Resource::new("b", "3", &b"y"[..])]), &third));
    }

    #[test]
    fn maps_above_differ_as_those_below_and_their_own() {
        let first = Arc::new(map(&[("a", "1"), ("b", "1")]));
        let second = Resources::with(&first, [Resource::new("b", "2", &b"y"[..])]);
        let own = |version: &str| [Resource::new("z", version, &b"x"[..])];
        let before = Arc::new(Resources::above(first.clone(), own("1")));
        let after = Resources::above(second, own("1"));
        assert_eq!(names(after.changed_since(&before)), Some(vec!["b".into(), "z".into()]));
        assert_eq!(names(Resources::above(first, own("2")).changed_since(&before)), Some(vec!["z".into()]));
    }
}
