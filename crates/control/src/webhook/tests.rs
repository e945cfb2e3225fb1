//! The webhooks as an API server calls them: over TLS, with reviews as it writes them.

use super::admission::Request;
use super::ca_bundle::{Ours, follow};
use super::certificate::Serving;
use super::injection::Injector;
use super::profile::CurrentProfile;
use super::server::{self, Limits, Webhooks};
use super::validation::Validator;
use crate::authority::{Authority, Opening};
use crate::kubernetes::fake_api::FakeApi;
use crate::places::Bounds;
use crate::store::Store;
use base64::Engine as _;
use fairlead_model::Diagnostic;
use fairlead_resources::fairlead::Profile;
use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::Api;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const NAME: &str = "fairlead-control.fairlead-system.svc";

struct Served {
    address: SocketAddr,
    serving: Arc<Serving>,
    client: TlsConnector,
}

async fn serve(settings: Option<PathBuf>) -> Served {
    serve_within(settings, Limits::default()).await
}

async fn serve_within(settings: Option<PathBuf>, limits: Limits) -> Served {
    fairlead_identity::provider::install_process_default();
    let opening = Opening::plain("east", "east.shop.example");
    let authority = Arc::new(Authority::open(&opening, Arc::new(Store::in_memory().unwrap())).unwrap());
    let injector = Injector::new(settings, "east", "east.shop.example");
    let (service, namespace) = injector.service();
    let serving = Arc::new(Serving::new(authority, &service, &namespace).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody is there to be asked: what is known at the start holds.
    let profile = CurrentProfile::new(tokio::sync::mpsc::unbounded_channel().0);
    let webhooks = Webhooks { injector, validator: Validator::new("east"), profile };
    tokio::spawn(server::serve(listener, serving.config().unwrap(), Arc::new(webhooks), limits));
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(serving.ca_bundle().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // As Go's: a resumed session would show the certificate of the first.
    config.resumption = Resumption::disabled();
    Served { address, serving, client: TlsConnector::from(Arc::new(config)) }
}

impl Served {
    async fn connect(&self, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_from("127.0.0.1", name).await
    }

    async fn connect_from(&self, source: &str, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source.parse::<IpAddr>().unwrap(), 0).into())?;
        let stream = socket.connect(self.address).await?;
        self.client.connect(ServerName::try_from(name).unwrap(), stream).await
    }

    async fn review(&self, path: &str, request: Value) -> Value {
        let mut stream = self.connect(NAME).await.unwrap();
        let (status, body) = post(&mut stream, path, review(request).to_string().as_bytes()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
        assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        answer["response"].clone()
    }
}

/// One request on a connection that stays.
async fn post(stream: &mut TlsStream<TcpStream>, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!("POST {path}?timeout=10s HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status, body)
}

/// As an API server of 1.35 writes it, with what it puts around every request.
fn review(mut request: Value) -> Value {
    let common = json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "dryRun": false, "options": null,
        "userInfo": {"username": "admin", "groups": ["system:masters"]},
    });
    for (key, value) in common.as_object().unwrap() {
        request[key] = value.clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

fn creating_pod(metadata: Value, spec: Value) -> Value {
    json!({
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop", "operation": "CREATE", "oldObject": null,
        "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {}},
    })
}

fn pod() -> Value {
    creating_pod(json!({"generateName": "web-"}), json!({"containers": [{"name": "web", "image": "web"}]}))
}

fn virtual_service(spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "spec": spec,
        "metadata": {
            "name": "reviews", "namespace": "shop", "uid": "a", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-11-21T19:00:00Z", "managedFields": [{"manager": "kubectl"}],
        },
    })
}

fn bad() -> Value {
    virtual_service(json!({
        "hosts": ["reviews"],
        "http": [{"route": [
            {"destination": {"host": "reviews", "subset": "v1"}, "weight": -1},
            {"destination": {"host": "reviews", "subset": "v2"}},
        ]}],
    }))
}

