//! The trust that follows from the membership: pure, so that every replica and every restart derives the same.
//!
//! Members that cannot be told apart (one trust domain, or one issuing key, for two clusters; one name for two authorities) are left
//! out *both*, and reported: a false claim may cost a connection but never opens one, and never keeps a revocation from taking effect.
//! The own name, trust domain and issuing keys are nobody else's to claim or revoke.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::bundle::{BundleError, TrustBundle};
use crate::certificate::SpkiHash;
use crate::membership::{Member, Membership};
use crate::spiffe::TrustDomain;
use crate::trust::{DomainTrust, IssuerTrust, NamespaceBound, TrustBundleSet};

/// How trust is made of the membership.
#[derive(Debug, Clone, Copy)]
pub struct TrustPolicy<'a> {
    /// `Peer.spec.namespaces` by cluster; clusters without an entry are unbounded.
    pub namespaces: &'a BTreeMap<String, NamespaceBound>,
    /// Clusters detached only here (`detach --here`).
    pub detached_here: &'a BTreeSet<String>,
    /// Clusters that may be trusted: all with `admission: open`, the approved ones with `approve`. None means all.
    pub admitted: Option<&'a BTreeSet<String>>,
}

/// Something claimed by two, or by one who may not. To be reported as a diagnostic; its text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustConflict {
    /// Two clusters claim one trust domain; neither is believed.
    TrustDomain { domain: TrustDomain, clusters: BTreeSet<String> },
    /// Two clusters claim one issuing key; neither is believed.
    IssuingKey { key: SpkiHash, clusters: BTreeSet<String> },
    /// A member has another trust domain than the mesh, whose trust is shared.
    NotShared { cluster: String, domain: TrustDomain },
    /// The detached cluster used an issuing key that another one uses; both are out.
    DetachedWithOthers { cluster: String, clusters: BTreeSet<String> },
    /// Two authorities claim one name; neither is believed. Each with the key that tells it from the other, and its incarnation.
    Contested { cluster: String, claims: Vec<(SpkiHash, u64)> },
}

impl Membership {
    /// The trust of a cluster whose own CA has `own` as its bundle and issues with `own_keys`, and what was left out of it.
    ///
    /// # Errors
    /// [`BundleError`] when there are more trust domains than a set may have.
    pub fn trust_and_conflicts(
        &self,
        cluster: &str,
        own: &TrustBundle,
        own_keys: &BTreeSet<SpkiHash>,
        policy: TrustPolicy<'_>,
    ) -> Result<(TrustBundleSet, Vec<TrustConflict>), BundleError> {
        let mut derivation = Derivation { cluster, own, own_keys, policy, conflicts: Vec::new() };
        derivation.contested(self);
        let domains = if self.is_shared() { derivation.shared(self) } else { derivation.per_cluster(self) };
        let standings = self.standing().map(|(cluster, s)| (cluster.to_owned(), (s.incarnation, s.revoked)));
        Ok((TrustBundleSet::new(domains)?.made_of(standings), derivation.conflicts))
    }

    /// As [`Membership::trust_and_conflicts`], without the report.
    ///
    /// # Errors
    /// As there.
    pub fn trust(
        &self,
        cluster: &str,
        own: &TrustBundle,
        own_keys: &BTreeSet<SpkiHash>,
        policy: TrustPolicy<'_>,
    ) -> Result<TrustBundleSet, BundleError> {
        Ok(self.trust_and_conflicts(cluster, own, own_keys, policy)?.0)
    }
}

struct Derivation<'a> {
    cluster: &'a str,
    own: &'a TrustBundle,
    own_keys: &'a BTreeSet<SpkiHash>,
    policy: TrustPolicy<'a>,
    conflicts: Vec<TrustConflict>,
}

