//! The two ways between the store and its objects while the process runs.

use super::super::lease::Leadership;
use super::shard::{LABEL, Shard, Sharing, object, sharing};
use super::{State, limited};
use crate::store::{Bucket, Store, Write};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Changes within this window are written together.
const COALESCE: Duration = Duration::from_millis(50);
/// Between two writes of what is good for a restart only.
const SELDOM: Duration = Duration::from_secs(30);
/// After a write that failed, growing.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What is looked at anew when an object of members can be read again, or not any more.
const MEMBERS: [Bucket; 2] = [Bucket::Membership, Bucket::DetachedHere];

impl State {
    /// For ever. `heard` is told which buckets another replica changed.
    pub async fn run(self: Arc<Self>, leadership: Leadership, heard: impl Fn(BTreeSet<Bucket>) + Send + Sync) {
        let _ = self.leadership.set(leadership.clone());
        tokio::join!(self.write(), self.hear(&heard), self.complete(leadership, &heard));
    }

    async fn write(&self) {
        let mut seldom = Instant::now();
        let mut pause = RETRY.0;
        loop {
            let failed = {
                let all = Instant::now() >= seldom;
                if all {
                    seldom = Instant::now() + SELDOM;
                }
                self.flush(|sharing| all || sharing != Sharing::Seldom).await
            };
            match failed {
                Ok(()) => {
                    pause = RETRY.0;
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(seldom) => {}
                    }
                    tokio::time::sleep(COALESCE).await;
                }
                Err(e) => {
                    tracing::warn!("state is not written to the cluster yet: {e:#}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Whoever gets the lease goes on from what the one before had written, and writes what is missing.
    async fn complete(&self, mut leadership: Leadership, heard: impl Fn(BTreeSet<Bucket>)) {
        loop {
            leadership.gained().await;
            match self.take_over().await {
                Ok(changed) => {
                    if !changed.is_empty() {
                        heard(changed);
                    }
                    leadership.lost().await;
                    self.taken_over.store(false, Ordering::SeqCst);
                }
                Err(e) => {
                    tracing::debug!("the state in the cluster cannot be completed yet: {e:#}");
                    tokio::time::sleep(RETRY.1).await;
                }
            }
        }
    }

    /// Which buckets are other than before. Of what all derive alike the other replicas hold what is written; what is for a restart only
    /// is better known here.
    async fn take_over(&self) -> anyhow::Result<BTreeSet<Bucket>> {
        let Some(store) = self.store.upgrade() else { return Ok(BTreeSet::new()) };
        let selector = format!("{}={}", LABEL.0, LABEL.1);
        let listed = limited(self.objects.api.list(&ListParams::default().labels(&selector))).await?;
        let mut shards = BTreeMap::new();
        for secret in &listed.items {
            // One that is damaged is told of where it is heard of.
            if let Ok(shard) = Shard::read(secret) {
                shards.insert(secret.metadata.name.clone().unwrap_or_default(), shard);
            }
        }
        let mut pending = self.pending.lock();
        let mut writes: Vec<Write> = Vec::new();
        for (bucket, key, value) in shards.values().flat_map(Shard::entries) {
            let is_derived = matches!(sharing(bucket), Sharing::Derived { .. });
            if is_derived && store.load::<Value>(bucket, key)?.as_ref() != Some(value) {
                pending.remove(&(bucket, key.to_owned()));
                writes.push((bucket, key.to_owned(), Some(value.to_string().into_bytes())));
            }
        }
        let changed = writes.iter().map(|(bucket, ..)| *bucket).collect();
        store.take(writes)?;
        self.taken_over.store(true, Ordering::SeqCst);
        for bucket in shared() {
            for (key, value) in store.all::<Value>(bucket)? {
                let Some(name) = object(bucket, &key) else { continue };
                let held = shards.get(&name).and_then(|shard| shard.get(bucket, &key));
                if held.is_none() || sharing(bucket) == Sharing::Seldom && held != Some(&value) {
                    pending.entry((bucket, key)).or_insert(Some(value));
                }
            }
        }
        drop(pending);
        self.wake.notify_one();
        Ok(changed)
    }

    async fn hear(&self, heard: impl Fn(BTreeSet<Bucket>)) {
        let config = watcher::Config::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let backoff = watcher::DefaultBackoff::default();
        let events = kube::runtime::WatchStreamExt::backoff(watcher(self.objects.api.clone(), config), backoff);
        let mut events = std::pin::pin!(events);
        // What a list that is under way has named.
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            let Some(store) = self.store.upgrade() else { return };
            let name = |secret: &Secret| secret.metadata.name.clone().unwrap_or_default();
            let mut changed = BTreeSet::new();
            match event {
                Ok(Event::Apply(secret) | Event::InitApply(secret)) => {
                    listed.insert(name(&secret));
                    match self.take(&store, &secret) {
                        Ok(taken) => changed.extend(taken),
                        Err(e) => {
                            self.damaged(&name(&secret), &e);
                            changed.extend(MEMBERS);
                        }
                    }
                }
                Ok(Event::Delete(secret)) => {
                    if self.objects.damage.mended(&name(&secret)) {
                        changed.extend(MEMBERS);
                    }
                    if let Err(e) = self.bring_back(&store, &secret) {
                        tracing::error!("{e:#}");
                    }
                }
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitDone) => {
                    if self.objects.damage.only(&listed) {
                        changed.extend(MEMBERS);
                    }
                }
                Err(e) => tracing::debug!("the state in the cluster is not heard of: {e}"),
            }
            if !changed.is_empty() {
                heard(changed);
            }
        }
    }

    /// Takes what another replica wrote. Which buckets are other than before.
    fn take(&self, store: &Store, secret: &Secret) -> anyhow::Result<BTreeSet<Bucket>> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        if !self.objects.heard(name, secret) {
            return Ok(BTreeSet::new());
        }
        let shard = Shard::read(secret)?;
        self.objects.damage.note_known(name);
        // Its holder knows better than its own echo.
        let is_ours = |bucket| self.holds() && !matches!(sharing(bucket), Sharing::Origin { .. });
        let mut writes: Vec<Write> = Vec::new();
        // Not written by others while it is looked at: what was done here and is pending is newer. What all derive alike is as its holder
        // says, also where this replica came to something else at the same time.
        let pending = self.pending.lock();
        let is_newer = |bucket, key: &str| {
            matches!(sharing(bucket), Sharing::Origin { .. }) && pending.contains_key(&(bucket, key.to_owned()))
        };
        for bucket in shared().filter(|bucket| !is_ours(*bucket)) {
            let known: BTreeMap<String, Value> = store.all(bucket)?.into_iter().collect();
            let of_it = |key: &str| object(bucket, key).as_deref() == Some(name);
            for (_, key, value) in shard.entries().filter(|(b, key, _)| *b == bucket && of_it(key)) {
                if known.get(key) != Some(value) && !is_newer(bucket, key) {
                    writes.push((bucket, key.to_owned(), Some(value.to_string().into_bytes())));
                }
            }
            // The own CA is no other's to take away.
            for key in known.keys().filter(|key| bucket != Bucket::Authority && of_it(key)) {
                if shard.get(bucket, key).is_none() && !is_newer(bucket, key) {
                    writes.push((bucket, key.clone(), None));
                }
            }
        }
        drop(pending);
        let mut changed: BTreeSet<Bucket> = writes.iter().map(|(bucket, ..)| *bucket).collect();
        store.take(writes)?;
        if self.objects.damage.mended(name) {
            tracing::info!("Secret {name} can be read again");
            changed.extend(MEMBERS);
            self.wake.notify_one();
        }
        Ok(changed)
    }

    /// Nobody of us deletes: what was in it is written again.
    fn bring_back(&self, store: &Store, secret: &Secret) -> anyhow::Result<()> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!("Secret {name} was deleted; it is written again");
        let mut pending = self.pending.lock();
        for bucket in shared() {
            for (key, value) in store.all::<Value>(bucket)? {
                if object(bucket, &key).as_deref() == Some(name) {
                    pending.entry((bucket, key)).or_insert(Some(value));
                }
            }
        }
        drop(pending);
        self.wake.notify_one();
        Ok(())
    }
}

/// Buckets that are in objects; others may hold anything.
fn shared() -> impl Iterator<Item = Bucket> {
    Bucket::ALL.into_iter().filter(|bucket| sharing(*bucket) != Sharing::Local)
}
