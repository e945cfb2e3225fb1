//! What a control plane must remember over a restart: one redb file in its state directory.
//!
//! Small JSON values by (bucket, key); every write is durable on return. On Kubernetes the file is a pod's own copy, and what it holds is
//! [`Shared`] with the replicas and with later pods. Invariant: a value that cannot be read back is reported
//! and taken as absent, never as an error that keeps the control plane from starting.

use anyhow::Context as _;
use fairlead_identity::join_token::StoreError;
use fairlead_identity::{StoredToken, TokenId, TokenStore};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use rustls::pki_types::UnixTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

/// What is kept is read at the start and written after that; what is read again is small.
const CACHE: usize = 2 * 1024 * 1024;

/// Between two looks at whether something is passed on.
const LOOK: Duration = Duration::from_millis(10);

/// What belongs together; a key is `bucket/key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// The CA's PEM and secrets of this control plane.
    Authority,
    /// Host to virtual IP.
    VirtualIps,
    /// Join tokens by id.
    Tokens,
    /// Used-up token ids, with their expiry.
    Burned,
    /// Signed statements by cluster.
    Membership,
    /// Clusters detached only here.
    DetachedHere,
    /// Clusters that joined by a token of ours, or by whose token we joined.
    Introduced,
    /// Last good summary by peer.
    Peers,
    /// How far each peer was heard.
    PeersTold,
    /// What a peer's stream had told, so that a new one tells differences only. Not JSON.
    PeerStreams,
    /// Last report by workload.
    Reports,
    /// The last version of each file, or object of an API server, in which nothing was refused. Not JSON of ours.
    LastGood,
    /// `mesh.yaml` as it last was good. Not JSON.
    Mesh,
    /// This cluster's own switches, such as being drained.
    Switches,
    /// Who signs service-account tokens, for the time that the API server is away.
    TokenKeys,
    /// The CA that an operator plugged in, as it was last.
    PluggedIn,
    /// Names that somebody joins under, for as long as that takes.
    Names,
}

/// Who has a name, and until when (Unix seconds).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holding {
    holder: String,
    ends: u64,
}

/// One write; `None` removes.
pub type Write = (Bucket, String, Option<Vec<u8>>);

/// Where other replicas and later starts find what is stored here.
pub trait Shared: Send + Sync {
    /// Puts a value where all see it, unless there is one other than `instead_of`; gives that one. Blocks until it is kept.
    fn first(
        &self,
        bucket: Bucket,
        key: &str,
        value: &[u8],
        instead_of: Option<&[u8]>,
    ) -> anyhow::Result<Option<Vec<u8>>>;

    /// What is there now, for what was done at another replica a moment ago. Blocks.
    fn look(&self, bucket: Bucket, key: &str) -> anyhow::Result<Option<Vec<u8>>>;

    /// These were written here; they are passed on soon.
    fn changed(&self, writes: &[Write]);

    /// Whether everything that was done here is passed on.
    fn is_passed_on(&self) -> bool;

    /// What is kept there and cannot be read.
    fn unreadable(&self) -> Vec<Unreadable>;
}

/// An object of what is shared that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub object: String,
    pub why: String,
    /// It says who is a member, and who is not any more.
    pub of_members: bool,
    /// What was in it before is not known here.
    pub is_unknown: bool,
}

impl Unreadable {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let name = &self.object;
        format!(
            "put Secret {name} back from a backup; or delete it: control planes that run and knew what was in it write it again, and if none \
             did, detach every cluster again that was detached, and join again those that are missing"
        )
    }
}

/// The one state file.
pub struct Store {
    database: Database,
    shared: OnceLock<Arc<dyn Shared>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("is_shared", &self.shared.get().is_some()).finish_non_exhaustive()
    }
}

impl Bucket {
    pub const ALL: [Self; 17] = [
        Self::Authority,
        Self::VirtualIps,
        Self::Tokens,
        Self::Burned,
        Self::Membership,
        Self::DetachedHere,
        Self::Introduced,
        Self::Peers,
        Self::PeersTold,
        Self::PeerStreams,
        Self::Reports,
        Self::LastGood,
        Self::Mesh,
        Self::Switches,
        Self::TokenKeys,
        Self::PluggedIn,
        Self::Names,
    ];

