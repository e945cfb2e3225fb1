//! Newtypes for names that must not be confused.
//!
//! Invariant: a `ClusterId` names a member of the mesh, never an Envoy cluster; a `NetworkId` names a set of addresses
//! that reach each other directly, never a locality.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name as it is written; validity is checked where the name is read.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self::new(name)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl Default for $name {
            fn default() -> Self {
                Self::new("")
            }
        }
    };
}

name!(
    /// A member of the mesh: a DNS label of at most 32 characters; `outside` is reserved.
    ClusterId
);
name!(
    /// Addresses that reach each other directly. The empty network (profile `istio`) equals every other.
    NetworkId
);

impl NetworkId {
    /// Whether an address of `other` can be dialled directly from here.
    pub fn reaches(&self, other: &NetworkId) -> bool {
        self.0.is_empty() || other.0.is_empty() || self == other
    }
}

impl ClusterId {
    /// Why `name` cannot name a cluster, if it cannot (DNS label, at most 32 characters, not `outside`).
    pub fn problem(name: &str) -> Option<&'static str> {
        if name == "outside" {
            return Some("`outside` is reserved for clients that are no members");
        }
        if name.is_empty() || name.len() > 32 {
            return Some("a cluster name has 1 to 32 characters");
        }
        let ok = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        (!ok).then_some("a cluster name is a DNS label: lower-case letters, digits and inner hyphens")
    }
}

/// Where a workload runs: region, zone and subzone, each possibly unset (empty).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Locality {
    #[serde(default)]
    pub region: String,
    #[serde(default)]
    pub zone: String,
    #[serde(default)]
    pub subzone: String,
}

impl Locality {
    /// Reads `region/zone/subzone`, missing parts unset (Istio WorkloadEntry.locality).
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        Self { region: next(), zone: next(), subzone: next() }
    }

    pub fn is_unset(&self) -> bool {
        self.region.is_empty()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}
