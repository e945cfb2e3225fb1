//! How far a peer's word has been heard: a number that its cluster gives to each state it tells, and when that state is whole here.
//!
//! A state comes in several responses, one or more a kind, and the number in one of them; it counts only when what is held is what
//! it was given to. Each replica of a peer numbers its own states, by its clock: of two that tell the same the numbers may differ, so
//! what is compared first is what was told. Invariant: who holds `Told { n }` of a peer's replica holds everything that it told up to `n`.

use fairlead_proto::ResourceType;
use fairlead_xds::Resource;
use serde::{Deserialize, Serialize};

/// What was heard last. Ordered: a later life of the peer beats all of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Told {
    /// The peer's incarnation.
    pub incarnation: u64,
    /// Grows with every state that it tells.
    pub sequence: u64,
}

/// A state that was heard whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    #[serde(flatten)]
    pub told: Told,
    /// What it was; none where it is not known any more.
    #[serde(default)]
    pub content: Option<Content>,
}

impl Heard {
    /// Whether nothing of `other` is missing here: it is the same state, whoever numbered it, or an earlier one.
    pub fn covers(&self, other: &Self) -> bool {
        let same = self.content.is_some() && self.content == other.content;
        same && self.told.incarnation == other.told.incarnation || self.told >= other.told
    }
}

/// What travels: the number, and what it was given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub told: Told,
    pub content: Content,
}

/// A fingerprint of a set of resources, whatever their order; one is taken in or out at a time. Against loss, not against malice: a
/// peer speaks for itself only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content(pub u64);

impl Content {
    /// Takes one in.
    pub fn add(&mut self, kind: ResourceType, resource: &Resource) {
        self.0 = self.0.wrapping_add(mark(kind, &resource.name, &resource.version));
    }

    /// Takes one out, by what it was.
    pub fn remove(&mut self, kind: ResourceType, name: &str, version: &str) {
        self.0 = self.0.wrapping_sub(mark(kind, name, version));
    }
}

/// FNV-1a over kind, name and version; the version is a digest of the content.
fn mark(kind: ResourceType, name: &str, version: &str) -> u64 {
    let parts = [kind.url().as_bytes(), &[0], name.as_bytes(), &[0], version.as_bytes()];
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_one_fingerprint() {
        let resource = |name: &str, version: &str| Resource::new(name, version, &b""[..]);
        let kind = ResourceType::PeerEndpoint;
        let (mut a, mut b) = (Content::default(), Content::default());
        for (name, version) in [("x", "1"), ("y", "2"), ("z", "3")] {
            a.add(kind, &resource(name, version));
        }
        for (name, version) in [("z", "3"), ("y", "9"), ("x", "1")] {
            b.add(kind, &resource(name, version));
        }
        assert_ne!(a, b);
        b.remove(kind, "y", "9");
        b.add(kind, &resource("y", "2"));
        assert_eq!(a, b);
        let mut c = a;
        c.remove(kind, "x", "1");
        c.add(ResourceType::PeerServiceSummary, &resource("x", "1"));
        assert_ne!(a, c, "the kind counts");
        let heard = |sequence, content| Heard { told: Told { incarnation: 1, sequence }, content };
        assert!(heard(5, None).covers(&heard(5, None)) && !heard(4, None).covers(&heard(5, None)));
        assert!(heard(4, Some(a)).covers(&heard(5, Some(a))), "the same, by another replica's number");
        assert!(!heard(4, Some(a)).covers(&heard(5, Some(c))) && heard(6, Some(a)).covers(&heard(5, Some(c))));
        let anew = Heard { told: Told { incarnation: 2, sequence: 5 }, content: Some(a) };
        assert!(!heard(9, Some(a)).covers(&anew), "of a later life");
        let json = serde_json::to_string(&anew).unwrap();
        assert_eq!(serde_json::from_str::<Heard>(&json).unwrap(), anew);
        assert_eq!(serde_json::from_str::<Heard>(r#"{"incarnation":1,"sequence":5}"#).unwrap(), heard(5, None));
        let earlier = Told { incarnation: 1, sequence: 99 };
        assert!(earlier < Told { incarnation: 2, sequence: 1 });
    }
}