fn good() -> Value {
    virtual_service(json!({"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "nowhere"}}]}]}))
}

fn writing(operation: &str, object: Value, old: Value) -> Value {
    json!({
        "kind": {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"},
        "name": "reviews", "namespace": "shop", "operation": operation, "object": object, "oldObject": old,
    })
}

#[tokio::test]
async fn a_pod_gets_its_proxy() {
    let served = serve(None).await;
    let answer = served.review("/inject", pod()).await;
    assert_eq!((&answer["allowed"], &answer["patchType"]), (&json!(true), &json!("JSONPatch")), "{answer}");
    let patch = base64::engine::general_purpose::STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let init = patch.iter().find(|one| one["path"] == "/spec/initContainers").unwrap();
    assert_eq!((&init["op"], &init["value"][1]["name"]), (&json!("add"), &json!("fairlead-proxy")));
    let args = init["value"][1]["args"].to_string();
    assert!(args.contains("spiffe://east.shop.example/fairlead/control"), "{args}");
    assert!(!patch.iter().any(|one| one["path"].as_str().unwrap().starts_with("/spec/containers")), "{patch:?}");
}

#[tokio::test]
async fn what_is_skipped_or_refused_says_why() {
    let served = serve(None).await;
    let network = json!({"hostNetwork": true, "containers": [{"name": "web", "image": "web"}]});
    let asks = json!({"name": "web", "labels": {"sidecar.istio.io/inject": "true"}});
    let answer = served.review("/inject", creating_pod(asks, network)).await;
    assert_eq!((&answer["allowed"], answer.get("patch")), (&json!(true), None));
    assert!(answer["warnings"][0].as_str().unwrap().starts_with("FL0605"), "{answer}");

    let annotations = json!({"name": "web", "annotations": {
        "sidecar.istio.io/proxyCPU": "a lot", "sidecar.istio.io/enableCoreDump": "true",
    }});
    let answer = served
        .review("/inject", creating_pod(annotations, json!({"containers": [{"name": "web", "image": "web"}]})))
        .await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(400)));
    let why = answer["status"]["message"].as_str().unwrap();
    assert!(why.contains("FL0601") && why.contains("Pod shop/web") && why.contains("100m"), "{why}");
    assert!(answer["warnings"][0].as_str().unwrap().contains("enableCoreDump"), "{answer}");

    let mut of_another_kind = pod();
    of_another_kind["kind"]["kind"] = json!("ReplicaSet");
    assert_eq!(served.review("/inject", of_another_kind).await["allowed"], true);
}

#[tokio::test]
async fn settings_are_read_as_they_are_now() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.json");
    let served = serve(Some(file.clone())).await;
    let answer = served.review("/inject", pod()).await;
    assert_eq!(answer["allowed"], false, "a pod without its proxy would be outside the mesh");
    assert!(answer["status"]["message"].as_str().unwrap().contains("settings.json"), "{answer}");

    let image = |answer: &Value| {
        let patch = base64::engine::general_purpose::STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        patch.iter().find(|one| one["path"] == "/spec/initContainers").unwrap()["value"][0]["image"].clone()
    };
    std::fs::write(&file, r#"{"image": "registry.example/fairlead:1"}"#).unwrap();
    assert_eq!(image(&served.review("/inject", pod()).await), "registry.example/fairlead:1");
    std::fs::write(&file, r#"{"image": "registry.example/fairlead:2"}"#).unwrap();
    assert_eq!(image(&served.review("/inject", pod()).await), "registry.example/fairlead:2");
    std::fs::write(&file, r#"{"imag"#).unwrap();
    assert_eq!(image(&served.review("/inject", pod()).await), "registry.example/fairlead:2", "the last good ones hold");
}

#[tokio::test]
async fn a_bad_object_is_refused_with_what_analyze_prints() {
    let served = serve(None).await;
    let answer = served.review("/validate", writing("CREATE", bad(), Value::Null)).await;
    assert_eq!(answer["allowed"], false, "{answer}");
    let why = answer["status"]["message"].as_str().unwrap();
    let cluster = "east".into();
    let text = bad().to_string();
    let found = fairlead_resources::decode(&cluster, &"".into(), text.as_bytes()).diagnostics;
    let errors: Vec<&Diagnostic> = found.iter().filter(|one| one.is_error()).collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(why.contains(&error.to_string()), "{why}: {error}");
    }
    assert!(why.contains("\n    "), "a next step, also where the finding itself has none: {why}");
    assert!(why.contains("spec.http[0].route[0].weight"), "{why}");

    let mut unknown_field = good();
    unknown_field["spec"]["hots"] = json!(["reviews"]);
    let answer = served.review("/validate", writing("CREATE", unknown_field, Value::Null)).await;
    assert!(answer["status"]["message"].as_str().unwrap().contains("hots"), "{answer}");
}

#[tokio::test]
async fn what_must_pass_passes() {
    let served = serve(None).await;
    let allowed = async |request: Value| served.review("/validate", request).await["allowed"] == true;
    assert!(allowed(writing("CREATE", good(), Value::Null)).await, "references may come later");
    assert!(allowed(writing("DELETE", Value::Null, bad())).await);
    let mut status = writing("UPDATE", bad(), good());
    status["subResource"] = json!("status");
    assert!(allowed(status).await, "status");
    let mut told = bad();
    told["status"] = json!({"conditions": []});
    told["metadata"]["resourceVersion"] = json!("8");
    told["metadata"]["managedFields"] = json!([]);
    assert!(allowed(writing("UPDATE", told.clone(), bad())).await, "nothing that it says has changed");
    let mut leaving = bad();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-21T19:00:00Z");
    assert!(allowed(writing("UPDATE", leaving, good())).await, "it is on its way out");

    assert!(!allowed(writing("UPDATE", bad(), good())).await);
    told["spec"]["http"][0]["name"] = json!("other");
    assert!(!allowed(writing("UPDATE", told, bad())).await, "still bad, and touched");
}

#[test]
fn what_a_profile_refuses_is_refused_in_that_profile() {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "r", "namespace": "shop"},
        "spec": {"host": "reviews", "trafficPolicy": {
            "outlierDetection": {"consecutive5xxErrors": 5},
            "loadBalancer": {"localityLbSetting": {
                "distribute": [{"from": "a/*", "to": {"a/*": 80, "b/*": 20}}], "failover": [{"from": "a", "to": "b"}],
            }},
        }},
    });
    let request = Request { operation: "CREATE".into(), object, ..Request::default() };
    let refused = |profile| Validator::new("east").answer(&request, profile).refused;
    assert_eq!(refused(Profile::Fairlead), None);
    assert!(refused(Profile::Istio).unwrap().contains("profile istio"));
}

