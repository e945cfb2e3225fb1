//! The trust bundles as a ConfigMap in every namespace, where pods find them before they have a certificate.
//!
//! Written by the holder of the lease, with server-side apply. Invariants: a new namespace, a change of trust, and a ConfigMap that was
//! changed or deleted are acted on as they are heard of; the namespaces of Kubernetes itself, where nothing is injected, are left alone.

use super::PART_OF;
use super::lease::Leadership;
use fairlead_install::webhooks::OF_KUBERNETES;
use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Name of the ConfigMap, and its key.
pub const NAME: &str = "fairlead-trust";
pub const KEY: &str = "bundles.json";
const MANAGER: &str = "fairlead-control";
/// Writes under way.
const AT_ONCE: usize = 8;
/// One write.
const LIMIT: Duration = Duration::from_secs(5);
/// After a write that failed, growing.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What is known of the cluster.
#[derive(Default)]
struct Known {
    namespaces: BTreeSet<String>,
    /// By namespace; the text under the key, if there is one.
    maps: BTreeMap<String, Option<String>>,
    /// Both were listed whole.
    listed: (bool, bool),
    /// While a list is under way: what it has not named is gone at its end.
    unnamed: (BTreeSet<String>, BTreeSet<String>),
}

impl Known {
    fn namespace(&mut self, event: Event<PartialObjectMeta<Namespace>>) {
        let name = |object: &PartialObjectMeta<Namespace>| object.metadata.name.clone().unwrap_or_default();
        match event {
            Event::Init => self.unnamed.0 = self.namespaces.clone(),
            Event::Apply(object) | Event::InitApply(object) => {
                self.unnamed.0.remove(&name(&object));
                // Nothing can be made in a namespace that is ending.
                if object.metadata.deletion_timestamp.is_some() || OF_KUBERNETES.contains(&name(&object).as_str()) {
                    self.namespaces.remove(&name(&object));
                } else {
                    self.namespaces.insert(name(&object));
                }
            }
            Event::Delete(object) => drop(self.namespaces.remove(&name(&object))),
            Event::InitDone => {
                let gone = std::mem::take(&mut self.unnamed.0);
                self.namespaces.retain(|name| !gone.contains(name));
                self.listed.0 = true;
            }
        }
    }

    fn map(&mut self, event: Event<ConfigMap>) {
        let namespace = |map: &ConfigMap| map.metadata.namespace.clone().unwrap_or_default();
        match event {
            Event::Init => self.unnamed.1 = self.maps.keys().cloned().collect(),
            Event::Apply(map) | Event::InitApply(map) => {
                let namespace = namespace(&map);
                self.unnamed.1.remove(&namespace);
                self.maps.insert(namespace, map.data.and_then(|mut data| data.remove(KEY)));
            }
            Event::Delete(map) => drop(self.maps.remove(&namespace(&map))),
            Event::InitDone => {
                let gone = std::mem::take(&mut self.unnamed.1);
                self.maps.retain(|namespace, _| !gone.contains(namespace));
                self.listed.1 = true;
            }
        }
    }

    /// Namespaces in which something else stands than `wanted`.
    fn outdated(&self, wanted: &str) -> Vec<String> {
        if self.listed != (true, true) {
            return Vec::new();
        }
        let is_current = |namespace: &&String| self.maps.get(*namespace).is_some_and(|t| t.as_deref() == Some(wanted));
        self.namespaces.iter().filter(|namespace| !is_current(namespace)).cloned().collect()
    }
}

/// For ever. `changes` wakes when `trust` may say something new.
pub async fn keep(
    client: kube::Client,
    mut leadership: Leadership,
    trust: impl Fn() -> anyhow::Result<String>,
    mut changes: watch::Receiver<u64>,
) {
    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), watcher::Config::default());
    let named = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let maps = watcher(Api::<ConfigMap>::all(client.clone()), named);
    let mut namespaces = std::pin::pin!(namespaces.default_backoff());
    let mut maps = std::pin::pin!(maps.default_backoff());
    let mut known = Known::default();
    // Namespaces whose last write failed, and how long to wait before the next.
    let mut failed: BTreeSet<String> = BTreeSet::new();
    let mut pause = RETRY.0;
    let mut retry = Instant::now();
    loop {
        tokio::select! {
            Some(event) = namespaces.next() => match event {
                Ok(event) => known.namespace(event),
                Err(e) => tracing::debug!("namespaces are not heard of: {e}"),
            },
            Some(event) = maps.next() => match event {
                Ok(event) => known.map(event),
                Err(e) => tracing::debug!("the ConfigMaps {NAME} are not heard of: {e}"),
            },
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = leadership.gained(), if !leadership.holds() => {}
            () = tokio::time::sleep_until(retry), if !failed.is_empty() => {
                failed.clear();
                pause = (pause * 2).min(RETRY.1);
            }
        }
        let wanted = match trust() {
            Ok(wanted) => wanted,
            Err(e) => {
                tracing::error!("the trust bundles cannot be written: {e:#}");
                continue;
            }
        };
        let mut outdated = known.outdated(&wanted);
        outdated.retain(|namespace| !failed.contains(namespace));
        if outdated.is_empty() || !leadership.holds() {
            continue;
        }
        let write = stream::iter(outdated)
            .map(|namespace| async { (apply(&client, &namespace, &wanted).await, namespace) })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>();
        let mut first = None;
        for (written, namespace) in leadership.while_held(write).await.unwrap_or_default() {
            match written {
                // The watch says so too, later.
                Ok(()) => drop(known.maps.insert(namespace, Some(wanted.clone()))),
                Err(e) => {
                    first.get_or_insert(format!("{namespace}/{NAME}: {e}"));
                    failed.insert(namespace);
                }
            }
        }
        match first {
            Some(first) => {
                let count = failed.len();
                tracing::warn!("{count} ConfigMaps of trust cannot be written, new pods there wait: {first}");
                retry = Instant::now() + pause;
            }
            None if failed.is_empty() => pause = RETRY.0,
            None => {}
        }
    }
}

