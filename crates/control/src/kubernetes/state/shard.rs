//! Which object holds which value, and how it is written there. Pure.
//!
//! A value is an entry `bucket/key` of one Secret; which one depends on the key alone, so that two replicas that write the same key meet
//! at the same object. Invariant: what is written is read back equal; no object grows beyond what the API server takes.

use crate::kubernetes::PART_OF;
use crate::store::Bucket;
use anyhow::Context as _;
use fairlead_identity::SignedStatement;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The CA, in the layout of Istio's `cacerts`.
pub const CA: &str = "fairlead-ca";
/// Marks the objects of this module.
pub const LABEL: (&str, &str) = ("fairlead.dev/state", "true");
const PREFIX: &str = "fairlead-state-";
const ENTRIES: &str = "entries.json";
const CA_ENTRY: &str = "authority/ca";
/// Of CaPem, what is no text.
const SEQUENCE: &str = "sequence";
/// An object may have 1 MiB, and base64 is no part of that.
const LARGEST: usize = 1_000_000;

/// How a bucket is spread and who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each replica has its own.
    Local,
    /// What was done at one replica; that one writes it.
    Origin { objects: u8 },
    /// What every replica derives alike; the holder of the lease writes it.
    Derived { objects: u8 },
    /// As derived, seldom: large, and good for a restart only. An object a key.
    Seldom,
}

pub fn sharing(bucket: Bucket) -> Sharing {
    match bucket {
        Bucket::Authority
        | Bucket::Tokens
        | Bucket::DetachedHere
        | Bucket::Introduced
        | Bucket::Switches
        | Bucket::Names => Sharing::Origin { objects: 1 },
        Bucket::Burned => Sharing::Origin { objects: 4 },
        Bucket::Membership => Sharing::Origin { objects: 16 },
        Bucket::VirtualIps => Sharing::Derived { objects: 16 },
        Bucket::Peers | Bucket::PeersTold => Sharing::Seldom,
        // Proxies report to the replica that serves them; the rest is found anew at the API server.
        Bucket::PeerStreams
        | Bucket::Reports
        | Bucket::LastGood
        | Bucket::Mesh
        | Bucket::TokenKeys
        | Bucket::PluggedIn => Sharing::Local,
    }
}

/// The object that holds a value; `None` for what is not shared.
pub fn object(bucket: Bucket, key: &str) -> Option<String> {
    let numbered = |objects: u8| {
        if objects == 1 {
            return format!("{PREFIX}{}", bucket.name());
        }
        let first = Sha256::digest(key.as_bytes())[0];
        format!("{PREFIX}{}-{}", bucket.name(), first % objects)
    };
    match sharing(bucket) {
        Sharing::Local => None,
        _ if entry(bucket, key) == CA_ENTRY => Some(CA.into()),
        Sharing::Origin { objects } | Sharing::Derived { objects } => Some(numbered(objects)),
        // A cluster's name is a DNS label. What was heard of it travels with its summary, so that it is never ahead of it.
        Sharing::Seldom => Some(format!("{PREFIX}{}-{key}", Bucket::Peers.name())),
    }
}

fn entry(bucket: Bucket, key: &str) -> String {
    format!("{}/{key}", bucket.name())
}

/// What one object holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shard(BTreeMap<String, Value>);

