//! Who belongs to the mesh: a replicated set that every control plane holds and merges.
//!
//! Of each cluster are kept the newest tombstone and, of the introductions younger than it, the newest one per authority, of the two
//! newest authorities. All of it is a maximum over a total order, so it does not matter in which order, how often, or by which way
//! statements arrive. A tombstone beats every introduction of the same or an older incarnation; only a younger incarnation,
//! introduced by a member that is still in, comes back.
//!
//! Invariants: a name that two authorities claim is nobody's, until a tombstone covers the false one; so an introduction can put a
//! member out, as a revocation can, and never puts another in its place. Only statements that were verified
//! ([`crate::introduction`]) get in.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bundle::TrustBundle;
use crate::certificate::SpkiHash;
use crate::introduction::{Introduction, SignedStatement, Statement, Tombstone};
pub use crate::member_trust::TrustPolicy;
use crate::spiffe::TrustDomain;

/// Most clusters in a mesh's membership, tombstones included.
pub const MAX_MEMBERS: usize = 4096;
/// Authorities kept of one name: two tell that it is contested.
const MAX_CLAIMS: usize = 2;

/// What is told about a member: the `Member` of the peering protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// ClusterId: a DNS label of at most 32 characters.
    pub cluster: String,
    /// Unix seconds; grows each time the cluster joins anew, or starts without its old state.
    pub incarnation: u64,
    /// 0 as introduced; counted up by the member itself with each change it tells of itself.
    #[serde(default)]
    pub revision: u64,
    #[serde(default)]
    pub state: MemberState,
    /// Its trust domain, roots and sequence.
    pub bundle: TrustBundle,
    /// The keys it issues with; tells members of a shared trust domain apart.
    #[serde(default)]
    pub issuing_keys: BTreeSet<SpkiHash>,
    /// Where its control planes listen for peers, `host:port`. Empty for a cluster that only dials out.
    #[serde(default)]
    pub control_addresses: Vec<String>,
    /// Its networks, each with the addresses of its east-west gateways, `host:port`.
    #[serde(default)]
    pub networks: BTreeMap<String, Vec<String>>,
    /// Fairlead's version there.
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
}

/// Does the member take traffic?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberState {
    #[default]
    Active,
    Draining,
}

/// The set. Equal sets are equal values, whatever the way they grew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    shared: bool,
    clusters: BTreeMap<String, Cluster>,
}

/// What a merge did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// Known already, or beaten by what is known.
    Unchanged,
    /// What is known of this cluster changed.
    Changed { cluster: String },
    /// The name is contested now: two clusters use one ClusterId, or somebody introduced a false one. Neither is a member. To be
    /// reported loudly ([`crate::TrustConflict::Contested`]).
    Clash { cluster: String },
    /// Not taken: the set is full.
    Full,
}

/// What is kept of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Cluster {
    tombstone: Option<Record<Tombstone>>,
    /// Younger than the tombstone, each of another authority, the newest first; at most [`MAX_CLAIMS`].
    introductions: Vec<Record<Member>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record<T> {
    said: T,
    signed: SignedStatement,
    rank: Rank,
}

/// How new what is known of a cluster is: the order in which its statements beat each other, but for ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    pub incarnation: u64,
    pub revoked: bool,
    pub revision: u64,
}

/// The total order of tombstones, and of introductions: incarnation, revision, then bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    incarnation: u64,
    revision: u64,
    digest: [u8; 32],
}

impl Member {
    /// Its trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// Do both speak of the same authority: one trust domain, one first root, and where trust is shared the same issuing keys?
    ///
    /// An equivalence, or the merge would depend on order. And not merely a root in common: whoever adds a root of its own to
    /// another's would pass for it.
    #[must_use]
    pub fn same_authority(&self, other: &Self, shared: bool) -> bool {
        self.trust_domain() == other.trust_domain()
            && self.first_root() == other.first_root()
            && (!shared || self.issuing_keys == other.issuing_keys)
    }