#[tokio::test]
async fn warnings_are_admission_warnings() {
    let served = serve(None).await;
    let rule = json!({"route": [{"destination": {"host": "reviews"}}]});
    let twice = virtual_service(json!({"hosts": ["reviews"], "http": [rule, rule]}));
    let answer = served.review("/validate", writing("CREATE", twice, Value::Null)).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("IST0130"), "{answer}");
}

#[tokio::test]
async fn what_is_no_review_is_told_so() {
    let served = serve(None).await;
    let mut stream = served.connect(NAME).await.unwrap();
    for (body, part) in [
        ("{", "no AdmissionReview"),
        (r#"{"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "x"}}"#, "v1beta1 is not served"),
        (r#"{"apiVersion": "admission.k8s.io/v1"}"#, "no request"),
    ] {
        let (status, why) = post(&mut stream, "/validate", body.as_bytes()).await;
        assert_eq!(status, 400, "{body}");
        assert!(String::from_utf8_lossy(&why).contains(part), "{body}: {}", String::from_utf8_lossy(&why));
    }
    assert_eq!(post(&mut stream, "/other", b"{}").await.0, 404);
    let mut stream = served.connect(NAME).await.unwrap();
    let head = format!("POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n", 8 * 1024 * 1024 + 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 413, "without having read it");
}

#[tokio::test]
async fn a_renewed_certificate_ends_no_connection() {
    let served = serve(None).await;
    let leaf = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let mut before = served.connect(NAME).await.unwrap();
    let body = review(pod()).to_string();
    assert_eq!(post(&mut before, "/inject", body.as_bytes()).await.0, 200);
    served.serving.renew().unwrap();
    assert_eq!(post(&mut before, "/inject", body.as_bytes()).await.0, 200, "the same connection");
    let mut after = served.connect(NAME).await.unwrap();
    assert_ne!(leaf(&before), leaf(&after));
    assert_eq!(post(&mut after, "/inject", body.as_bytes()).await.0, 200);
}

#[tokio::test]
async fn it_is_believed_under_its_names_only() {
    let served = serve(None).await;
    assert!(served.connect("fairlead-control.fairlead-system.svc.cluster.local").await.is_ok());
    let error = served.connect("fairlead-control.other.svc").await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Waits for the end of a connection; what came until then.
async fn ended(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut came = Vec::new();
    // A connection may end with or without a TLS goodbye.
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut came)).await.expect("never ended");
    came
}

#[tokio::test]
async fn whoever_dawdles_is_put_out() {
    let soon = Duration::from_millis(300);
    let far = Duration::from_secs(600);
    let patient = Limits { head: far, body: far, request: far, idle: far, ..Limits::default() };
    // Says nothing.
    let served = serve_within(None, Limits { idle: soon, ..patient }).await;
    assert!(ended(&mut served.connect(NAME).await.unwrap()).await.is_empty());
    // Nor after a review.
    let mut stream = served.connect(NAME).await.unwrap();
    assert_eq!(post(&mut stream, "/inject", review(pod()).to_string().as_bytes()).await.0, 200);
    ended(&mut stream).await;
    // Never ends its head.
    let served = serve_within(None, Limits { head: soon, ..patient }).await;
    let mut stream = served.connect(NAME).await.unwrap();
    stream.write_all(b"POST /inject HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    assert!(ended(&mut stream).await.is_empty());
    // Never ends its body: told so, or put out.
    let head = b"POST /inject HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{";
    let served = serve_within(None, Limits { body: soon, ..patient }).await;
    let mut stream = served.connect(NAME).await.unwrap();
    stream.write_all(head).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 408);
    let served = serve_within(None, Limits { request: soon, ..patient }).await;
    let mut stream = served.connect(NAME).await.unwrap();
    stream.write_all(head).await.unwrap();
    assert!(ended(&mut stream).await.is_empty());
}

#[tokio::test]
async fn one_source_takes_a_part_of_the_places_and_gives_them_to_newcomers() {
    let places = Bounds { all: 4, each: 3, young: Duration::ZERO };
    let served = serve_within(None, Limits { places, ..Limits::default() }).await;
    let from = |source: &'static str| served.connect_from(source, NAME);
    let mut strangers = Vec::new();
    for _ in 0..places.each {
        strangers.push(from("127.0.0.2").await.unwrap());
    }
    assert!(from("127.0.0.2").await.is_err(), "no more than its part");
    let mut server = from("127.0.0.3").await.unwrap();
    // All are taken: the oldest of the stranger's is given to who has none.
    let mut other = from("127.0.0.4").await.unwrap();
    ended(&mut strangers[0]).await;
    for stream in [&mut server, &mut other] {
        assert_eq!(post(stream, "/inject", review(pod()).to_string().as_bytes()).await.0, 200);
    }
}

#[tokio::test]
async fn large_reviews_are_bounded_together() {
    let half = 512 * 1024;
    let served = serve_within(None, Limits { bytes: (4 * half, half), ..Limits::default() }).await;
    let mut request = pod();
    request["object"]["metadata"]["annotations"]["note"] = json!("x".repeat(half));
    let body = review(request).to_string();
    let mut stream = served.connect(NAME).await.unwrap();
    assert_eq!(post(&mut stream, "/inject", body.as_bytes()).await.0, 429);
    assert_eq!(served.review("/inject", pod()).await["allowed"], true, "what was held is given back");
    let served = serve(None).await;
    let mut stream = served.connect(NAME).await.unwrap();
    assert_eq!(post(&mut stream, "/inject", body.as_bytes()).await.0, 200);
}

#[tokio::test]
async fn a_silent_stranger_keeps_nobody_out() {
    let served = serve(None).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert_eq!(served.review("/inject", pod()).await["allowed"], true);
}

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
