//! What must outlive a pod, as Secrets of the system namespace: the local store is written first, these objects follow, and every replica
//! hears of them.
//!
//! Each write reads the object and replaces exactly that version, so that replicas never overwrite each other. What must be true for all
//! before it is used (a burned token, the CA) is written here first. Invariants: nothing waits for the API server but what must; what
//! could not be written is written later; an object that somebody deleted comes back; one that cannot be read is told of, and left as it is.

mod damage;
mod follow;
mod shard;
#[cfg(test)]
mod tests;

use super::lease::Leadership;
use crate::status::Status;
use crate::store::{Bucket, Shared, Store, Unreadable, Write};
use anyhow::Context as _;
use damage::Damage;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use parking_lot::Mutex;
use serde_json::Value;
use shard::{LABEL, Shard, Sharing, object, sharing};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

/// One request.
const LIMIT: Duration = Duration::from_secs(3);
/// What must be written before it is used is given up after this.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
/// Tries at an object that others write too.
const TRIES: usize = 16;

/// On any object of the state: the root with this fingerprint is lost and another may take its place.
pub const REPLACE_ROOT: &str = "fairlead.dev/replace-root";

type Pending = BTreeMap<(Bucket, String), Option<Value>>;

pub struct State {
    objects: Objects,
    /// It has this; without the weak half neither would ever end.
    store: Weak<Store>,
    pending: Mutex<Pending>,
    wake: Notify,
    runtime: Handle,
    leadership: OnceLock<Leadership>,
    /// Whether what the holder of the lease before had written is taken in: what is written before could undo it.
    taken_over: AtomicBool,
    /// The root that an operator lets be replaced by another.
    replaceable: Mutex<Option<String>>,
}

/// The objects themselves.
#[derive(Clone)]
struct Objects {
    api: Api<Secret>,
    /// The version of each that was written or heard last: older ones that are heard later say nothing.
    versions: Arc<Mutex<BTreeMap<String, u64>>>,
    damage: Arc<Damage>,
}

impl State {
    /// Reads what the objects hold into the store, and shares the store from now on. Where the API server is away, a store that knows
    /// the CA from before will do; without one this waits.
    pub async fn open(api: Api<Secret>, store: Arc<Store>, status: &Status) -> anyhow::Result<Arc<Self>> {
        let state = Arc::new(Self {
            objects: Objects { api, versions: Arc::default(), damage: Arc::default() },
            store: Arc::downgrade(&store),
            pending: Mutex::default(),
            wake: Notify::new(),
            runtime: Handle::current(),
            leadership: OnceLock::new(),
            taken_over: AtomicBool::new(false),
            replaceable: Mutex::default(),
        });
        let mut told = String::new();
        while let Err(e) = state.restore(&store).await {
            if store.has(Bucket::Authority, "ca")? {
                tracing::warn!("the state in the cluster cannot be read ({e:#}); this pod's own copy serves");
                break;
            }
            let why = format!("the state in the cluster, its CA among it, cannot be read: {e:#}");
            if told != why {
                tracing::warn!("waiting: {why}");
                status.waiting(why.as_str());
                told = why;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        store.share(state.clone());
        Ok(state)
    }

    /// Takes what the objects say; what only the store knows was not written before the last end, and is now.
    pub async fn restore(&self, store: &Store) -> anyhow::Result<()> {
        let listed =
            limited(self.objects.api.list(&ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1)))).await?;
        let mut shards = BTreeMap::new();
        let annotated = |secret: &Secret| secret.metadata.annotations.as_ref()?.get(REPLACE_ROOT).cloned();
        *self.replaceable.lock() = listed.items.iter().find_map(annotated);
        for secret in &listed.items {
            let name = secret.metadata.name.clone().unwrap_or_default();
            match Shard::read(secret) {
                Ok(shard) => {
                    self.objects.damage.note_known(&name);
                    self.objects.damage.mended(&name);
                    shards.insert(name, shard);
                }
                // The CA must not be made anew because it cannot be read.
                Err(e) if name == shard::CA => return Err(e),
                Err(e) => self.damaged(&name, &e),
            }
        }
        let entries = shards.values().flat_map(Shard::entries);
        let writes = entries.map(|(bucket, key, value)| (bucket, key.to_owned(), Some(value.to_string().into_bytes())));
        store.take(writes.collect())?;
        let mut pending = self.pending.lock();
        for bucket in Bucket::ALL.into_iter().filter(|b| matches!(sharing(*b), Sharing::Origin { .. })) {
            for (key, value) in store.all::<Value>(bucket)? {
                let held = object(bucket, &key).and_then(|name| shards.get(&name)?.get(bucket, &key));
                if held.is_none() {
                    pending.insert((bucket, key), Some(value));
                }
            }
        }
        Ok(())
    }

