//! The envelopes of everything that is ours: JSON of a model type inside a tiny protobuf message.
//!
//! The content belongs to the crates that own the model types; here it is bytes. Invariant: a reader can tell
//! what it holds (type url or `kind`) and which shape it has (`revision`) without parsing the JSON.

use crate::ResourceType;
use crate::any::{self, Any, AnyError};
use bytes::Bytes;
use prost::Message;

/// The body of each of our resources (`fairlead.mesh.v1.NameTable`, `fairlead.peering.v1.*`): one message, its
/// meaning given by the type url of the `Any` around it.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct JsonResource {
    /// JSON of the model type, UTF-8.
    #[prost(bytes = "bytes", tag = "1")]
    pub json: Bytes,
    /// Revision of the JSON's shape, so that a reader of another version knows what it has before it. Starts at 1.
    #[prost(uint32, tag = "2")]
    pub revision: u32,
}

/// A message of one of our services whose meaning is given by `kind`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct JsonMessage {
    /// What the JSON is, in kebab case: `readiness`, `path`, `acked`, `drain`, `introduce`…
    #[prost(string, tag = "1")]
    pub kind: String,
    /// JSON of the model type, UTF-8.
    #[prost(bytes = "bytes", tag = "2")]
    pub json: Bytes,
}

impl JsonResource {
    /// An envelope around `json`, written in the shape numbered `revision`.
    pub fn new(revision: u32, json: impl Into<Bytes>) -> Self {
        JsonResource { json: json.into(), revision }
    }

    /// The `Any` of this resource under the type url of `kind`.
    pub fn to_any(&self, kind: ResourceType) -> Any {
        Any { type_url: kind.url().to_owned(), value: self.encode_to_vec() }
    }

    /// The encoded `Any`: the form in which discovery stores and sends resources.
    pub fn to_any_bytes(&self, kind: ResourceType) -> Bytes {
        Bytes::from(self.to_any(kind).encode_to_vec())
    }

    /// Reads an encoded `Any` that holds one of our resources.
    ///
    /// # Errors
    /// [`AnyError::WrongType`] when it holds something else, [`AnyError::Malformed`] when it does not parse.
    pub fn from_any_bytes(encoded: &[u8]) -> Result<(ResourceType, Self), AnyError> {
        let any = any::decode(encoded)?;
        let ours = any.type_url.parse().ok().filter(|kind: &ResourceType| kind.is_json());
        let Some(kind) = ours else {
            return Err(AnyError::WrongType { expected: "fairlead.*".to_owned(), found: any.type_url });
        };
        let resource = JsonResource::decode(any.value.as_slice()).map_err(|e| any::malformed(kind.url(), e))?;
        Ok((kind, resource))
    }
}

impl ResourceType {
    /// Whether resources of this kind are [`JsonResource`]s.
    pub fn is_json(self) -> bool {
        self.url().contains("/fairlead.")
    }
}

impl JsonMessage {
    /// A message of the given kind.
    pub fn new(kind: impl Into<String>, json: impl Into<Bytes>) -> Self {
        JsonMessage { kind: kind.into(), json: json.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envoy_resource_is_not_taken_for_ours() {
        let listener = any::pack_bytes(&crate::envoy::listener::Listener::default());
        assert!(matches!(JsonResource::from_any_bytes(&listener), Err(AnyError::WrongType { .. })));
    }

    #[test]
    fn encoding_is_deterministic() {
        let body = JsonResource::new(3, &b"{}"[..]);
        assert_eq!(body.encode_to_vec(), [10, 2, b'{', b'}', 16, 3]);
    }
}
