//! First certificates by projected tokens, from the API server's answer to the identity in the certificate.

use super::*;
use crate::authority::Opening;
use crate::kubernetes::TokenKeys;
use crate::kubernetes::fake_api::FakeApi;
use crate::options::ControlTimings;
use crate::store::Store;
use crate::world::World;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fairlead_identity::WorkloadKey;
use fairlead_sources::{ClusterObjects, SourceObject};
use serde_json::json;

const AUDIENCE: &str = "fairlead.dev/east";
const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {podIP: 10.0.0.1, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: gate-1, namespace: fairlead-system, labels: {istio: eastwestgateway}}
spec: {serviceAccountName: fairlead-eastwest}
status: {podIP: 10.0.0.2, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: rogue-1, namespace: shop, labels: {istio: eastwestgateway}}
spec: {serviceAccountName: web}
status: {podIP: 10.0.0.3, phase: Running}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: fairlead-eastwest, namespace: fairlead-system}
spec:
  selector: {istio: eastwestgateway}
  servers:
  - {port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}
";

struct Plane {
    api: FakeApi,
    issuer: Issuer,
}

impl Plane {
    fn new() -> Self {
        let store = Arc::new(Store::in_memory().unwrap());
        let opening = Opening::plain("east", "east.shop.mesh");
        let authority = Arc::new(Authority::open(&opening, store.clone()).unwrap());
        let mut world = World::new(authority.clone(), "shop".into(), ControlTimings::default()).unwrap();
        let file: Arc<str> = "all.yaml".into();
        let decoding = fairlead_resources::decode(&"east".into(), &file, OBJECTS.as_bytes());
        assert!(decoding.diagnostics.is_empty(), "{:?}", decoding.diagnostics);
        let source = |decoded| SourceObject { decoded: Arc::new(decoded), file: file.clone(), stale: false };
        let mut objects: Vec<SourceObject> = decoding.objects.into_iter().map(source).collect();
        objects.sort_by(|a, b| a.key().cmp(b.key()));
        world.objects = ClusterObjects { objects, ..ClusterObjects::default() };
        world.resolve(Instant::now());
        let (events, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                if let Event::Ask(question) = event {
                    question(&world);
                }
            }
        });
        let api = FakeApi::new();
        let keys = Arc::new(TokenKeys::load(api.client(), store).unwrap());
        let reviewer = Arc::new(Reviewer::new(api.client(), "east", keys));
        Self { api, issuer: Issuer::new(authority, events, Some(reviewer)) }
    }

    /// The token of a pod, which the API server knows.
    fn token(&self, namespace: &str, pod: &str, account: &str, audience: &str) -> String {
        let claims = json!({"aud": [audience], "exp": 4_000_000_000_u64, "iss": "kubernetes",
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {"namespace": namespace, "pod": {"name": pod, "uid": "1"},
                "serviceaccount": {"name": account, "uid": "2"}}});
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(claims));
        self.api.set_review(
            &token,
            json!({"authenticated": true, "audiences": [audience], "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "extra": {"authentication.kubernetes.io/pod-name": [pod]}}}),
        );
        token
    }

    async fn ask(&self, token: &str) -> Result<String, Status> {
        let csr_der = WorkloadKey::generate().unwrap().csr().unwrap().into();
        let request = SignRequest { csr_der, credential: token.to_owned(), lifetime_seconds: 0 };
        let response = self.issuer.issue(None, &request).await?;
        let chain = fairlead_identity::certificate::certificates_from_pem(&response.chain_pem.concat()).unwrap();
        let peer = fairlead_identity::verdict(&chain, &self.issuer.authority.trust(), now()).unwrap();
        Ok(format!("{} for {}", peer.spiffe_id, peer.workload.unwrap()))
    }
}

#[tokio::test]
async fn a_pod_gets_the_identity_of_its_service_account() {
    let plane = Plane::new();
    let token = plane.token("shop", "web-1", "web", AUDIENCE);
    let given = plane.ask(&token).await.unwrap();
    assert_eq!(given, "spiffe://east.shop.mesh/ns/shop/sa/web for east/shop/web-1");
    // While it lives it may be shown again: a restarted proxy has no other.
    assert_eq!(plane.ask(&token).await.unwrap(), given);
}

#[tokio::test]
async fn what_is_refused() {
    let plane = Plane::new();
    let refused = async |token: &str, code: tonic::Code, parts: &[&str]| {
        let status = plane.ask(token).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(parts.iter().all(|part| status.message().contains(part)), "{status}");
    };
    // Denied by the API server.
    let denied = plane.token("shop", "web-1", "web", AUDIENCE);
    plane.api.set_review(&denied, json!({"authenticated": false, "error": "the pod is gone"}));
    refused(&denied, tonic::Code::Unauthenticated, &["pod shop/web-1", AUDIENCE, "the pod is gone"]).await;
    let foreign = plane.token("shop", "web-1", "web", "fairlead.dev/west");
    refused(&foreign, tonic::Code::Unauthenticated, &["pod shop/web-1", "fairlead.dev/west", AUDIENCE]).await;
    // A pod of another namespace, good at the API server, that the objects do not have there.
    let elsewhere = plane.token("bank", "web-1", "web", AUDIENCE);
    refused(&elsewhere, tonic::Code::PermissionDenied, &["east/bank/web-1"]).await;
    // Its objects say another ServiceAccount.
    let other = plane.token("shop", "web-1", "admin", AUDIENCE);
    refused(&other, tonic::Code::PermissionDenied, &["ns/shop/sa/web", "ns/shop/sa/admin"]).await;
    refused("a.b.c", tonic::Code::Unauthenticated, &["no workload token"]).await;
    plane.api.set_away(true);
    let later = plane.token("shop", "web-2", "web", AUDIENCE);
    refused(&later, tonic::Code::Unavailable, &["pod shop/web-2", "tried again"]).await;
}

#[tokio::test]
async fn the_reserved_identity_is_for_the_gateways_of_the_installation_alone() {
    let plane = Plane::new();
    let gateway = plane.token("fairlead-system", "gate-1", "fairlead-eastwest", AUDIENCE);
    let given = plane.ask(&gateway).await.unwrap();
    assert_eq!(given, "spiffe://east.shop.mesh/fairlead/gateway for east/fairlead-system/gate-1");
    let rogue = plane.token("shop", "rogue-1", "web", AUDIENCE);
    let status = plane.ask(&rogue).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(
        status.message().contains("pod shop/rogue-1") && status.message().contains("fairlead-eastwest"),
        "{status}"
    );
}

#[tokio::test]
async fn strangers_cost_the_api_server_little() {
    let plane = Plane::new();
    for n in 0.. {
        let token = plane.token("shop", &format!("guess-{n}"), "web", AUDIENCE);
        plane.api.set_review(&token, json!({"authenticated": false}));
        let before = plane.api.requests("tokenreviews");
        match plane.ask(&token).await.unwrap_err().code() {
            tonic::Code::Unauthenticated => assert_eq!(plane.api.requests("tokenreviews"), before + 1),
            code => {
                assert_eq!(code, tonic::Code::ResourceExhausted);
                assert!(n >= BAD_TOKENS && plane.api.requests("tokenreviews") <= before + 1);
                break;
            }
        }
    }
    // Whoever comes now is told to wait, and the API server is not asked.
    let before = plane.api.requests("tokenreviews");
    let good = plane.token("shop", "web-1", "web", AUDIENCE);
    while plane.issuer.bad_tokens.take(Instant::now()) {}
    assert_eq!(plane.ask(&good).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    assert_eq!(plane.api.requests("tokenreviews"), before);
}
