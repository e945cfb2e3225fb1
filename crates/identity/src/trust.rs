//! Whom a cluster believes: the bundles of all trust domains, their bounds, and what is revoked.
//!
//! A [`TrustBundleSet`] is an immutable value; a change is a new set with another [`TrustBundleSet::epoch`]. It never decides
//! about one certificate (see [`crate::verdict`]). The epoch is a digest of the content, so that every replica and every
//! restart computes the same number for the same trust.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bundle::{BundleError, TrustBundle};
use crate::certificate::SpkiHash;
use crate::spiffe::{SpiffeId, TrustDomain};

/// Most trust domains in one set.
pub const MAX_DOMAINS: usize = 4096;

/// Gives the set that holds now; called at every handshake, so it must be cheap (an atomic load).
pub type TrustSource = Arc<dyn Fn() -> Arc<TrustBundleSet> + Send + Sync>;

/// The trust of one cluster in all trust domains, its own among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundleSet {
    domains: BTreeMap<TrustDomain, DomainTrust>,
    /// What the membership said of each cluster when the set was made of it: the incarnation, and whether that is revoked.
    standings: Standings,
    epoch: u64,
}

type Standings = BTreeMap<String, (u64, bool)>;

/// What is believed of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainTrust {
    /// None for a revoked domain whose roots are forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<TrustBundle>,
    /// The member this domain belongs to (`trust: perCluster`); None for a shared domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// `Peer.spec.namespaces`: which namespaces' identities are accepted from it.
    #[serde(default, skip_serializing_if = "NamespaceBound::is_all")]
    pub namespaces: NamespaceBound,
    /// Detached: every identity of this domain is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// `trust: shared`: the issuing keys (intermediates) of the members. When not empty, a chain that passes none of
    /// them is refused; a key of two clusters cannot be told apart and is an error when the set is made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub issuers: BTreeMap<SpkiHash, IssuerTrust>,
}

/// What is believed of one issuing key inside a shared trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerTrust {
    pub cluster: String,
    #[serde(default, skip_serializing_if = "NamespaceBound::is_all")]
    pub namespaces: NamespaceBound,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// Which namespaces' identities are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Option<BTreeSet<String>>", into = "Option<BTreeSet<String>>")]