async fn apply(client: &kube::Client, namespace: &str, bundles: &str) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace, "labels": {PART_OF.0: PART_OF.1}},
        "data": {KEY: bundles},
    });
    let params = PatchParams::apply(MANAGER).force();
    let silent = |_| kube::Error::Service("no answer in 5 s".into());
    let write = async { api.patch(NAME, &params, &Patch::Apply(&map)).await };
    tokio::time::timeout(LIMIT, write).await.map_err(silent)?.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake_api::FakeApi;
    use crate::kubernetes::lease::Candidate;
    use parking_lot::Mutex;
    use std::sync::Arc;

    struct Running {
        api: FakeApi,
        trust: Arc<Mutex<String>>,
        changed: watch::Sender<u64>,
    }

    impl Running {
        fn bundles(&self, namespace: &str) -> Option<String> {
            let map = self.api.get("v1", "configmaps", namespace, NAME)?;
            map["data"][KEY].as_str().map(str::to_owned)
        }

        /// Time is paused: all that can happen happens before it moves.
        async fn soon(&self, namespace: &str, bundles: Option<&str>) {
            tokio::time::timeout(Duration::from_secs(1), async {
                while self.bundles(namespace).as_deref() != bundles {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .unwrap_or_else(|_| panic!("{namespace}: {:?} is not {bundles:?}", self.bundles(namespace)));
        }
    }

    fn start() -> (Running, Leadership) {
        let api = FakeApi::new();
        for namespace in ["shop", "kube-system"] {
            api.put("v1", "namespaces", "", namespace, json!({}));
        }
        let (candidate, leadership) = Candidate::new(Api::namespaced(api.client(), "fairlead-system"), "me".into());
        tokio::spawn(candidate.run(watch::channel(false).1));
        let (changed, changes) = watch::channel(0);
        let trust = Arc::new(Mutex::new("first".to_owned()));
        let said = trust.clone();
        tokio::spawn(keep(api.client(), leadership.clone(), move || Ok(said.lock().clone()), changes));
        (Running { api, trust, changed }, leadership)
    }

    #[tokio::test(start_paused = true)]
    async fn every_namespace_has_the_present_trust_within_a_second() {
        let (running, mut leadership) = start();
        leadership.gained().await;
        running.soon("shop", Some("first")).await;
        running.api.put("v1", "namespaces", "", "bank", json!({}));
        running.soon("bank", Some("first")).await;
        // Changed by somebody, or deleted.
        running.api.put("v1", "configmaps", "shop", NAME, json!({"data": {KEY: "forged"}}));
        running.soon("shop", Some("first")).await;
        running.api.delete("v1", "configmaps", "shop", NAME);
        running.soon("shop", Some("first")).await;
        *running.trust.lock() = "second".into();
        running.changed.send_replace(1);
        running.soon("shop", Some("second")).await;
        running.soon("bank", Some("second")).await;
        assert_eq!(running.bundles("kube-system"), None);
        // A namespace that ends gets none.
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        running.api.put("v1", "namespaces", "", "bank", ending);
        // Paused time moves only when that was heard.
        tokio::time::sleep(Duration::from_millis(1)).await;
        running.api.delete("v1", "configmaps", "bank", NAME);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(running.bundles("bank"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_written_later() {
        let (running, mut leadership) = start();
        leadership.gained().await;
        running.soon("shop", Some("first")).await;
        // No longer than the lease holds without renewal.
        running.api.set_away(true);
        *running.trust.lock() = "second".into();
        running.changed.send_replace(1);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(running.bundles("shop").as_deref(), Some("first"));
        running.api.set_away(false);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(running.bundles("shop").as_deref(), Some("second"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_under_way_is_dropped_with_the_lease() {
        let (running, mut leadership) = start();
        leadership.gained().await;
        running.soon("shop", Some("first")).await;
        running.api.set_open(false);
        *running.trust.lock() = "second".into();
        running.changed.send_replace(1);
        leadership.lost().await;
        // The API server is back, but the lease is another's now.
        let taken = json!({"spec": {"holderIdentity": "other", "leaseDurationSeconds": 3600}});
        running.api.put("coordination.k8s.io/v1", "leases", "fairlead-system", super::super::lease::NAME, taken);
        running.api.set_open(true);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(running.bundles("shop").as_deref(), Some("first"));
        assert!(!leadership.holds());
    }
}
