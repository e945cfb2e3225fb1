//! Join tokens: what one control plane's owner hands to another's so that the two can meet.
//!
//! A token is a secret. It pins the root of the cluster it leads to, is good once, and ends by its issuer's clock. The issuer's
//! store keeps only a key derived from the secret; burning is durable before the join is answered, so a crash can lose a token but
//! never let it be used twice.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::certificate::{self, SpkiHash};
use crate::instant;
use crate::random::{self, RandomError, RandomSource};

/// Longest token text accepted.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Most addresses in a token.
pub const MAX_ADDRESSES: usize = 8;

const PREFIX: &str = "fl1.";

/// What the token's text holds. Whoever has it may join until it is used or ends.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Where the issuing control plane listens, `host:port`, tried in order.
    pub addresses: Vec<String>,
    /// The key of the root its certificate must lead to.
    pub root: SpkiHash,
    /// The cluster that issued the token.
    pub cluster: String,
    /// The end, unix seconds, by the issuer's clock.
    pub expires: u64,
    secret: [u8; 32],
}

/// Names a token without giving its secret away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 16]);

/// What the issuer keeps of a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredToken {
    pub id: TokenId,
    /// Derived from the secret; proves its knowledge by HMAC.
    pub(crate) key: String,
    pub expires: u64,
}

/// The issuer's memory of tokens; in a directory a redb table, in Kubernetes an object. Every method is durable on return.
pub trait TokenStore: Send + Sync {
    /// Keeps a token.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be written.
    fn put(&self, token: StoredToken) -> Result<(), StoreError>;

    /// The token of this name, burned or not.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not be read; never taken for "no such token".
    fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError>;

    /// Uses a token up. True the first time, false ever after, also over restarts; `expires` says until when the name must
    /// be remembered. Works for names that were never put (workload tokens carry their own proof).
    ///
    /// # Errors
    /// [`StoreError`] when it could not be written; then the token must be taken as not usable.
    fn burn(&self, id: &TokenId, expires: u64) -> Result<bool, StoreError>;

    /// Whether it was used up. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not be read.
    fn is_burned(&self, id: &TokenId) -> Result<bool, StoreError>;
}

/// A token store in memory: tests, and issuers whose tokens may end with the process.
#[derive(Debug, Default)]
pub struct MemoryTokenStore {
    state: Mutex<MemoryState>,
}

/// The token store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token store: {0}")]
pub struct StoreError(pub String);

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a join token starts with `{PREFIX}`; make one with `fairlead token create`")]
    Prefix,
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    #[error("the token is damaged: {0}")]
    Damaged(String),
    #[error("a token needs one to {MAX_ADDRESSES} addresses")]
    Addresses,
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[derive(Debug, Default)]
struct MemoryState {
    tokens: BTreeMap<TokenId, StoredToken>,
    burned: BTreeMap<TokenId, u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenForm {
    a: Vec<String>,
    r: SpkiHash,
    s: String,
    c: String,
    e: u64,
}

impl JoinToken {
    /// Makes a token that ends `valid_for` after `now`, with what the issuer is to store.
    ///
    /// # Errors
    /// [`TokenError`] without an address or randomness.
    pub fn create(
        addresses: Vec<String>,
        root: SpkiHash,
        cluster: &str,
        valid_for: Duration,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<(Self, StoredToken), TokenError> {
        check_addresses(&addresses)?;
        let token = Self {
            addresses,
            root,
            cluster: cluster.to_owned(),
            expires: instant::later(now, valid_for).as_secs(),
            secret: random::bytes(random)?,
        };
        let stored = StoredToken { id: token.id(), key: certificate::hex(&token.key()), expires: token.expires };
        Ok((token, stored))
    }

    /// The token's name in the issuer's store.
    #[must_use]
    pub fn id(&self) -> TokenId {
        let digest = self.derive(b"fairlead join token id");
        let mut id = [0_u8; 16];
        id.copy_from_slice(&digest[..16]);
        TokenId(id)
    }

    /// The key that proves knowledge of the secret.
    pub(crate) fn key(&self) -> [u8; 32] {
        self.derive(b"fairlead join token key")
    }

    fn derive(&self, label: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(label).chain_update(self.secret).finalize().into()
    }
}

impl StoredToken {
    /// Has it ended? By the issuer's clock.
    #[must_use]
    pub fn is_expired(&self, now: UnixTime) -> bool {
        now.as_secs() >= self.expires
    }

    pub(crate) fn key_bytes(&self) -> Option<[u8; 32]> {
        certificate::unhex(&self.key)
    }
}

impl TokenId {
    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl TokenStore for MemoryTokenStore {
    fn put(&self, token: StoredToken) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tokens.insert(token.id, token);
        Ok(())
    }

    fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.tokens.get(id).cloned())
    }

    fn burn(&self, id: &TokenId, expires: u64) -> Result<bool, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.burned.insert(*id, expires).is_none())
    }

    fn is_burned(&self, id: &TokenId) -> Result<bool, StoreError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.burned.contains_key(id))
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = TokenForm {
            a: self.addresses.clone(),
            r: self.root,
            s: certificate::hex(&self.secret),
            c: self.cluster.clone(),
            e: self.expires,
        };
        let json = serde_json::to_vec(&form).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| TokenError::Damaged("it is not base64url; was it copied whole?".to_owned()))?;
        let form: TokenForm =
            serde_json::from_slice(&json).map_err(|_| TokenError::Damaged("its content cannot be read".to_owned()))?;
        check_addresses(&form.a)?;
        Ok(Self {
            addresses: form.a,
            root: form.r,
            cluster: form.c,
            expires: form.e,
            secret: certificate::unhex(&form.s).ok_or_else(|| TokenError::Damaged("its secret is short".to_owned()))?,
        })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("JoinToken")
            .field("id", &self.id())
            .field("cluster", &self.cluster)
            .field("addresses", &self.addresses)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StoredToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredToken").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&certificate::hex(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        certificate::unhex(text)
            .map(Self)
            .ok_or_else(|| TokenError::Damaged("a token's name is 32 hexadecimal digits".to_owned()))
    }
}

impl Serialize for TokenId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn check_addresses(addresses: &[String]) -> Result<(), TokenError> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(TokenError::Addresses);
    }
    Ok(())
}
