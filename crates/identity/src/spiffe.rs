//! SPIFFE IDs and trust domains, as the SPIFFE-ID specification has them.
//!
//! Parsing is strict (no percent-encoding, port, user, query or fragment; no empty or dot segments; lower-case trust domain)
//! because two spellings of one identity would be two answers to one authorisation question. A value of these types is
//! always well formed and never longer than the specification allows.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest SPIFFE ID in bytes (SPIFFE-ID §2.3).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain in bytes (SPIFFE-ID §2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// The scope of one issuing authority, for example `east.shop.example` or `cluster.local`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// `spiffe://<trust domain>/<path>`; the path may be empty (then it names the domain itself, as CA certificates do).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Bytes of the trust domain; at most 255, so that it fits.
    domain_bytes: u8,
}

/// What the path of an identity says, by the shapes Fairlead and Istio issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityKind<'a> {
    /// `/ns/<namespace>/sa/<service account>`: Istio's shape.
    ServiceAccount { namespace: &'a str, account: &'a str },
    /// `/fairlead/control`: a cluster's control plane; reserved.
    Control,
    /// `/fairlead/gateway`: an east-west gateway; reserved.
    Gateway,
    /// Any other path below `/fairlead`; reserved, so that a later version may give it a meaning.
    Reserved,
    /// The trust domain itself.
    Domain,
    /// Any other path; issued by someone else.
    Other,
}

/// Why a text is not a SPIFFE ID or trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("a SPIFFE ID starts with `spiffe://`")]
    Scheme,
    #[error("longer than {MAX_ID_BYTES} bytes")]
    IdTooLong,
    #[error("the trust domain is empty")]
    NoTrustDomain,
    #[error("the trust domain is longer than {MAX_TRUST_DOMAIN_BYTES} bytes")]
    TrustDomainTooLong,
    #[error("`{0}` may not stand in a trust domain; allowed are a-z, 0-9, `.`, `-` and `_`")]
    TrustDomainCharacter(char),
    #[error("`{0}` may not stand in a path; allowed are letters, digits, `.`, `-` and `_`")]
    PathCharacter(char),
    #[error("the path has an empty segment or ends in `/`")]
    EmptySegment,
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
}

impl TrustDomain {
    /// Parses and checks.
    ///
    /// # Errors
    /// [`SpiffeError`] for an empty, too long, or badly spelled domain.
    pub fn new(text: &str) -> Result<Self, SpiffeError> {
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }

    /// The domain's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://<td>`: the identity of the domain itself, which CA certificates carry.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId::assemble(&self.0, "")
    }

    /// `spiffe://<td>/fairlead/control`.
    #[must_use]
    pub fn control(&self) -> SpiffeId {
        SpiffeId::assemble(&self.0, "/fairlead/control")
    }

    /// `spiffe://<td>/fairlead/gateway`.
    #[must_use]
    pub fn gateway(&self) -> SpiffeId {
        SpiffeId::assemble(&self.0, "/fairlead/gateway")
    }

    /// `spiffe://<td>/ns/<namespace>/sa/<account>`.
    ///
    /// # Errors
    /// [`SpiffeError`] when a name may not stand in a path segment.
    pub fn service_account(&self, namespace: &str, account: &str) -> Result<SpiffeId, SpiffeError> {
        check_segment(namespace)?;
        check_segment(account)?;
        let path = format!("/ns/{namespace}/sa/{account}");
        if SCHEME.len() + self.0.len() + path.len() > MAX_ID_BYTES {
            return Err(SpiffeError::IdTooLong);
        }
        Ok(SpiffeId::assemble(&self.0, &path))
    }
}

impl SpiffeId {
    /// Parses and checks.
    ///
    /// # Errors
    /// [`SpiffeError`] naming the first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeError::IdTooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        check_trust_domain(domain)?;
        if let Some(segments) = path.strip_prefix('/') {
            segments.split('/').try_for_each(check_segment)?;
        }
        Ok(Self { uri: text.into(), domain_bytes: domain.len() as u8 })
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain's text.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.uri[SCHEME.len()..SCHEME.len() + usize::from(self.domain_bytes)]
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.domain().into())
    }

    /// The path with its leading slash, or empty.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.uri[SCHEME.len() + usize::from(self.domain_bytes)..]
    }

    /// The URI without its scheme: Istio's `principal` form, `<td>/ns/<ns>/sa/<sa>`.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.uri[SCHEME.len()..]
    }

    /// What the path says.
    #[must_use]
    pub fn kind(&self) -> IdentityKind<'_> {
        let path = self.path();
        let mut segments = path.split('/').skip(1);
        match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
            (None, ..) => IdentityKind::Domain,
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                IdentityKind::ServiceAccount { namespace, account }
            }
            (Some("fairlead"), Some("control"), None, ..) => IdentityKind::Control,
            (Some("fairlead"), Some("gateway"), None, ..) => IdentityKind::Gateway,
            (Some("fairlead"), ..) => IdentityKind::Reserved,
            _ => IdentityKind::Other,
        }
    }

    /// The namespace of a service-account identity.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self.kind() {
            IdentityKind::ServiceAccount { namespace, .. } => Some(namespace),
            _ => None,
        }
    }

    /// The account of a service-account identity.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match self.kind() {
            IdentityKind::ServiceAccount { account, .. } => Some(account),
            _ => None,
        }
    }

    /// True for everything below `/fairlead`: never issued to a service account.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        matches!(self.kind(), IdentityKind::Control | IdentityKind::Gateway | IdentityKind::Reserved)
    }

    /// Joins parts that are already checked.
    fn assemble(domain: &str, path: &str) -> Self {
        Self { uri: format!("{SCHEME}{domain}{path}").into(), domain_bytes: domain.len() as u8 }
    }
}

fn check_trust_domain(text: &str) -> Result<(), SpiffeError> {
    if text.is_empty() {
        return Err(SpiffeError::NoTrustDomain);
    }
    if text.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(SpiffeError::TrustDomainTooLong);
    }
    let bad = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'));
    match bad {
        Some(c) => Err(SpiffeError::TrustDomainCharacter(c)),
        None => Ok(()),
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    match segment {
        "" => return Err(SpiffeError::EmptySegment),
        "." | ".." => return Err(SpiffeError::DotSegment),
        _ => {}
    }
    let bad = segment.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')));
    match bad {
        Some(c) => Err(SpiffeError::PathCharacter(c)),
        None => Ok(()),
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.uri)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