    /// By its name in the store.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::VirtualIps => "virtual-ips",
            Self::Tokens => "tokens",
            Self::Burned => "burned",
            Self::Membership => "membership",
            Self::DetachedHere => "detached-here",
            Self::Introduced => "introduced",
            Self::Peers => "peers",
            Self::PeersTold => "peers-told",
            Self::PeerStreams => "peer-streams",
            Self::Reports => "reports",
            Self::LastGood => "last-good",
            Self::Mesh => "mesh",
            Self::Switches => "switches",
            Self::TokenKeys => "token-keys",
            Self::PluggedIn => "plugged-in",
            Self::Names => "names",
        }
    }
}

impl Store {
    /// Opens or makes `state.redb` in `folder`, readable by this user only.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("state.redb");
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Self::with(database)
    }

    /// A store that forgets: for measuring and for tests.
    pub fn in_memory() -> anyhow::Result<Self> {
        Self::with(Database::builder().create_with_backend(redb::backends::InMemoryBackend::new())?)
    }

    fn with(database: Database) -> anyhow::Result<Self> {
        let write = database.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Self { database, shared: OnceLock::new() })
    }

    /// Everything that is written from now on is passed on. Once.
    pub fn share(&self, shared: Arc<dyn Shared>) {
        let _ = self.shared.set(shared);
    }

    fn tell(&self, writes: &[Write]) {
        if let Some(shared) = self.shared.get() {
            shared.changed(writes);
        }
    }

    /// Waits until what was done here would survive the loss of this pod; whether it does in time.
    pub async fn is_safe(&self, within: Duration) -> bool {
        let Some(shared) = self.shared.get() else { return true };
        let passed_on = async {
            while !shared.is_passed_on() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(within, passed_on).await.is_ok()
    }

    /// What is shared and cannot be read.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.shared.get().map(|shared| shared.unreadable()).unwrap_or_default()
    }

    /// Takes what others wrote: it is not passed on.
    pub fn take(&self, writes: Vec<Write>) -> anyhow::Result<()> {
        if writes.is_empty() { Ok(()) } else { self.keep(&writes) }
    }

    pub fn has(&self, bucket: Bucket, key: &str) -> anyhow::Result<bool> {
        Ok(self.load_bytes(bucket, key)?.is_some())
    }

    pub fn load<T: DeserializeOwned>(&self, bucket: Bucket, key: &str) -> anyhow::Result<Option<T>> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TABLE)?;
        let name = format!("{}/{key}", bucket.name());
        let Some(value) = table.get(name.as_str())? else { return Ok(None) };
        Ok(readable(bucket, key, value.value()))
    }

    /// All of a bucket, by key.
    pub fn all<T: DeserializeOwned>(&self, bucket: Bucket) -> anyhow::Result<Vec<(String, T)>> {
        let entries = self.all_bytes(bucket)?.into_iter();
        Ok(entries.filter_map(|(key, bytes)| Some((key.clone(), readable(bucket, &key, &bytes)?))).collect())
    }

    /// All of a bucket that does not hold JSON, by key.
    pub fn all_bytes(&self, bucket: Bucket) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TABLE)?;
        let prefix = format!("{}/", bucket.name());
        let mut found = Vec::new();
        for entry in table.range(prefix.as_str()..)? {
            let (name, value) = entry?;
            let Some(key) = name.value().strip_prefix(&prefix) else { break };
            found.push((key.to_owned(), value.value().to_owned()));
        }
        Ok(found)
    }

    /// Several writes at once; `None` removes.
    pub fn write(&self, writes: impl IntoIterator<Item = Write>) -> anyhow::Result<()> {
        let writes: Vec<Write> = writes.into_iter().collect();
        if writes.is_empty() {
            return Ok(());
        }
        self.keep(&writes)?;
        self.tell(&writes);
        Ok(())
    }

    fn keep(&self, writes: &[Write]) -> anyhow::Result<()> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for (bucket, key, bytes) in writes {
                let name = format!("{}/{key}", bucket.name());
                match bytes {
                    Some(bytes) => table.insert(name.as_str(), bytes.as_slice())?,
                    None => table.remove(name.as_str())?,
                };
            }
        }
        write.commit()?;
        Ok(())
    }

    /// The bytes of a value that is not JSON.
    pub fn load_bytes(&self, bucket: Bucket, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TABLE)?;
        Ok(table.get(format!("{}/{key}", bucket.name()).as_str())?.map(|value| value.value().to_owned()))
    }

    pub fn save<T: Serialize>(&self, bucket: Bucket, key: &str, value: &T) -> anyhow::Result<()> {
        self.write([(bucket, key.to_owned(), Some(serde_json::to_vec(value)?))])
    }

    /// Forgets tokens, used or not, that are of no use any more because they ended.
    pub fn forget_expired(&self, now: UnixTime) -> anyhow::Result<()> {
        let used = self.all::<u64>(Bucket::Burned)?.into_iter().map(|(key, ends)| (Bucket::Burned, key, ends));
        let tokens = self.all::<StoredToken>(Bucket::Tokens)?;
        let unused = tokens.into_iter().map(|(key, token)| (Bucket::Tokens, key, token.expires));
        let ended = used.chain(unused).filter(|(_, _, ends)| *ends < now.as_secs());
        self.write(ended.map(|(bucket, key, _)| (bucket, key, None)))
    }

    /// Replaces all of a bucket at once.
    pub fn replace<T: Serialize>(&self, bucket: Bucket, entries: &[(String, T)]) -> anyhow::Result<()> {
        let mut gone: BTreeMap<String, Vec<u8>> = self.all_bytes(bucket)?.into_iter().collect();
        let mut writes: Vec<Write> = Vec::new();
        for (key, value) in entries {
            let bytes = serde_json::to_vec(value)?;
            if gone.remove(key).as_ref() != Some(&bytes) {
                writes.push((bucket, key.clone(), Some(bytes)));
            }
        }
        writes.extend(gone.into_keys().map(|key| (bucket, key, None)));
        self.write(writes)
    }

    /// Of all replicas, the value of the one that was first; kept here too. Waits for where it is shared.
    pub fn first<T: Serialize + DeserializeOwned>(&self, bucket: Bucket, key: &str, value: T) -> anyhow::Result<T> {
        let bytes = serde_json::to_vec(&value)?;
        let before = self.shared.get().map(|shared| shared.first(bucket, key, &bytes, None)).transpose()?.flatten();
        let Some(before) = before else {
            self.keep(&[(bucket, key.to_owned(), Some(bytes))])?;
            return Ok(value);
        };
        let value = serde_json::from_slice(&before).with_context(|| format!("{}/{key} of another", bucket.name()))?;
        self.keep(&[(bucket, key.to_owned(), Some(before))])?;
        Ok(value)
    }

    /// Whether `holder` has a name from now on, of all that ask any replica: it was free, or its own, or the time of who had it is over.
    /// Where nothing is shared there is nobody else who could be asked.
    pub fn hold(&self, bucket: Bucket, key: &str, holder: &str, life: Duration, now: UnixTime) -> anyhow::Result<bool> {
        let Some(shared) = self.shared.get() else { return Ok(true) };
        let wanted = Holding { holder: holder.into(), ends: now.as_secs() + life.as_secs() };
        let bytes = serde_json::to_vec(&wanted)?;
        let is_over = |held: &[u8]| {
            let held: Option<Holding> = serde_json::from_slice(held).ok();
            held.is_none_or(|held| held.holder == wanted.holder || held.ends <= now.as_secs())
        };
        let mut instead_of: Option<Vec<u8>> = None;
        loop {
            match shared.first(bucket, key, &bytes, instead_of.as_deref())? {
                None => {
                    self.keep(&[(bucket, key.to_owned(), Some(bytes))])?;
                    return Ok(true);
                }
                // Exactly this one is replaced: another that came meanwhile is looked at too.
                Some(held) if is_over(&held) && instead_of.as_ref() != Some(&held) => instead_of = Some(held),
                Some(_) => return Ok(false),
            }
        }
    }

    /// Writes only if the key is absent, here and wherever it is shared; whether it was.
    fn claim<T: Serialize>(&self, bucket: Bucket, key: &str, value: &T) -> anyhow::Result<bool> {
        let bytes = serde_json::to_vec(value)?;
        if self.has(bucket, key)? {
            return Ok(false);
        }
        // Where it is shared, that decides: who was first there is told of it as all are, maybe before this goes on.
        if let Some(shared) = self.shared.get() {
            let before = shared.first(bucket, key, &bytes, None)?;
            let is_first = before.is_none();
            self.keep(&[(bucket, key.to_owned(), Some(before.unwrap_or(bytes)))])?;
            return Ok(is_first);
        }
        let name = format!("{}/{key}", bucket.name());
        let write = self.database.begin_write()?;
        let fresh = {
            let mut table = write.open_table(TABLE)?;
            let fresh = table.get(name.as_str())?.is_none();
            if fresh {
                table.insert(name.as_str(), bytes.as_slice())?;
            }
            fresh
        };
        write.commit()?;
        Ok(fresh)
    }
}