    /// The fingerprint of a root that an operator lets be replaced.
    pub fn replaceable(&self) -> Option<String> {
        self.replaceable.lock().clone()
    }

    fn damaged(&self, name: &str, why: &anyhow::Error) {
        self.objects.damage.found(name, format!("{why:#}"));
        for damage in self.objects.damage.all().iter().filter(|damage| damage.object == name) {
            let then = match (damage.of_members, damage.is_unknown) {
                (true, true) => "no other cluster is believed, since it may say that one was detached",
                (true, false) => "what was known before holds, and nobody joins",
                (false, _) => "what was in it is left out",
            };
            tracing::error!("{why:#}: {then}; {}", damage.remedy());
        }
    }

    /// Blocks until it is done.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let done = tokio::time::timeout(FIRST_LIMIT, work).await;
            let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("the API server did not answer in 5 s")));
            let _ = reply.send(done);
        });
        let wait = || answer.recv().context("the control plane is stopping")?;
        let in_runtime = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
        if in_runtime { tokio::task::block_in_place(wait) } else { wait() }
    }

    /// Everything that is pending, once.
    pub async fn write_all(&self) {
        if let Err(e) = self.flush(|_| true).await {
            tracing::warn!("state is not written to the cluster: {e:#}");
        }
    }

    /// Whether this replica writes what all derive alike.
    fn holds(&self) -> bool {
        self.taken_over.load(Ordering::SeqCst) && self.leadership.get().is_some_and(Leadership::holds)
    }

    /// Writes what is pending of the buckets that `now` names; what fails stays pending.
    async fn flush(&self, now: impl Fn(Sharing) -> bool) -> anyhow::Result<()> {
        let mut objects: BTreeMap<String, Pending> = BTreeMap::new();
        {
            let mut pending = self.pending.lock();
            let held = self.holds();
            // What another replica writes is not kept for later: whoever gets the lease writes all of it.
            pending.retain(|(bucket, _), _| held || matches!(sharing(*bucket), Sharing::Origin { .. }));
            for ((bucket, key), value) in pending.iter().filter(|((bucket, _), _)| now(sharing(*bucket))) {
                if let Some(name) = object(*bucket, key) {
                    objects.entry(name).or_default().insert((*bucket, key.clone()), value.clone());
                }
            }
        }
        let mut failed = Ok(());
        // What belongs into one that cannot be read waits until it can.
        for (name, writes) in objects.into_iter().filter(|(name, _)| !self.objects.damage.has(name)) {
            let all = |shard: &mut Shard| {
                let set = |((bucket, key), value): (&(Bucket, String), &Option<Value>)| {
                    u32::from(shard.set(*bucket, key, value.clone()))
                };
                (writes.iter().map(set).sum::<u32>() > 0, ())
            };
            let is_derived = writes.keys().any(|(bucket, _)| !matches!(sharing(*bucket), Sharing::Origin { .. }));
            let written = match self.leadership.get().filter(|_| is_derived) {
                Some(leadership) => match leadership.while_held(self.objects.update(&name, all)).await {
                    Some(written) => written,
                    None => continue,
                },
                None => self.objects.update(&name, all).await,
            };
            match written {
                Ok(()) => {
                    let mut pending = self.pending.lock();
                    // What changed meanwhile stays.
                    pending.retain(|key, value| writes.get(key) != Some(value));
                }
                Err(e) => failed = Err(e.context(name)),
            }
        }
        failed
    }
}