    /// The roots to believe of it. Of a member that was introduced by another only the first, which tells its authority; the others
    /// it has to tell itself, by a certificate that the first one believes.
    #[must_use]
    pub fn believed_bundle(&self) -> Cow<'_, TrustBundle> {
        if self.revision > 0 || self.bundle.roots().count() < 2 {
            return Cow::Borrowed(&self.bundle);
        }
        let first = self.bundle.roots().next().cloned();
        match TrustBundle::new(self.trust_domain().clone(), self.bundle.sequence(), first) {
            Ok(bundle) => Cow::Owned(bundle),
            // It holds that root already, so it can be read.
            Err(_) => Cow::Borrowed(&self.bundle),
        }
    }

    /// The tombstone that revokes this incarnation.
    #[must_use]
    pub fn tombstone(&self) -> Tombstone {
        Tombstone {
            cluster: self.cluster.clone(),
            incarnation: self.incarnation,
            trust_domain: self.trust_domain().clone(),
            issuing_keys: self.issuing_keys.clone(),
        }
    }

    /// The key that tells its authority from another of the same name.
    pub(crate) fn authority_key(&self, shared: bool) -> Option<SpkiHash> {
        let issuing = self.issuing_keys.first().filter(|_| shared).copied();
        issuing.or_else(|| self.first_root())
    }

    fn first_root(&self) -> Option<SpkiHash> {
        self.bundle.fingerprints().next()
    }
}

impl Membership {
    /// An empty set. `shared`: one trust domain for all (`trust: shared`), where issuing keys tell members apart.
    #[must_use]
    pub fn new(shared: bool) -> Self {
        Self { shared, clusters: BTreeMap::new() }
    }

    /// The same statements under another kind of trust.
    #[must_use]
    pub fn with_shared(self, shared: bool) -> Self {
        if self.shared == shared {
            return self;
        }
        let mut anew = Self::new(shared);
        anew.union(&self);
        anew
    }

    /// `trust: shared`.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Takes a verified statement in.
    pub fn merge(&mut self, introduction: Introduction) -> Merged {
        let (statement, signed) = introduction.into_parts();
        match statement {
            Statement::Introduce(said) => {
                let rank = Rank::of(said.incarnation, said.revision, &signed);
                self.introduce(Record { said, signed, rank })
            }
            Statement::Revoke(said) => {
                let rank = Rank::of(said.incarnation, 0, &signed);
                self.revoke(Record { said, signed, rank })
            }
        }
    }

    /// Takes everything of another set in: both sides of an exchange do it and are then equal.
    pub fn union(&mut self, other: &Self) -> Vec<Merged> {
        let mut merged = Vec::new();
        for cluster in other.clusters.values() {
            merged.extend(cluster.tombstone.iter().map(|record| self.revoke(record.clone())));
            merged.extend(cluster.introductions.iter().map(|record| self.introduce(record.clone())));
        }
        merged.retain(|merged| *merged != Merged::Unchanged);
        merged
    }