pub enum NamespaceBound {
    #[default]
    All,
    Only(BTreeSet<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetForm {
    domains: BTreeMap<TrustDomain, DomainTrust>,
    #[serde(default)]
    standings: Standings,
}

impl TrustBundleSet {
    /// Makes a set.
    ///
    /// # Errors
    /// [`BundleError::Json`] when a domain's entry holds another domain's bundle, or has neither roots nor a revocation.
    pub fn new(domains: impl IntoIterator<Item = (TrustDomain, DomainTrust)>) -> Result<Self, BundleError> {
        let domains: BTreeMap<_, _> = domains.into_iter().collect();
        if domains.len() > MAX_DOMAINS {
            return Err(BundleError::Json(format!("more than {MAX_DOMAINS} trust domains")));
        }
        for (domain, trust) in &domains {
            match &trust.bundle {
                Some(bundle) if bundle.trust_domain() != domain => {
                    return Err(BundleError::Json(format!(
                        "the entry of trust domain {domain} holds the bundle of {}",
                        bundle.trust_domain()
                    )));
                }
                None if !trust.revoked => return Err(BundleError::NoRoots(domain.clone())),
                _ => {}
            }
        }
        Ok(Self::stamped(domains, Standings::new()))
    }

    /// A set that believes nobody.
    #[must_use]
    pub fn empty() -> Self {
        Self::stamped(BTreeMap::new(), Standings::new())
    }

    /// This set, made of a membership that says this of each cluster: its incarnation, and whether that is revoked.
    #[must_use]
    pub fn made_of(self, standings: impl IntoIterator<Item = (String, (u64, bool))>) -> Self {
        Self::stamped(self.domains, standings.into_iter().collect())
    }

    /// This set, but for what it knows less of than `held`: who was revoked there, and is not revoked or a younger incarnation here,
    /// stays revoked. A control plane that was restored from an older state cannot take a revocation back by telling of it.
    #[must_use]
    pub fn keeping_revocations_of(self, held: &Self) -> Self {
        let forgotten: Vec<_> = held
            .standings
            .iter()
            .filter(|(cluster, standing)| standing.1 && self.standings.get(*cluster).is_none_or(|now| now < *standing))
            .map(|(cluster, standing)| (cluster.clone(), *standing))
            .collect();
        if forgotten.is_empty() {
            return self;
        }
        let Self { mut domains, mut standings, .. } = self;
        for (cluster, standing) in forgotten {
            for trust in domains.values_mut() {
                trust.revoked |= trust.cluster.as_ref() == Some(&cluster);
                for issuer in trust.issuers.values_mut() {
                    issuer.revoked |= issuer.cluster == cluster;
                }
            }
            standings.insert(cluster, standing);
        }
        Self::stamped(domains, standings)
    }

    /// A set of one domain without bounds: a single cluster on its own.
    ///
    /// # Errors
    /// As [`TrustBundleSet::new`].
    pub fn of(bundle: TrustBundle, cluster: Option<String>) -> Result<Self, BundleError> {
        let domain = bundle.trust_domain().clone();
        Self::new([(domain, DomainTrust::new(bundle, cluster))])
    }

    /// Differs whenever anything in the set differs; equal content has an equal epoch everywhere. Not ordered.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is believed of this domain.
    #[must_use]
    pub fn domain(&self, domain: &str) -> Option<&DomainTrust> {
        self.domains.get(domain)
    }

    /// All domains in order.
    pub fn domains(&self) -> impl Iterator<Item = (&TrustDomain, &DomainTrust)> {
        self.domains.iter()
    }

    /// This set with one entry put in place of what was there.
    ///
    /// # Errors
    /// As [`TrustBundleSet::new`].
    pub fn with(&self, domain: TrustDomain, trust: DomainTrust) -> Result<Self, BundleError> {
        let mut domains = self.domains.clone();
        domains.insert(domain, trust);
        Ok(Self::stamped(Self::new(domains)?.domains, self.standings.clone()))
    }

    /// This set with a whole trust domain revoked, known or not.
    ///
    /// # Errors
    /// As [`TrustBundleSet::new`].
    pub fn with_revoked_domain(&self, domain: &TrustDomain) -> Result<Self, BundleError> {
        let mut trust = self.domains.get(domain).cloned().unwrap_or_default();
        trust.revoked = true;
        self.with(domain.clone(), trust)
    }

    /// This set with every issuing key of one member of a shared domain revoked.
    ///
    /// # Errors
    /// [`BundleError::Json`] when the member has no issuing key of its own here: it could not be told apart, so
    /// pretending success would leave it in.
    pub fn with_revoked_issuer(&self, domain: &TrustDomain, cluster: &str) -> Result<Self, BundleError> {
        let mut trust = self.domains.get(domain).cloned().unwrap_or_default();
        let mut found = false;
        for issuer in trust.issuers.values_mut().filter(|issuer| issuer.cluster == cluster) {
            issuer.revoked = true;
            found = true;
        }
        if !found {
            return Err(BundleError::Json(format!(
                "cluster {cluster} has no issuing key of its own in trust domain {domain}; give it its own intermediate first"
            )));
        }
        self.with(domain.clone(), trust)
    }

    /// `{domains: {<td>: {bundle, cluster, namespaces, revoked, issuers}}, standings: {<cluster>: [incarnation, revoked]}}`, equal
    /// bytes for equal sets.
    ///
    /// # Errors
    /// [`BundleError::Json`] never in practice.
    pub fn to_json(&self) -> Result<String, BundleError> {
        serde_json::to_string(self).map_err(|error| BundleError::Json(error.to_string()))
    }

    /// Reads [`TrustBundleSet::to_json`].
    ///
    /// # Errors
    /// [`BundleError::Json`] with the place of the first mistake.
    pub fn from_json(text: &str) -> Result<Self, BundleError> {
        serde_json::from_str(text).map_err(|error| BundleError::Json(error.to_string()))
    }

    /// The epoch is a digest of the serialised form, which is the same bytes for the same set.
    fn stamped(domains: BTreeMap<TrustDomain, DomainTrust>, standings: Standings) -> Self {
        let mut set = Self { domains, standings, epoch: 0 };
        // Serialising cannot fail: every key is text. If it did, the epoch would be that of the debug form.
        let form = set.to_json().unwrap_or_else(|_| format!("{:?}", set.domains));
        let digest = Sha256::digest(form.as_bytes());
        let mut head = [0_u8; 8];
        head.copy_from_slice(&digest[..8]);
        set.epoch = u64::from_be_bytes(head);
        set
    }

    /// All roots of all domains that are not revoked, as PEM: for clients that know only one list (stock Envoy, gRPC).
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.domains
            .values()
            .filter(|trust| !trust.revoked)
            .filter_map(|trust| trust.bundle.as_ref())
            .map(TrustBundle::to_pem)
            .collect()
    }
}

impl DomainTrust {
    /// Trust in a bundle without bounds.
    #[must_use]
    pub fn new(bundle: TrustBundle, cluster: Option<String>) -> Self {
        Self { bundle: Some(bundle), cluster, ..Self::default() }
    }