impl Derivation<'_> {
    /// The other members that count, and whether each is detached here.
    fn others<'m>(&self, membership: &'m Membership) -> Vec<(&'m Member, bool)> {
        let admitted = |member: &Member| self.policy.admitted.is_none_or(|set| set.contains(&member.cluster));
        membership
            .members()
            .filter(|member| member.cluster != self.cluster)
            .map(|member| (member, self.policy.detached_here.contains(&member.cluster)))
            .filter(|(member, detached)| *detached || admitted(member))
            .collect()
    }

    /// Contested names are no members, so nothing follows from them but the report; that of the own name too, as the others do not
    /// believe this cluster then.
    fn contested(&mut self, membership: &Membership) {
        let shared = membership.is_shared();
        for (cluster, claims) in membership.contested() {
            let claims = claims.filter_map(|claim| Some((claim.authority_key(shared)?, claim.incarnation))).collect();
            self.conflicts.push(TrustConflict::Contested { cluster: cluster.to_owned(), claims });
        }
    }

    fn bound(&self, cluster: &str) -> NamespaceBound {
        self.policy.namespaces.get(cluster).cloned().unwrap_or_default()
    }

    fn per_cluster(&mut self, membership: &Membership) -> BTreeMap<TrustDomain, DomainTrust> {
        let mut claims: BTreeMap<TrustDomain, Vec<(&Member, bool)>> = BTreeMap::new();
        for (member, detached) in self.others(membership) {
            claims.entry(member.trust_domain().clone()).or_default().push((member, detached));
        }
        let mut domains = BTreeMap::new();
        for (domain, claimants) in claims {
            match claimants.as_slice() {
                _ if &domain == self.own.trust_domain() => {
                    self.domain_conflict(&domain, &claimants, Some(self.cluster));
                }
                [(member, detached)] => {
                    let mut trust =
                        DomainTrust::new(member.believed_bundle().into_owned(), Some(member.cluster.clone()))
                            .within(self.bound(&member.cluster));
                    trust.revoked = *detached;
                    domains.insert(domain, trust);
                }
                _ => self.domain_conflict(&domain, &claimants, None),
            }
        }
        for tombstone in membership.tombstones() {
            // The own CA decides about its own domain, whatever a tombstone claims.
            if &tombstone.trust_domain == self.own.trust_domain() {
                continue;
            }
            let trust =
                domains.entry(tombstone.trust_domain.clone()).or_insert_with(|| revoked_domain(&tombstone.cluster));
            // A domain that a live member of another name holds now is that member's.
            if trust.cluster.as_deref() == Some(tombstone.cluster.as_str()) {
                trust.revoked = true;
            }
        }
        let own = DomainTrust::new(self.own.clone(), Some(self.cluster.to_owned()));
        domains.insert(self.own.trust_domain().clone(), own);
        domains
    }

    fn domain_conflict(&mut self, domain: &TrustDomain, claimants: &[(&Member, bool)], owner: Option<&str>) {
        let clusters = claimants.iter().map(|(member, _)| member.cluster.clone());
        self.conflicts.push(TrustConflict::TrustDomain {
            domain: domain.clone(),
            clusters: clusters.chain(owner.map(str::to_owned)).collect(),
        });
    }

    /// One domain, whose roots are the own ones; members add only their issuing keys.
    fn shared(&mut self, membership: &Membership) -> BTreeMap<TrustDomain, DomainTrust> {
        let mut claims: BTreeMap<SpkiHash, BTreeMap<String, bool>> = BTreeMap::new();
        for (member, detached) in self.others(membership) {
            if member.trust_domain() != self.own.trust_domain() {
                self.conflicts.push(TrustConflict::NotShared {
                    cluster: member.cluster.clone(),
                    domain: member.trust_domain().clone(),
                });
                continue;
            }
            for key in &member.issuing_keys {
                claims.entry(*key).or_default().insert(member.cluster.clone(), detached);
            }
        }
        let mut trust = DomainTrust::new(self.own.clone(), None);
        for (key, claimants) in claims {
            let mut clusters: BTreeSet<String> = claimants.keys().cloned().collect();
            if self.own_keys.contains(&key) {
                clusters.insert(self.cluster.to_owned());
            }
            match (claimants.first_key_value(), clusters.len()) {
                (Some((cluster, detached)), 1) => {
                    let issuer =
                        IssuerTrust { cluster: cluster.clone(), namespaces: self.bound(cluster), revoked: *detached };
                    trust.issuers.insert(key, issuer);
                }
                _ => self.conflicts.push(TrustConflict::IssuingKey { key, clusters }),
            }
        }
        self.revoke_issuers(membership, &mut trust);
        for key in self.own_keys {
            trust.issuers.insert(*key, IssuerTrust::new(self.cluster));
        }
        BTreeMap::from([(self.own.trust_domain().clone(), trust)])
    }

    fn revoke_issuers(&mut self, membership: &Membership, trust: &mut DomainTrust) {
        for tombstone in membership.tombstones() {
            let mut others = BTreeSet::new();
            for key in &tombstone.issuing_keys {
                if self.own_keys.contains(key) {
                    others.insert(self.cluster.to_owned());
                    continue;
                }
                let issuer = trust.issuers.entry(*key).or_insert_with(|| IssuerTrust::new(tombstone.cluster.clone()));
                if issuer.cluster != tombstone.cluster {
                    others.insert(issuer.cluster.clone());
                }
                issuer.revoked = true;
            }
            if !others.is_empty() {
                self.conflicts
                    .push(TrustConflict::DetachedWithOthers { cluster: tombstone.cluster.clone(), clusters: others });
            }
        }
    }
}

fn revoked_domain(cluster: &str) -> DomainTrust {
    DomainTrust { cluster: Some(cluster.to_owned()), revoked: true, ..DomainTrust::default() }
}

impl fmt::Display for TrustConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |clusters: &BTreeSet<String>| clusters.iter().cloned().collect::<Vec<_>>().join(" and ");
        match self {
            Self::TrustDomain { domain, clusters } => write!(
                f,
                "clusters {} claim one trust domain, {domain}; only its owner is believed, or none if it is no member's own; \
                 give each its own trust domain, or detach the false one",
                names(clusters)
            ),
            Self::IssuingKey { key, clusters } => {
                write!(f, "clusters {} claim one issuing key, {key}; give each its own intermediate", names(clusters))
            }
            Self::NotShared { cluster, domain } => write!(
                f,
                "cluster {cluster} has trust domain {domain}, but this mesh shares another; issue it an intermediate under the \
                 shared root"
            ),
            Self::DetachedWithOthers { cluster, clusters } => write!(
                f,
                "cluster {cluster} is detached but shares an issuing key with {}, which cannot be told from it; give them \
                 intermediates of their own",
                names(clusters)
            ),
            Self::Contested { cluster, claims } => {
                write!(f, "the name {cluster} is claimed by two authorities")?;
                for (n, (key, incarnation)) in claims.iter().enumerate() {
                    write!(f, "{} {key} (incarnation {incarnation})", if n == 0 { ":" } else { " and" })?;
                }
                write!(f, "; neither is believed; detach {cluster}, then join the real one again")
            }
        }
    }
}
