//! One resource as it is handed to discovery.
//!
//! Invariant: equal versions of one (type, name) have equal meaning, on every replica and after every restart.

use crate::names::ResourceName;
use bytes::Bytes;
use fairlead_model::Origin;
use fairlead_proto::ResourceType;
use std::sync::Arc;

/// A generated resource. Shared by all proxies that get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    pub kind: ResourceType,
    pub name: ResourceName,
    /// The name as it is written.
    pub text: Arc<str>,
    /// 32 hexadecimal digits of the SHA-256 of the canonical JSON of its input and the generators' revision.
    pub version: Arc<str>,
    /// An encoded `google.protobuf.Any` (the form that `fairlead_proto::any::unpack_bytes` reads).
    pub body: Bytes,
    /// The objects it came from, in the order in which they matter.
    pub origins: Vec<Origin>,
}

impl Generated {
    /// `type.googleapis.com/…`
    pub fn type_url(&self) -> &'static str {
        self.kind.url()
    }
}