    /// The members, by cluster: neither revoked nor contested.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.clusters.values().filter_map(Cluster::member)
    }

    /// A member that is neither revoked nor contested.
    #[must_use]
    pub fn member(&self, cluster: &str) -> Option<&Member> {
        self.clusters.get(cluster)?.member()
    }

    /// Every introduction that no tombstone covers, by cluster; two of a contested one.
    pub fn introductions(&self) -> impl Iterator<Item = &Member> {
        self.clusters.values().flat_map(Cluster::claims)
    }

    /// Who claims to be this cluster, the newest first: nobody, the member, or two between whom nothing decides.
    pub fn claims(&self, cluster: &str) -> impl Iterator<Item = &Member> {
        self.clusters.get(cluster).into_iter().flat_map(Cluster::claims)
    }

    /// The contested names with their claims.
    pub fn contested(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Member>)> {
        self.clusters
            .iter()
            .filter(|(_, cluster)| cluster.is_contested())
            .map(|(name, cluster)| (name.as_str(), cluster.claims()))
    }

    /// The tombstones of clusters that are out now, by cluster.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        let out = self.clusters.values().filter(|cluster| cluster.introductions.is_empty());
        out.filter_map(|cluster| Some(&cluster.tombstone.as_ref()?.said))
    }

    /// Every tombstone, also of clusters that came back since, each as it was signed.
    pub fn revocations(&self) -> impl Iterator<Item = (&Tombstone, &SignedStatement)> {
        self.clusters.values().filter_map(|cluster| {
            let record = cluster.tombstone.as_ref()?;
            Some((&record.said, &record.signed))
        })
    }

    /// The newest tombstone of a cluster, also if it came back since.
    #[must_use]
    pub fn tombstone(&self, cluster: &str) -> Option<&Tombstone> {
        Some(&self.clusters.get(cluster)?.tombstone.as_ref()?.said)
    }

    /// The tombstone that puts this cluster out, whoever claims to be it. It names no key that another cluster uses too: a false claim
    /// must not put out a third one when it is taken back.
    #[must_use]
    pub fn tombstone_of(&self, cluster: &str) -> Option<Tombstone> {
        let newest = self.claims(cluster).next()?;
        let others = self.introductions().filter(|other| other.cluster != cluster);
        let taken: BTreeSet<&SpkiHash> = others.flat_map(|other| &other.issuing_keys).collect();
        let keys = self.claims(cluster).flat_map(|claim| &claim.issuing_keys);
        let contested = self.clusters.get(cluster).is_some_and(Cluster::is_contested);
        let issuing_keys = keys.filter(|key| !contested || !taken.contains(key)).copied().collect();
        Some(Tombstone { issuing_keys, ..newest.tombstone() })
    }

    /// How new what is known of each cluster is, by cluster.
    pub fn standing(&self) -> impl Iterator<Item = (&str, Standing)> {
        self.clusters.iter().filter_map(|(name, cluster)| Some((name.as_str(), cluster.standing()?)))
    }

    /// Every statement as signed, to be stored and sent on.
    pub fn statements(&self) -> impl Iterator<Item = &SignedStatement> {
        self.clusters.values().flat_map(|cluster| {
            let revocation = cluster.tombstone.iter().map(|record| &record.signed);
            revocation.chain(cluster.introductions.iter().map(|record| &record.signed))
        })
    }

    fn introduce(&mut self, record: Record<Member>) -> Merged {
        let shared = self.shared;
        self.change(record.said.cluster.clone(), |cluster| cluster.introduce(record, shared))
    }

    fn revoke(&mut self, record: Record<Tombstone>) -> Merged {
        self.change(record.said.cluster.clone(), |cluster| cluster.revoke(record))
    }

    fn change(&mut self, name: String, change: impl FnOnce(&mut Cluster) -> bool) -> Merged {
        if !self.clusters.contains_key(&name) && self.clusters.len() >= MAX_MEMBERS {
            return Merged::Full;
        }
        let cluster = self.clusters.entry(name.clone()).or_default();
        let before = cluster.is_contested();
        match (change(cluster), cluster.is_contested()) {
            (false, _) => Merged::Unchanged,
            (true, true) if !before => Merged::Clash { cluster: name },
            (true, _) => Merged::Changed { cluster: name },
        }
    }
}

impl Cluster {
    fn member(&self) -> Option<&Member> {
        match self.introductions.as_slice() {
            [only] => Some(&only.said),
            _ => None,
        }
    }

    fn claims(&self) -> impl Iterator<Item = &Member> {
        self.introductions.iter().map(|record| &record.said)
    }

    fn is_contested(&self) -> bool {
        self.introductions.len() > 1
    }

    fn standing(&self) -> Option<Standing> {
        let of = |rank: &Rank, revoked| Standing { incarnation: rank.incarnation, revoked, revision: rank.revision };
        // Every introduction that is kept is younger than the tombstone.
        let newest = self.introductions.first().map(|record| of(&record.rank, false));
        newest.or_else(|| Some(of(&self.tombstone.as_ref()?.rank, true)))
    }

    /// Whether anything changed. What is dropped here could never count again: what beats it is as young at least, and so outlives it.
    fn introduce(&mut self, record: Record<Member>, shared: bool) -> bool {
        if self.tombstone.as_ref().is_some_and(|tombstone| tombstone.rank.incarnation >= record.rank.incarnation) {
            return false;
        }
        let rank = record.rank.clone();
        match self.introductions.iter_mut().find(|known| known.said.same_authority(&record.said, shared)) {
            Some(known) if known.rank >= rank => return false,
            Some(known) => *known = record,
            None => self.introductions.push(record),
        }
        self.introductions.sort_by(|a, b| b.rank.cmp(&a.rank));
        self.introductions.truncate(MAX_CLAIMS);
        self.introductions.iter().any(|kept| kept.rank == rank)
    }

    fn revoke(&mut self, record: Record<Tombstone>) -> bool {
        if self.tombstone.as_ref().is_some_and(|known| known.rank >= record.rank) {
            return false;
        }
        self.introductions.retain(|known| known.rank.incarnation > record.rank.incarnation);
        self.tombstone = Some(record);
        true
    }
}

impl Rank {
    fn of(incarnation: u64, revision: u64, signed: &SignedStatement) -> Self {
        let digest = Sha256::new()
            .chain_update(signed.body.as_bytes())
            .chain_update([0])
            .chain_update(signed.signed_at.to_be_bytes())
            .chain_update(signed.signature.as_bytes())
            .finalize()
            .into();
        Self { incarnation, revision, digest }
    }
}
