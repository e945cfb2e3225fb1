//! Who belongs to the mesh: a replicated set that every control plane holds and merges.
//!
//! The merge is a maximum per cluster over a total order, so it does not matter in which order, how often, or by which way
//! statements arrive. A tombstone beats every introduction of the same or an older incarnation; only a younger incarnation,
//! introduced by a member that is still in, comes back. Only statements that were verified ([`crate::introduction`]) get in.

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

/// What is told about a member: the `Member` of the peering protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// ClusterId: a DNS label of at most 32 characters.
    pub cluster: String,
    /// Grows each time the cluster joins anew, or starts without its old state.
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
    records: BTreeMap<String, Record>,
}

/// What a merge did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// Known already, or beaten by what is known.
    Unchanged,
    /// The record of this cluster changed.
    Changed { cluster: String },
    /// It changed to other roots without a revocation between: two clusters use one ClusterId, or somebody introduced a false
    /// one. To be reported loudly; the order decides the same everywhere.
    Clash { cluster: String },
    /// Not taken: the set is full.
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    statement: Statement,
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

/// The total order: incarnation, tombstone over introduction, revision, then bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    incarnation: u64,
    tombstone: bool,
    revision: u64,
    digest: [u8; 32],
}

impl Member {
    /// Its trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// Do both speak of the same authority? By roots, and in a shared domain by issuing keys.
    #[must_use]
    pub fn same_authority(&self, other: &Self) -> bool {
        self.bundle.shares_root_with(&other.bundle)
            && (self.issuing_keys.is_empty()
                || other.issuing_keys.is_empty()
                || !self.issuing_keys.is_disjoint(&other.issuing_keys))
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
}

impl Membership {
    /// Takes a verified statement in.
    pub fn merge(&mut self, introduction: Introduction) -> Merged {
        let (statement, signed) = introduction.into_parts();
        self.insert(Record { rank: Rank::of(&statement, &signed), statement, signed })
    }

    /// Takes everything of another set in: both sides of an exchange do it and are then equal.
    pub fn union(&mut self, other: &Self) -> Vec<Merged> {
        other
            .records
            .values()
            .map(|record| self.insert(record.clone()))
            .filter(|merged| *merged != Merged::Unchanged)
            .collect()
    }

    /// The members that are not revoked, by cluster.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.records.values().filter_map(|record| match &record.statement {
            Statement::Introduce(member) => Some(member),
            Statement::Revoke(_) => None,
        })
    }

    /// The tombstones, by cluster.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.records.values().filter_map(|record| match &record.statement {
            Statement::Introduce(_) => None,
            Statement::Revoke(tombstone) => Some(tombstone),
        })
    }

    /// A member that is not revoked.
    #[must_use]
    pub fn member(&self, cluster: &str) -> Option<&Member> {
        match &self.records.get(cluster)?.statement {
            Statement::Introduce(member) => Some(member),
            Statement::Revoke(_) => None,
        }
    }

    /// The tombstone of a cluster that is revoked now.
    #[must_use]
    pub fn tombstone(&self, cluster: &str) -> Option<&Tombstone> {
        match &self.records.get(cluster)?.statement {
            Statement::Introduce(_) => None,
            Statement::Revoke(tombstone) => Some(tombstone),
        }
    }

    /// How new the record of each cluster is, by cluster.
    pub fn standing(&self) -> impl Iterator<Item = (&str, Standing)> {
        self.records.iter().map(|(cluster, Record { rank, .. })| {
            let Rank { incarnation, tombstone: revoked, revision, .. } = *rank;
            (cluster.as_str(), Standing { incarnation, revoked, revision })
        })
    }

    /// Every statement as signed, to be stored and sent on.
    pub fn statements(&self) -> impl Iterator<Item = &SignedStatement> {
        self.records.values().map(|record| &record.signed)
    }

    fn insert(&mut self, record: Record) -> Merged {
        let cluster = record.statement.cluster().to_owned();
        let Some(known) = self.records.get(&cluster) else {
            if self.records.len() >= MAX_MEMBERS {
                return Merged::Full;
            }
            self.records.insert(cluster.clone(), record);
            return Merged::Changed { cluster };
        };
        if record.rank <= known.rank {
            return Merged::Unchanged;
        }
        let clash = match (&known.statement, &record.statement) {
            (Statement::Introduce(old), Statement::Introduce(new)) => !old.same_authority(new),
            _ => false,
        };
        self.records.insert(cluster.clone(), record);
        if clash { Merged::Clash { cluster } } else { Merged::Changed { cluster } }
    }
}

impl Rank {
    fn of(statement: &Statement, signed: &SignedStatement) -> Self {
        let (incarnation, tombstone, revision) = match statement {
            Statement::Introduce(member) => (member.incarnation, false, member.revision),
            Statement::Revoke(tombstone) => (tombstone.incarnation, true, 0),
        };
        let digest = Sha256::new()
            .chain_update(signed.body.as_bytes())
            .chain_update([0])
            .chain_update(signed.signed_at.to_be_bytes())
            .chain_update(signed.signature.as_bytes())
            .finalize()
            .into();
        Self { incarnation, tombstone, revision, digest }
    }
}
