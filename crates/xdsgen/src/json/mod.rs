//! Resources as JSON, for people and for Envoy's own configuration files.
//!
//! Needs a descriptor set of Envoy's API (feature `json`); it is large, so it is loaded where it is asked for and never on
//! the data path. Must never decide anything. Invariant: an `Any` inside is expanded if its type is known, and an error if
//! it is not, so that nothing is shown half.

mod bootstrap;

pub use bootstrap::{SecretFiles, static_bootstrap};

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

/// Why a resource has no JSON form.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("the descriptor set is unreadable: {0}")]
    Descriptors(prost_reflect::DescriptorError),
    #[error("the descriptor set lacks `{0}`")]
    UnknownType(String),
    #[error("`{0}` does not decode: {1}")]
    Malformed(String, String),
    #[error("{0}")]
    Incomplete(String),
}

/// Envoy's messages by name.
pub struct Descriptors {
    pool: DescriptorPool,
}

impl Descriptors {
    /// Reads a `FileDescriptorSet`.
    ///
    /// # Errors
    /// [`JsonError::Descriptors`] if it is none.
    pub fn decode(set: &[u8]) -> Result<Self, JsonError> {
        Ok(Self { pool: DescriptorPool::decode(set).map_err(JsonError::Descriptors)? })
    }

    /// An encoded `google.protobuf.Any` with its type in `@type` and Envoy's field names.
    ///
    /// # Errors
    /// An unknown type, or bytes that are no message of it.
    pub fn any(&self, encoded: &[u8]) -> Result<Value, JsonError> {
        if let Ok((kind, resource)) = fairlead_proto::JsonResource::from_any_bytes(encoded) {
            let json: Value = serde_json::from_slice(&resource.json)
                .map_err(|e| JsonError::Malformed(kind.url().to_owned(), e.to_string()))?;
            return Ok(serde_json::json!({"@type": kind.url(), "revision": resource.revision, "json": json}));
        }
        let name = "google.protobuf.Any";
        let descriptor = self.pool.get_message_by_name(name).ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
        let message = DynamicMessage::decode(descriptor, encoded)
            .map_err(|e| JsonError::Malformed(name.to_owned(), e.to_string()))?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|e| JsonError::Malformed(name.to_owned(), e.to_string()))
    }
}
