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
metadata: {name: web-1, namespace: shop, labels: {app: web}, uid: uid-of-web-1}
spec: {serviceAccountName: web}
status: {podIP: 10.0.0.1, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: gate-1, namespace: fairlead-system, labels: {istio: eastwestgateway}, uid: uid-of-gate-1}
spec: {serviceAccountName: fairlead-eastwest}
status: {podIP: 10.0.0.2, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: rogue-1, namespace: shop, labels: {istio: rogue}, uid: uid-of-rogue-1}
spec: {serviceAccountName: web}
status: {podIP: 10.0.0.3, phase: Running}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: legacy-1, namespace: shop}
spec: {address: 10.9.0.1, labels: {app: legacy}, serviceAccount: legacy}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: fairlead-eastwest, namespace: fairlead-system}
spec:
  selector: {istio: eastwestgateway}
  servers:
  - {port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: mine, namespace: shop}
spec:
  selector: {istio: rogue}
  servers:
  - {port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}
";

struct Plane {
    api: FakeApi,
    issuer: Issuer,
    world: Arc<Mutex<World>>,
    keys: Arc<TokenKeys>,
}

/// Of the pods in [`OBJECTS`].
fn uid(pod: &str) -> String {
    format!("uid-of-{pod}")
}

fn objects(text: &str) -> ClusterObjects {
    let file: Arc<str> = "all.yaml".into();
    let decoding = fairlead_resources::decode(&"east".into(), &file, text.as_bytes());
    assert!(decoding.diagnostics.is_empty(), "{:?}", decoding.diagnostics);
    let source = |decoded| SourceObject { decoded: Arc::new(decoded), file: file.clone(), stale: false };
    let mut objects: Vec<SourceObject> = decoding.objects.into_iter().map(source).collect();
    objects.sort_by(|a, b| a.key().cmp(b.key()));
    ClusterObjects { objects, ..ClusterObjects::default() }
}

impl Plane {
    fn new() -> Self {
        let store = Arc::new(Store::in_memory().unwrap());
        let opening = Opening::plain("east", "east.shop.mesh");
        let authority = Arc::new(Authority::open(&opening, store.clone()).unwrap());
        let mut world = World::new(authority.clone(), "shop".into(), ControlTimings::default()).unwrap();
        world.objects = objects(OBJECTS);
        world.resolve(Instant::now());
        let world = Arc::new(Mutex::new(world));
        let (events, mut inbox) = mpsc::unbounded_channel();
        let asked = world.clone();
        tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                if let Event::Ask(question) = event {
                    question(&asked.lock());
                }
            }
        });
        let api = FakeApi::new();
        let keys = Arc::new(TokenKeys::load(api.client(), store).unwrap());
        let reviewer = Arc::new(Reviewer::new(api.client(), "east", keys.clone()));
        Self { api, issuer: Issuer::new(authority, events, Some(reviewer)), world, keys }
    }

    /// From now on the cluster's objects are these.
    fn set_objects(&self, text: &str) {
        let mut world = self.world.lock();
        world.objects = objects(text);
        world.resolve(Instant::now());
    }

    /// The token of a pod, which the API server knows.
    fn token(&self, namespace: &str, pod: &str, account: &str, audience: &str) -> String {
        let claims = json!({"aud": [audience], "exp": 4_000_000_000_u64, "iss": "kubernetes",
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {"namespace": namespace, "pod": {"name": pod, "uid": uid(pod)},
                "serviceaccount": {"name": account, "uid": "2"}}});
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(claims));
        self.api.set_review(
            &token,
            json!({"authenticated": true, "audiences": [audience], "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "extra": {"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [uid(pod)]}}}),
        );
        token
    }

    async fn ask(&self, token: &str) -> Result<String, Status> {
        let caller = self.sign(None, token).await?;
        let peer = caller.peer.unwrap();
        Ok(format!("{} for {}", peer.spiffe_id, peer.workload.unwrap()))
    }

    /// Who shows the certificate that is given.
    async fn sign(&self, caller: Option<&Caller>, token: &str) -> Result<Caller, Status> {
        let csr_der = WorkloadKey::generate().unwrap().csr().unwrap().into();
        let request = SignRequest { csr_der, credential: token.to_owned(), lifetime_seconds: 0 };
        let response = self.issuer.issue(caller, &request).await?;
        let chain = fairlead_identity::certificate::certificates_from_pem(&response.chain_pem.concat()).unwrap();
        let peer = fairlead_identity::verdict(&chain, &self.issuer.authority.trust(), now()).unwrap();
        Ok(at([10, 0, 0, 1], Some(peer)))
    }
}

fn at(address: [u8; 4], peer: Option<fairlead_identity::VerifiedPeer>) -> Caller {
    Caller { peer, exporter: [0; fairlead_identity::join::EXPORTER_BYTES], address: (address, 1).into() }
}