impl TokenStore for Store {
    fn put(&self, token: StoredToken) -> Result<(), StoreError> {
        // Whoever has it may come to any replica.
        self.first(Bucket::Tokens, &token.id.to_string(), token).map(drop).map_err(store_error)
    }

    fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
        let key = id.to_string();
        let known = self.load(Bucket::Tokens, &key).map_err(store_error)?;
        let Some(shared) = self.shared.get().filter(|_| known.is_none()) else { return Ok(known) };
        // It may have been made at another replica that is not heard of yet.
        let found = shared.look(Bucket::Tokens, &key).map_err(store_error)?;
        Ok(found.and_then(|bytes| readable(Bucket::Tokens, &key, &bytes)))
    }

    fn burn(&self, id: &TokenId, expires: u64) -> Result<bool, StoreError> {
        self.claim(Bucket::Burned, &id.to_string(), &expires).map_err(store_error)
    }

    fn is_burned(&self, id: &TokenId) -> Result<bool, StoreError> {
        let burned: Option<u64> = self.load(Bucket::Burned, &id.to_string()).map_err(store_error)?;
        Ok(burned.is_some())
    }
}

fn store_error(error: anyhow::Error) -> StoreError {
    StoreError(format!("{error:#}"))
}

fn readable<T: DeserializeOwned>(bucket: Bucket, key: &str, bytes: &[u8]) -> Option<T> {
    let report =
        |e: &serde_json::Error| tracing::error!("stored {}/{key} cannot be read and is left out: {e}", bucket.name());
    serde_json::from_slice(bytes).inspect_err(report).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_and_tokens_burn_once() {
        let folder = tempfile::tempdir().unwrap();
        let id = TokenId::from_bytes([7; 16]);
        {
            let store = Store::open(folder.path()).unwrap();
            store.save(Bucket::Peers, "west", &1).unwrap();
            store.save(Bucket::Peers, "north", &2).unwrap();
            store.save(Bucket::Tokens, "x", &3).unwrap();
            assert!(store.burn(&id, 9).unwrap());
        }
        let store = Store::open(folder.path()).unwrap();
        assert!(!store.burn(&id, 9).unwrap());
        assert_eq!(store.all::<i32>(Bucket::Peers).unwrap(), [("north".into(), 2), ("west".into(), 1)]);
        store.replace(Bucket::Peers, &[("south".into(), 4)]).unwrap();
        assert_eq!(store.all::<i32>(Bucket::Peers).unwrap(), [("south".into(), 4)]);
        assert_eq!(store.load::<i32>(Bucket::Tokens, "x").unwrap(), Some(3));
        assert_eq!(store.load::<String>(Bucket::Tokens, "x").unwrap(), None, "unreadable is absent");
    }
}