impl Shard {
    /// # Errors
    /// It holds something else.
    pub fn read(secret: &Secret) -> anyhow::Result<Self> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let data = secret.data.as_ref();
        if name == CA {
            let text = |(name, bytes): (&String, &ByteString)| {
                let text = String::from_utf8(bytes.0.clone()).with_context(|| format!("{CA}: {name} is no text"))?;
                let value = match name.as_str() {
                    SEQUENCE => Value::from(text.trim().parse::<u64>().with_context(|| format!("{CA}: {name}"))?),
                    _ => Value::from(text),
                };
                Ok((name.clone(), value))
            };
            let fields: Map<String, Value> = data.into_iter().flatten().map(text).collect::<anyhow::Result<_>>()?;
            let missing = fairlead_identity::cacerts::FILES.into_iter().find(|file| !fields.contains_key(*file));
            anyhow::ensure!(missing.is_none(), "Secret {CA}: it has no {}", missing.unwrap_or_default());
            return Ok(Self(BTreeMap::from([(CA_ENTRY.to_owned(), Value::Object(fields))])));
        }
        // Whoever wrote it wrote entries, be they none.
        let bytes = data.and_then(|data| data.get(ENTRIES)).with_context(|| format!("Secret {name}: no {ENTRIES}"))?;
        let shard = serde_json::from_slice(&bytes.0).map(Self);
        let shard = shard.with_context(|| format!("Secret {name}: {ENTRIES} cannot be read"))?;
        for (bucket, key, value) in shard.entries() {
            sound(bucket, value).with_context(|| format!("Secret {name}: {}/{key} cannot be read", bucket.name()))?;
        }
        Ok(shard)
    }

    /// As an object: a new one, or in place of the one with this metadata.
    ///
    /// # Errors
    /// It is too large.
    pub fn write(&self, name: &str, metadata: Option<ObjectMeta>) -> anyhow::Result<Secret> {
        let mut metadata = metadata.unwrap_or_default();
        metadata.name = Some(name.into());
        metadata.managed_fields = None;
        let labels = metadata.labels.get_or_insert_default();
        for (label, value) in [LABEL, PART_OF] {
            labels.insert(label.into(), value.into());
        }
        let data = match self.0.get(CA_ENTRY) {
            Some(Value::Object(fields)) if name == CA => fields
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
                .map(|(name, text)| (name, ByteString(text.into_bytes())))
                .collect(),
            _ => BTreeMap::from([(ENTRIES.to_owned(), ByteString(serde_json::to_vec(&self.0)?))]),
        };
        let size: usize = data.values().map(|bytes| bytes.0.len()).sum();
        anyhow::ensure!(size <= LARGEST, "Secret {name} would hold {size} bytes, more than the API server takes");
        Ok(Secret { metadata, data: Some(data), ..Secret::default() })
    }

    pub fn get(&self, bucket: Bucket, key: &str) -> Option<&Value> {
        self.0.get(&entry(bucket, key))
    }

    /// Whether that changed anything.
    pub fn set(&mut self, bucket: Bucket, key: &str, value: Option<Value>) -> bool {
        let entry = entry(bucket, key);
        match value {
            Some(value) if self.0.get(&entry) == Some(&value) => false,
            Some(value) => {
                self.0.insert(entry, value);
                true
            }
            None => self.0.remove(&entry).is_some(),
        }
    }

    /// All that is in it.
    pub fn entries(&self) -> impl Iterator<Item = (Bucket, &str, &Value)> {
        self.0.iter().filter_map(|(entry, value)| {
            let (bucket, key) = entry.split_once('/')?;
            Some((Bucket::named(bucket)?, key, value))
        })
    }
}

/// Whether an object may say that a cluster is out.
pub fn holds_members(name: &str) -> bool {
    let of = |bucket: Bucket| name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(bucket.name()));
    of(Bucket::Membership) || of(Bucket::DetachedHere)
}

/// What says who is out is read as a whole: an entry that is passed over might be a revocation.
fn sound(bucket: Bucket, value: &Value) -> anyhow::Result<()> {
    match bucket {
        Bucket::Membership => drop(serde_json::from_value::<SignedStatement>(value.clone())?.stored()?),
        Bucket::DetachedHere => drop(serde_json::from_value::<bool>(value.clone())?),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_ca_is_four_files() {
        let name = object(Bucket::Authority, "ca").unwrap();
        assert_eq!(name, CA);
        assert_eq!(object(Bucket::Authority, "incarnation").unwrap(), "fairlead-state-authority");
        let mut shard = Shard::default();
        let ca =
            json!({"ca-cert.pem": "a", "ca-key.pem": "b", "root-cert.pem": "c", "cert-chain.pem": "d", "sequence": 3});
        assert!(shard.set(Bucket::Authority, "ca", Some(ca.clone())) && !shard.set(Bucket::Authority, "ca", Some(ca)));
        let secret = shard.write(&name, None).unwrap();
        assert_eq!(secret.data.as_ref().unwrap()["ca-key.pem"].0, b"b");
        assert_eq!(Shard::read(&secret).unwrap(), shard);
    }

    #[test]
    fn entries_are_spread_by_key_and_read_back() {
        let mut shards: BTreeMap<String, Shard> = BTreeMap::new();
        for n in 0..5000_u32 {
            let host = format!("*.h{n}.shop.svc.cluster.local");
            let name = object(Bucket::VirtualIps, &host).unwrap();
            shards.entry(name).or_default().set(Bucket::VirtualIps, &host, Some(json!(format!("240.240.0.{n}"))));
        }
        assert_eq!(shards.len(), 16);
        let read = shards.iter().map(|(name, shard)| Shard::read(&shard.write(name, None).unwrap()).unwrap());
        assert_eq!(read.map(|shard| shard.entries().count()).sum::<usize>(), 5000);
        assert_eq!(object(Bucket::Peers, "west"), object(Bucket::PeersTold, "west"));
        assert_eq!(object(Bucket::Reports, "x"), None);
        let mut large = Shard::default();
        large.set(Bucket::Peers, "west", Some(json!("x".repeat(LARGEST))));
        let error = large.write("fairlead-state-peers-west", None).unwrap_err().to_string();
        assert!(error.contains("fairlead-state-peers-west") && error.contains("more than"), "{error}");
    }
}
