//! What a client keeps on disk: its subscriptions and the resources it last acked.
//!
//! The caller stores the bytes; no keys are in them unless the caller subscribes to keys. Invariant: what `decode`
//! gives back is what `encode` was given, or an error, never a part: the encoding carries its length and checksum.

use crate::{Name, Resource};
use bytes::Bytes;
use prost::Message;

/// The acked state of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Freshness of the newest state a part of it was acked from.
    pub freshness: String,
    /// By type url, in the order of first subscription.
    pub types: Vec<SavedType>,
}

/// The acked state of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedType {
    /// The type.
    pub type_url: String,
    /// Whether all of it was subscribed to.
    pub wildcard: bool,
    /// Names subscribed to.
    pub names: Vec<Name>,
    /// Resources acked, by name.
    pub resources: Vec<Resource>,
}

/// Why saved bytes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Not made by `encode`, or by another version of it.
    #[error("not a saved discovery state of this version")]
    Unknown,
    /// Cut short or changed.
    #[error("saved discovery state is damaged")]
    Damaged,
}

/// First bytes of the file; the last is its version.
const MAGIC: &[u8; 8] = b"FLXDSv\0\x01";

impl Saved {
    /// Every resource with the type it belongs to.
    pub fn resources(&self) -> impl Iterator<Item = (&str, &Resource)> {
        self.types.iter().flat_map(|t| t.resources.iter().map(|r| (t.type_url.as_str(), r)))
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let body = wire(self).encode_to_vec();
        let mut bytes = Vec::with_capacity(body.len() + 16);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&checksum(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`SavedError`]; the client then starts with nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SavedError::Unknown)?;
        let (sum, body) = rest.split_first_chunk::<8>().ok_or(SavedError::Damaged)?;
        if u64::from_le_bytes(*sum) != checksum(body) {
            return Err(SavedError::Damaged);
        }
        let wire = WireSaved::decode(body).map_err(|_| SavedError::Damaged)?;
        Ok(Saved { freshness: wire.freshness, types: wire.types.into_iter().map(unwire).collect() })
    }
}

#[derive(Clone, PartialEq, Message)]
struct WireSaved {
    #[prost(string, tag = "1")]
    freshness: String,
    #[prost(message, repeated, tag = "2")]
    types: Vec<WireType>,
}

#[derive(Clone, PartialEq, Message)]
struct WireType {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bool, tag = "2")]
    wildcard: bool,
    #[prost(string, repeated, tag = "3")]
    names: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    resources: Vec<WireResource>,
}

#[derive(Clone, PartialEq, Message)]
struct WireResource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

fn wire(saved: &Saved) -> WireSaved {
    let resource =
        |r: &Resource| WireResource { name: r.name.to_string(), version: r.version.to_string(), body: r.body.clone() };
    let one = |t: &SavedType| WireType {
        type_url: t.type_url.clone(),
        wildcard: t.wildcard,
        names: t.names.iter().map(|name| name.to_string()).collect(),
        resources: t.resources.iter().map(resource).collect(),
    };
    WireSaved { freshness: saved.freshness.clone(), types: saved.types.iter().map(one).collect() }
}

fn unwire(wire: WireType) -> SavedType {
    SavedType {
        type_url: wire.type_url,
        wildcard: wire.wildcard,
        names: wire.names.into_iter().map(Name::from).collect(),
        resources: wire.resources.into_iter().map(|r| Resource::new(r.name, r.version, r.body)).collect(),
    }
}

/// FNV-1a: finds a torn or rotten file; it guards against nobody.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_finds_damage() {
        let saved = Saved {
            freshness: "east:7".into(),
            types: vec![SavedType {
                type_url: "t".into(),
                wildcard: true,
                names: vec!["a".into()],
                resources: vec![Resource::new("a", "1", &b"body"[..])],
            }],
        };
        let bytes = saved.encode();
        assert_eq!(Saved::decode(&bytes), Ok(saved));
        assert_eq!(Saved::decode(&bytes[..bytes.len() - 1]), Err(SavedError::Damaged));
        assert_eq!(Saved::decode(&bytes[..10]), Err(SavedError::Damaged));
        assert_eq!(Saved::decode(b""), Err(SavedError::Unknown));
        let mut rotten = bytes;
        rotten[20] ^= 1;
        assert_eq!(Saved::decode(&rotten), Err(SavedError::Damaged));
    }
}
