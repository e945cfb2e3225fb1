//! Who belongs to the mesh: a replicated set that every control plane holds and merges.
//!
//! The merge is a maximum per cluster over a total order, so it does not matter in which order, how often, or by which way
//! statements arrive. A tombstone beats every introduction of the same or an older incarnation; only a younger incarnation,
//! introduced by a member that is still in, comes back. Only statements that were verified ([`crate::introduction`]) get in.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bundle::{BundleError, TrustBundle};
use crate::certificate::SpkiHash;
use crate::introduction::{Introduction, SignedStatement, Statement, Tombstone};
use crate::spiffe::TrustDomain;
use crate::trust::{DomainTrust, IssuerTrust, NamespaceBound, TrustBundleSet};

/// Most clusters in a mesh's membership, tombstones included.
pub const MAX_MEMBERS: usize = 4096;

/// What is told about a member: design §6 `Member`.
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
    /// It changed and the two disagree about the cluster's roots within one incarnation: two clusters use one ClusterId,
    /// or somebody introduced a false one. To be reported; the order decides the same everywhere.
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

/// The total order: incarnation, tombstone over introduction, revision, then bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    incarnation: u64,
    tombstone: bool,
    revision: u64,
    digest: [u8; 32],
}

/// How a [`TrustBundleSet`] is made of the membership.
#[derive(Debug, Clone, Copy)]
pub struct TrustPolicy<'a> {
    /// `trust: shared`: members are told apart by issuing key, not by trust domain.
    pub shared: bool,
    /// `Peer.spec.namespaces` by cluster; clusters without an entry are unbounded.
    pub namespaces: &'a BTreeMap<String, NamespaceBound>,
    /// Clusters detached only here (`detach --here`).
    pub detached_here: &'a BTreeSet<String>,
    /// Clusters that may be trusted: all with `admission: open`, the approved ones with `approve`. None means all.
    pub admitted: Option<&'a BTreeSet<String>>,
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
        self.insert(Record {
            rank: Rank::of(&statement, &signed),
            statement,
            signed,
        })
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
        self.records
            .values()
            .filter_map(|record| match &record.statement {
                Statement::Introduce(member) => Some(member),
                Statement::Revoke(_) => None,
            })
    }

    /// The tombstones, by cluster.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.records
            .values()
            .filter_map(|record| match &record.statement {
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

    /// Every statement as signed, to be stored and sent on.
    pub fn statements(&self) -> impl Iterator<Item = &SignedStatement> {
        self.records.values().map(|record| &record.signed)
    }

    /// The trust that follows for a cluster whose own CA has `own` as its bundle and issues with `own_keys`.
    ///
    /// # Errors
    /// [`BundleError`] when two members cannot be told apart (one trust domain, or one issuing key, for two clusters):
    /// revoking one would be a silent failure.
    pub fn trust(
        &self,
        cluster: &str,
        own: &TrustBundle,
        own_keys: &BTreeSet<SpkiHash>,
        policy: TrustPolicy<'_>,
    ) -> Result<TrustBundleSet, BundleError> {
        let mut domains: BTreeMap<TrustDomain, DomainTrust> = BTreeMap::new();
        let mut own_trust =
            DomainTrust::new(own.clone(), (!policy.shared).then(|| cluster.to_owned()));
        if policy.shared {
            for key in own_keys {
                own_trust = own_trust.with_issuer(*key, IssuerTrust::new(cluster))?;
            }
        }
        domains.insert(own.trust_domain().clone(), own_trust);
        for member in self.members().filter(|member| member.cluster != cluster) {
            let detached = policy.detached_here.contains(&member.cluster);
            if !detached
                && policy
                    .admitted
                    .is_some_and(|admitted| !admitted.contains(&member.cluster))
            {
                continue;
            }
            let bound = policy
                .namespaces
                .get(&member.cluster)
                .cloned()
                .unwrap_or_default();
            if policy.shared {
                add_issuers(&mut domains, member, bound, detached)?;
            } else {
                add_domain(&mut domains, member, bound, detached)?;
            }
        }
        for tombstone in self
            .tombstones()
            .filter(|tombstone| tombstone.cluster != cluster)
        {
            revoke(&mut domains, tombstone, own.trust_domain(), policy.shared)?;
        }
        TrustBundleSet::new(domains)
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
            (Statement::Introduce(old), Statement::Introduce(new)) => {
                old.incarnation == new.incarnation && !old.same_authority(new)
            }
            _ => false,
        };
        self.records.insert(cluster.clone(), record);
        if clash {
            Merged::Clash { cluster }
        } else {
            Merged::Changed { cluster }
        }
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
        Self {
            incarnation,
            tombstone,
            revision,
            digest,
        }
    }
}