impl Objects {
    /// Changes one object until nobody was in between.
    async fn update<T>(&self, name: &str, change: impl Fn(&mut Shard) -> (bool, T)) -> anyhow::Result<T> {
        for _ in 0..TRIES {
            let known = limited(self.api.get_opt(name)).await?;
            let mut shard = known.as_ref().map_or_else(|| Ok(Shard::default()), Shard::read)?;
            let (changed, outcome) = change(&mut shard);
            if !changed {
                return Ok(outcome);
            }
            let is_new = known.is_none();
            let wanted = shard.write(name, known.map(|secret| secret.metadata))?;
            let params = PostParams::default();
            let written = match is_new {
                true => limited(self.api.create(&params, &wanted)).await,
                false => limited(self.api.replace(name, &params, &wanted)).await,
            };
            match written {
                Ok(written) => {
                    self.heard(name, &written);
                    self.damage.note_known(name);
                    return Ok(outcome);
                }
                Err(e) if is_conflict(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        anyhow::bail!("Secret {name} is written by others all the time")
    }

    /// Whether this version of an object is no older than the last that was seen; it is that one from now on.
    fn heard(&self, name: &str, secret: &Secret) -> bool {
        let Some(version) = secret.metadata.resource_version.as_ref().and_then(|v| v.parse().ok()) else { return true };
        let mut versions = self.versions.lock();
        let last = versions.entry(name.to_owned()).or_insert(version);
        let is_new = version >= *last;
        *last = version.max(*last);
        is_new
    }

    async fn put_first(
        &self,
        bucket: Bucket,
        key: String,
        value: Value,
        instead_of: Option<Value>,
    ) -> anyhow::Result<Option<Value>> {
        let name = object(bucket, &key).context("this bucket is not shared")?;
        let change = |shard: &mut Shard| match shard.get(bucket, &key) {
            Some(before) if Some(before) != instead_of.as_ref() => (false, Some(before.clone())),
            _ => (shard.set(bucket, &key, Some(value.clone())), None),
        };
        self.update(&name, change).await
    }
}

impl Shared for State {
    fn first(
        &self,
        bucket: Bucket,
        key: &str,
        value: &[u8],
        instead_of: Option<&[u8]>,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let value: Value = serde_json::from_slice(value)?;
        let instead_of = instead_of.map(serde_json::from_slice::<Value>).transpose()?;
        let (objects, key) = (self.objects.clone(), key.to_owned());
        let before = self.wait(async move { objects.put_first(bucket, key, value, instead_of).await });
        let before = before.context("this must be written to the API server before it counts; try again")?;
        Ok(before.map(|value| value.to_string().into_bytes()))
    }

    fn look(&self, bucket: Bucket, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let (objects, key) = (self.objects.clone(), key.to_owned());
        let found = self.wait(async move {
            let name = object(bucket, &key).context("this bucket is not shared")?;
            let Some(secret) = limited(objects.api.get_opt(&name)).await? else { return Ok(None) };
            Ok(Shard::read(&secret)?.get(bucket, &key).cloned())
        })?;
        Ok(found.map(|value| value.to_string().into_bytes()))
    }

    fn unreadable(&self) -> Vec<Unreadable> {
        self.objects.damage.all()
    }

    fn is_passed_on(&self) -> bool {
        !self.pending.lock().keys().any(|(bucket, _)| matches!(sharing(*bucket), Sharing::Origin { .. }))
    }

    fn changed(&self, writes: &[Write]) {
        let mut pending = self.pending.lock();
        for (bucket, key, bytes) in writes.iter().filter(|(bucket, ..)| sharing(*bucket) != Sharing::Local) {
            let value = match bytes.as_ref().map(|bytes| serde_json::from_slice(bytes)).transpose() {
                Ok(value) => value,
                Err(e) => {
                    tracing::error!("{}/{key} is no JSON and is not kept in the cluster: {e}", bucket.name());
                    continue;
                }
            };
            pending.insert((*bucket, key.clone()), value);
        }
        if !pending.is_empty() {
            self.wake.notify_one();
        }
    }
}

async fn limited<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let silent = |_| kube::Error::Service("no answer in 3 s".into());
    tokio::time::timeout(LIMIT, request).await.map_err(silent)?
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
