//! Packing messages into `google.protobuf.Any` and back.
//!
//! Unpacking checks the type url: bytes of one message that happen to parse as another are the classic silent
//! corruption. Nothing here looks inside a message.

use bytes::Bytes;
use prost::{Message, Name};
use std::fmt;

pub use envoy_types::pb::google::protobuf::Any;

/// Why an `Any` could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyError {
    /// The `Any` holds another type than the one asked for.
    WrongType {
        /// Type url asked for; a list of alternatives is written with `|`.
        expected: String,
        /// Type url found.
        found: String,
    },
    /// The bytes are not a message of that type.
    Malformed {
        /// Type url of the message.
        type_url: String,
        /// What the decoder said.
        reason: String,
    },
}

/// Packs a message; its type url comes from [`prost::Name`].
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Packs a message and encodes the `Any` itself: the form in which discovery stores and sends resources.
pub fn pack_bytes<M: Message + Name>(message: &M) -> Bytes {
    Bytes::from(pack(message).encode_to_vec())
}

/// Takes a message out of an `Any`.
///
/// # Errors
/// [`AnyError::WrongType`] when the type url is another's, [`AnyError::Malformed`] when the bytes do not parse.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, AnyError> {
    let expected = M::type_url();
    // The host part of a type url carries no meaning: only what follows the last slash names the type.
    if any.type_url.rsplit('/').next() != expected.rsplit('/').next() {
        return Err(AnyError::WrongType { expected, found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|e| malformed(&expected, e))
}

/// Decodes an encoded `Any` without looking at what it holds.
///
/// # Errors
/// [`AnyError::Malformed`] when the bytes are no `Any`.
pub fn decode(encoded: &[u8]) -> Result<Any, AnyError> {
    Any::decode(encoded).map_err(|e| malformed("type.googleapis.com/google.protobuf.Any", e))
}

/// Decodes an encoded `Any` and takes the message out of it.
///
/// # Errors
/// As [`decode`] and [`unpack`].
pub fn unpack_bytes<M: Message + Name + Default>(encoded: &[u8]) -> Result<M, AnyError> {
    unpack(&decode(encoded)?)
}

pub(crate) fn malformed(type_url: &str, error: prost::DecodeError) -> AnyError {
    AnyError::Malformed { type_url: type_url.to_owned(), reason: error.to_string() }
}

impl fmt::Display for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyError::WrongType { expected, found } => {
                write!(f, "expected a message of type {expected}, found {found:?}")
            }
            AnyError::Malformed { type_url, reason } => write!(f, "malformed {type_url}: {reason}"),
        }
    }
}

impl std::error::Error for AnyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::{core::Address, listener::Listener};

    #[test]
    fn another_type_is_refused_even_if_it_parses() {
        let any = pack(&Address::default());
        let error = unpack::<Listener>(&any).unwrap_err();
        assert!(matches!(error, AnyError::WrongType { .. }), "{error}");
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let any = Any { type_url: Listener::type_url(), value: vec![0xff; 9] };
        assert!(matches!(unpack::<Listener>(&any), Err(AnyError::Malformed { .. })));
        assert!(decode(&[0xff; 3]).is_err());
    }
}