#[tokio::test]
async fn a_certificate_is_renewed_for_its_pod_alone() {
    let plane = Plane::new();
    let web = plane.sign(None, &plane.token("shop", "web-1", "web", AUDIENCE)).await.unwrap();
    assert_eq!(web.peer.as_ref().unwrap().pod_uid.as_deref(), Some("uid-of-web-1"));
    let renewed = plane.sign(Some(&web), "").await.unwrap();
    assert_eq!(renewed.peer.as_ref().unwrap().pod_uid.as_deref(), Some("uid-of-web-1"));
    // Another pod of that name and account takes its place.
    plane.set_objects(&OBJECTS.replace("uid-of-web-1", "uid-of-another"));
    for stolen in [&web, &renewed] {
        let refused = plane.sign(Some(stolen), "").await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert!(refused.message().contains("east/shop/web-1") && refused.message().contains("token"), "{refused}");
    }
    // Nor does the first one's token do, which the API server still knows as long as nobody told it otherwise.
    let early = plane.ask(&plane.token("shop", "web-1", "web", AUDIENCE)).await.unwrap_err();
    assert_eq!(early.code(), tonic::Code::Unavailable, "{early}");
    // One that says no pod, as of a version before, is not renewed for a pod either.
    let mut unbound = web.clone();
    unbound.peer.as_mut().unwrap().pod_uid = None;
    plane.set_objects(OBJECTS);
    assert_eq!(plane.sign(Some(&unbound), "").await.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert!(plane.sign(Some(&web), "").await.is_ok());
}

#[tokio::test]
async fn a_workload_that_is_no_pod_is_renewed_as_ever() {
    let plane = Plane::new();
    let authority = &plane.issuer.authority;
    let identity = authority.ca().trust_domain().service_account("shop", "legacy").unwrap();
    let token = |workload: &str, identity: &SpiffeId| {
        let life = Duration::from_secs(60);
        authority.tokens().issue(identity, workload, life, now(), &mut fairlead_identity::SystemRandom).unwrap()
    };
    let legacy = plane.sign(None, token("east/shop/legacy-1", &identity).as_str()).await.unwrap();
    assert_eq!(legacy.peer.as_ref().unwrap().pod_uid, None);
    assert!(plane.sign(Some(&legacy), "").await.is_ok());
    // An operator's token for a pod is for the pod that is there when it is used.
    let web = authority.ca().trust_domain().service_account("shop", "web").unwrap();
    let web = plane.sign(None, token("east/shop/web-1", &web).as_str()).await.unwrap();
    assert_eq!(web.peer.as_ref().unwrap().pod_uid.as_deref(), Some("uid-of-web-1"));
}

#[tokio::test]
async fn by_keys_alone_only_pods_that_were_known_get_a_certificate() {
    let plane = Plane::new();
    let signer = crate::kubernetes::fake_signer::Signer::new();
    signer.serve(&plane.api);
    plane.keys.fetch().await.unwrap();
    plane.api.set_away(true);
    let token = |pod: &str, uid: &str| signer.token("shop", pod, uid, "web", AUDIENCE);
    assert!(plane.ask(&token("web-1", "uid-of-web-1")).await.is_ok());
    // Deleted, and one of its name made anew, before the API server went away; or never heard of.
    for (pod, uid) in [("web-1", "uid-of-the-one-before"), ("web-0", "uid-of-web-0")] {
        let refused = plane.ask(&token(pod, uid)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    }
}

#[tokio::test]
async fn bundles_are_for_those_with_a_certificate() {
    let plane = Plane::new();
    let ask = async |caller: Option<&Caller>| {
        let mut request = Request::new(BundlesRequest {});
        caller.map(|caller| request.extensions_mut().insert(caller.clone()));
        plane.issuer.bundles(request).await
    };
    assert_eq!(ask(Some(&at([192, 0, 2, 1], None))).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    let web = plane.sign(None, &plane.token("shop", "web-1", "web", AUDIENCE)).await.unwrap();
    assert!(!ask(Some(&web)).await.unwrap().get_ref().bundles_json.is_empty());
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
async fn strangers_cost_the_api_server_little_and_keep_nobody_waiting() {
    let plane = Plane::new();
    let refused = async |address: [u8; 4], n: usize| {
        let token = plane.token("shop", &format!("guess-{n}"), "web", AUDIENCE);
        plane.api.set_review(&token, json!({"authenticated": false}));
        plane.sign(Some(&at(address, None)), &token).await.unwrap_err().code()
    };
    let stranger = [192, 0, 2, 1];
    let mut asked = 0;
    while refused(stranger, asked).await != tonic::Code::ResourceExhausted {
        asked += 1;
    }
    let most = TOKENS.each.burst.max(TOKENS.failed.burst) as usize;
    assert!((1..=2 * most).contains(&asked), "{asked}");
    assert_eq!(plane.api.requests("tokenreviews"), asked, "who must wait is not asked about");
    // From everywhere at once: those that failed wait, and one that did not fail is served.
    for n in 2..=200 {
        refused([192, 0, 2, n], 1000 + usize::from(n)).await;
        refused([192, 0, 2, n], 2000 + usize::from(n)).await;
    }
    let good = plane.token("shop", "web-1", "web", AUDIENCE);
    let proxy = at([10, 0, 0, 1], None);
    for _ in 0..3 * TOKENS.each.burst {
        assert!(plane.sign(Some(&proxy), &good).await.is_ok(), "a good token costs nothing");
    }
}
