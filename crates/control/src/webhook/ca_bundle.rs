//! Keeps `caBundle` right in the webhook configurations that call our Service: without it API servers do not believe our certificate.
//!
//! Watches both kinds and looks at the Service they name, so that configurations of tags and of later installs are served too. Writes
//! by server-side apply and owns nothing but these fields. Invariants: a bundle that somebody empties or changes is put right; a write
//! that fails is tried again for as long as it is needed.

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// Who owns the fields.
const MANAGER: &str = "fairlead-webhooks";
/// After a write that failed; twice as long after each further one.
const AGAIN: Duration = Duration::from_secs(2);
/// What is forbidden today may be allowed tomorrow.
const LONGEST: Duration = Duration::from_secs(60);

/// Which webhooks are ours, and what they are to have.
#[derive(Clone, Debug)]
pub struct Ours {
    pub service: String,
    pub namespace: String,
    /// PEM.
    pub bundle: String,
}

/// A configuration, as far as it is looked at.
pub(super) trait Configuration:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    const KIND: &'static str;

    /// Name, service, namespace and bundle of each webhook.
    fn webhooks(&self) -> Vec<(String, Option<(String, String)>, Option<Vec<u8>>)>;
}

macro_rules! configuration {
    ($kind:ty, $name:literal) => {
        impl Configuration for $kind {
            const KIND: &'static str = $name;

            fn webhooks(&self) -> Vec<(String, Option<(String, String)>, Option<Vec<u8>>)> {
                let one = |client: &k8s_openapi::api::admissionregistration::v1::WebhookClientConfig| {
                    let service = client.service.as_ref().map(|s| (s.name.clone(), s.namespace.clone()));
                    (service, client.ca_bundle.as_ref().map(|bundle| bundle.0.clone()))
                };
                let all = self.webhooks.iter().flatten();
                all.map(|webhook| {
                    let (service, bundle) = one(&webhook.client_config);
                    (webhook.name.clone(), service, bundle)
                })
                .collect()
            }
        }
    };
}

configuration!(MutatingWebhookConfiguration, "MutatingWebhookConfiguration");
configuration!(ValidatingWebhookConfiguration, "ValidatingWebhookConfiguration");

/// Keeps them for as long as the process lives.
pub async fn keep(client: Client, ours: Ours) {
    tokio::join!(
        keep_kind::<MutatingWebhookConfiguration>(client.clone(), ours.clone()),
        keep_kind::<ValidatingWebhookConfiguration>(client, ours)
    );
}

async fn keep_kind<K: Configuration>(client: Client, ours: Ours) {
    let api: Api<K> = Api::all(client);
    let changes = watch(api.clone(), watcher::Config::default()).default_backoff();
    follow(&api, &ours, changes).await;
}

pub(super) async fn follow<K: Configuration>(
    api: &Api<K>,
    ours: &Ours,
    changes: impl Stream<Item = Result<Event<K>, watcher::Error>>,
) {
    let mut changes = std::pin::pin!(changes);
    // What is to be written, by configuration.
    let mut wrong: BTreeMap<String, Value> = BTreeMap::new();
    let mut wait = AGAIN;
    loop {
        let again =
            async { if wrong.is_empty() { std::future::pending().await } else { tokio::time::sleep(wait).await } };
        tokio::select! {
            change = changes.next() => match change {
                None => return,
                Some(Err(error)) => tracing::warn!(kind = K::KIND, "cannot watch: {error}"),
                Some(Ok(Event::Apply(one) | Event::InitApply(one))) => {
                    let name = one.name_any();
                    match correction(&one, ours) {
                        Some(correction) => drop(wrong.insert(name, correction)),
                        None => drop(wrong.remove(&name)),
                    }
                    wait = AGAIN;
                    write(api, &mut wrong).await;
                }
                Some(Ok(Event::Delete(one))) => drop(wrong.remove(&one.name_any())),
                Some(Ok(Event::Init | Event::InitDone)) => {}
            },
            () = again => {
                wait = (wait * 2).min(LONGEST);
                write(api, &mut wrong).await;
            }
        }
    }
}

/// What is to be applied; `None`: nothing of ours is wrong in it.
fn correction<K: Configuration>(one: &K, ours: &Ours) -> Option<Value> {
    let all = one.webhooks();
    let is_ours = |service: &Option<(String, String)>| {
        service.as_ref().is_some_and(|(name, namespace)| *name == ours.service && *namespace == ours.namespace)
    };
    let mine: Vec<_> = all.into_iter().filter(|(_, service, _)| is_ours(service)).collect();
    if mine.iter().all(|(_, _, bundle)| bundle.as_deref() == Some(ours.bundle.as_bytes())) {
        return None;
    }
    let encoded = k8s_openapi::ByteString(ours.bundle.clone().into_bytes());
    let webhooks: Vec<_> =
        mine.iter().map(|(name, ..)| json!({"name": name, "clientConfig": {"caBundle": encoded}})).collect();
    Some(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": K::KIND,
        // An apply makes what is not there: one that names a uid does not.
        "metadata": {"name": one.name_any(), "uid": one.uid()}, "webhooks": webhooks,
    }))
}

async fn write<K: Configuration>(api: &Api<K>, wrong: &mut BTreeMap<String, Value>) {
    let parameters = PatchParams::apply(MANAGER).force();
    let mut left = BTreeMap::new();
    for (name, correction) in std::mem::take(wrong) {
        match api.patch(&name, &parameters, &Patch::Apply(&correction)).await {
            Ok(_) => tracing::info!(kind = K::KIND, name, "its caBundle is ours"),
            // Gone, or another of its name: the watch tells.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                let why = match error {
                    kube::Error::Api(status) => status.message,
                    other => other.to_string(),
                };
                tracing::warn!(kind = K::KIND, name, "its caBundle cannot be written: {why}");
                left.insert(name, correction);
            }
        }
    }
    *wrong = left;
}
