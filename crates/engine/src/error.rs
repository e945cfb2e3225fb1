//! Why a resource, or a part of one, could not be taken.
//!
//! Invariant: an error names the field it is about and what would be right; it never carries a whole resource.

use fairlead_proto::ResourceType;
use std::fmt;

/// One thing that is wrong with a resource: where and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Field path inside the resource, Envoy's field names: `filter_chains[2].filters[0].typed_config`.
    pub field: String,
    /// What is wrong, and what would be accepted.
    pub message: String,
}

/// A resource that was not taken; the last good one of this name, if any, stays in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub kind: ResourceType,
    pub name: String,
    /// Version of the refused resource.
    pub version: String,
    pub error: DecodeError,
}

/// Shorthand of every decoder.
pub(crate) type Decoded<T> = Result<T, DecodeError>;

impl DecodeError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// A field Envoy knows and this proxy does not implement.
    pub(crate) fn unsupported(field: impl Into<String>) -> Self {
        Self::new(field, "is not implemented by this proxy; remove it")
    }

    /// The same error, seen from the message that holds the field.
    pub(crate) fn inside(mut self, outer: impl fmt::Display) -> Self {
        self.field = if self.field.is_empty() {
            outer.to_string()
        } else if self.field.starts_with('[') {
            format!("{outer}{}", self.field)
        } else {
            format!("{outer}.{}", self.field)
        };
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

impl std::error::Error for DecodeError {}

impl From<fairlead_proto::any::AnyError> for DecodeError {
    fn from(error: fairlead_proto::any::AnyError) -> Self {
        Self::new("", error.to_string())
    }
}
