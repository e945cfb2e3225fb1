//! The bundle by which API servers believe the webhooks, on a fake API server.

use super::super::ca_bundle::{Ours, follow};
use crate::kubernetes::fake_api::FakeApi;
use base64::Engine as _;
use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::Api;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use std::time::Duration;

fn ours() -> Ours {
    Ours { service: "fairlead-control".into(), namespace: "fairlead-system".into(), bundle: "PEM".into() }
}

fn configuration(bundle: Option<&str>) -> Value {
    let client = |name: &str| {
        let mut client = json!({"service": {"name": name, "namespace": "fairlead-system", "path": "/inject"}});
        if let Some(bundle) = bundle {
            client["caBundle"] = json!(base64::engine::general_purpose::STANDARD.encode(bundle));
        }
        client
    };
    let webhook = |name: &str, service: &str| json!({"name": name, "clientConfig": client(service), "admissionReviewVersions": ["v1"], "sideEffects": "None"});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "fairlead-injector", "uid": "u"},
        "webhooks": [webhook("a.fairlead.dev", "fairlead-control"), webhook("b.example", "other")],
    })
}

fn typed(value: Value) -> MutatingWebhookConfiguration {
    serde_json::from_value(value).unwrap()
}

const PLACE: (&str, &str) = ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations");

#[tokio::test]
async fn an_emptied_bundle_is_put_right() {
    let api = FakeApi::new();
    api.put(PLACE.0, PLACE.1, "", "fairlead-injector", configuration(None));
    let written = || api.requests("PATCH");
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(api.client());
    let one = |bundle| Ok(Event::Apply(typed(configuration(bundle))));
    follow(&configurations, &ours(), futures::stream::iter([Ok(Event::Init), one(Some("PEM"))])).await;
    assert_eq!(written(), 0, "nothing is wrong");
    follow(
        &configurations,
        &ours(),
        futures::stream::iter([one(None), one(Some("PEM")), one(Some("")), one(Some("x"))]),
    )
    .await;
    assert_eq!(written(), 3);
    let webhooks = api.get(PLACE.0, PLACE.1, "", "fairlead-injector").unwrap()["webhooks"].clone();
    let encoded = base64::engine::general_purpose::STANDARD.encode("PEM");
    assert_eq!(webhooks, json!([{"name": "a.fairlead.dev", "clientConfig": {"caBundle": encoded}}]), "ours alone");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_tried_again() {
    let api = FakeApi::new();
    api.put(PLACE.0, PLACE.1, "", "fairlead-injector", configuration(None));
    let way = api.another_way();
    way.set_away(true);
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(way.client());
    let (mut into, changes) = futures::channel::mpsc::unbounded();
    let keeper = tokio::spawn(async move { follow(&configurations, &ours(), changes).await });
    into.send(Ok(Event::Apply(typed(configuration(None))))).await.unwrap();
    // Time goes on by itself while everybody waits: by now it was tried in vain.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(api.requests("PATCH"), 0);
    way.set_away(false);
    let mut heard = kube::runtime::watcher(
        Api::<MutatingWebhookConfiguration>::all(api.client()),
        kube::runtime::watcher::Config::default(),
    )
    .boxed();
    loop {
        if let Some(Ok(Event::Apply(one))) = heard.next().await
            && one.webhooks.iter().flatten().any(|webhook| webhook.client_config.ca_bundle.is_some())
        {
            break;
        }
    }
    assert_eq!(api.requests("PATCH"), 1);
    drop(into);
    keeper.await.unwrap();
}