fn add_domain(
    domains: &mut BTreeMap<TrustDomain, DomainTrust>,
    member: &Member,
    bound: NamespaceBound,
    detached: bool,
) -> Result<(), BundleError> {
    if let Some(known) = domains.get(member.trust_domain()) {
        return Err(BundleError::Json(format!(
            "clusters {} and {} both claim trust domain {}; each needs its own",
            known.cluster.as_deref().unwrap_or("?"),
            member.cluster,
            member.trust_domain()
        )));
    }
    let mut trust =
        DomainTrust::new(member.bundle.clone(), Some(member.cluster.clone())).within(bound);
    trust.revoked = detached;
    domains.insert(member.trust_domain().clone(), trust);
    Ok(())
}

/// A member of a shared domain adds its issuing keys, never roots: those are the domain's own.
fn add_issuers(
    domains: &mut BTreeMap<TrustDomain, DomainTrust>,
    member: &Member,
    bound: NamespaceBound,
    detached: bool,
) -> Result<(), BundleError> {
    let Some(trust) = domains.get(member.trust_domain()) else {
        return Err(BundleError::Json(format!(
            "cluster {} has trust domain {}, but trust is shared and the mesh has another",
            member.cluster,
            member.trust_domain()
        )));
    };
    let mut trust = trust.clone();
    for key in &member.issuing_keys {
        trust = trust.with_issuer(
            *key,
            IssuerTrust {
                cluster: member.cluster.clone(),
                namespaces: bound.clone(),
                revoked: detached,
            },
        )?;
    }
    domains.insert(member.trust_domain().clone(), trust);
    Ok(())
}

fn revoke(
    domains: &mut BTreeMap<TrustDomain, DomainTrust>,
    tombstone: &Tombstone,
    own: &TrustDomain,
    shared: bool,
) -> Result<(), BundleError> {
    if !shared {
        // A tombstone never takes the own domain, whatever it claims: the own CA decides about itself.
        if &tombstone.trust_domain != own {
            let trust = domains
                .entry(tombstone.trust_domain.clone())
                .or_insert_with(|| DomainTrust {
                    cluster: Some(tombstone.cluster.clone()),
                    ..DomainTrust::default()
                });
            // A domain that a live member of another name holds now is that member's.
            if trust.cluster.as_deref() == Some(tombstone.cluster.as_str()) {
                trust.revoked = true;
            }
        }
        return Ok(());
    }
    let Some(trust) = domains.get_mut(own) else {
        return Ok(());
    };
    for key in &tombstone.issuing_keys {
        match trust.issuers.get(key) {
            Some(issuer) if issuer.cluster != tombstone.cluster => {
                return Err(BundleError::Json(format!(
                    "cluster {} is detached but shares its issuing key with {}; it cannot be told apart",
                    tombstone.cluster, issuer.cluster
                )));
            }
            _ => {
                let mut issuer = IssuerTrust::new(tombstone.cluster.clone());
                issuer.revoked = true;
                trust.issuers.insert(*key, issuer);
            }
        }
    }
    Ok(())
}
