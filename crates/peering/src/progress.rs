//! How far a peer's word has been heard: a number that its cluster gives to each state it tells, and when that state is whole here.
//!
//! A state comes in several responses, one or more a kind, and the number in one of them; it counts only when what is held is what
//! it was given to. Invariant: who holds `Told { n }` of a peer holds everything that the peer told up to `n`.

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

/// What travels: the number, and what it was given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub told: Told,
    pub content: Content,
}

/// A fingerprint of a set of resources, whatever their order; one is taken in or out at a time. Against loss, not against malice: a
/// peer speaks for itself only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content(u64);

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
        let earlier = Told { incarnation: 1, sequence: 99 };
        assert!(earlier < Told { incarnation: 2, sequence: 1 });
    }
}