    /// Bounded to these namespaces.
    #[must_use]
    pub fn within(mut self, namespaces: NamespaceBound) -> Self {
        self.namespaces = namespaces;
        self
    }

    /// Adds the issuing key of a member of a shared domain.
    ///
    /// # Errors
    /// [`BundleError::Json`] when the key is already another cluster's: the two could not be told apart.
    pub fn with_issuer(mut self, key: SpkiHash, issuer: IssuerTrust) -> Result<Self, BundleError> {
        if let Some(known) = self.issuers.get(&key)
            && known.cluster != issuer.cluster
        {
            return Err(BundleError::Json(format!(
                "clusters {} and {} share the issuing key {key}; each needs its own intermediate",
                known.cluster, issuer.cluster
            )));
        }
        self.issuers.insert(key, issuer);
        Ok(self)
    }
}

impl Default for DomainTrust {
    fn default() -> Self {
        Self { bundle: None, cluster: None, namespaces: NamespaceBound::All, revoked: false, issuers: BTreeMap::new() }
    }
}

impl IssuerTrust {
    /// A member's issuing key without bounds.
    #[must_use]
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into(), namespaces: NamespaceBound::All, revoked: false }
    }
}

impl NamespaceBound {
    /// True without a bound.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// May this identity come from the bounded peer? Reserved identities stand outside namespaces and may; under a bound
    /// an identity of a shape without a namespace may not.
    #[must_use]
    pub fn allows(&self, identity: &SpiffeId) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => match identity.namespace() {
                Some(namespace) => names.contains(namespace),
                None => identity.is_reserved(),
            },
        }
    }

    /// May this namespace's identities and exports come from the bounded peer?
    #[must_use]
    pub fn allows_namespace(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }
}

impl From<Option<BTreeSet<String>>> for NamespaceBound {
    fn from(names: Option<BTreeSet<String>>) -> Self {
        names.map_or(Self::All, Self::Only)
    }
}

impl From<NamespaceBound> for Option<BTreeSet<String>> {
    fn from(bound: NamespaceBound) -> Self {
        match bound {
            NamespaceBound::All => None,
            NamespaceBound::Only(names) => Some(names),
        }
    }
}

impl Serialize for TrustBundleSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            domains: &'a BTreeMap<TrustDomain, DomainTrust>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            standings: &'a Standings,
        }
        Borrowed { domains: &self.domains, standings: &self.standings }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TrustBundleSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = SetForm::deserialize(deserializer)?;
        let set = Self::new(form.domains).map_err(serde::de::Error::custom)?;
        Ok(if form.standings.is_empty() { set } else { set.made_of(form.standings) })
    }
}
