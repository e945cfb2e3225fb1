//! A control plane that serves a remote cluster from its primary: two API servers, a credential that is renewed, refused and brought anew.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "../../sources/tests/support/api_server.rs"]
mod api_server;
mod support;

use api_server::ApiServer;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fairlead_control::{ControlTimings, HomeOptions, KubernetesOptions, Source};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{Mesh, Plane, SOON, kubeconfig, rows, service};

const SETTINGS: &str = "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\n\
    metadata: {name: mesh, namespace: fairlead-system}\nspec: {trustDomain: shop.example, admission: open}\n";
const REVIEWS: &str = "reviews.shop.svc.cluster.local";
const HOME: &str = "fairlead-remote-west";

/// West's control plane, its own API server and its primary's.
struct Remote {
    mesh: Mesh,
    plane: Plane,
    west: ApiServer,
    primary: ApiServer,
}

/// A token of west, good from that many seconds ago until in that many.
fn token(ago: u64, left: u64, mark: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"iat": now - ago, "exp": now + left, "jti": mark});
    format!("{}.{}.x", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn remote(token: &str) -> Remote {
    let mesh = Mesh::new("apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nspec: {trustDomain: shop.example}\n");
    let (west, primary) = (ApiServer::start(&[]), ApiServer::start(&[]));
    west.handle().cluster().tokens = Some(BTreeSet::from([token.to_owned()]));
    let file = |name: &str| mesh.folder.path().join(name);
    std::fs::write(file("token"), token).unwrap();
    let west_user = json!({"tokenFile": file("token")});
    std::fs::write(file("remote"), kubeconfig(&west.address(), west_user).to_string()).unwrap();
    std::fs::write(file("primary"), kubeconfig(&primary.address(), json!({"token": "primary"})).to_string()).unwrap();
    west.handle().apply(SETTINGS);
    west.handle().apply(&service_with_pod("reviews", "10.1.0.1"));
    west.handle().apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    let options = KubernetesOptions {
        namespace: "fairlead-system".into(),
        kubeconfig: Some(file("remote")),
        context: None,
        home: Some(HomeOptions {
            namespace: HOME.into(),
            kubeconfig: Some(file("primary")),
            token_lifetime: Duration::from_secs(3600),
        }),
    };
    let plane = mesh.plane("west", ControlTimings::default(), Source::Kubernetes(options));
    let remote = Remote { mesh, plane, west, primary };
    remote.keep(token);
    remote
}

fn service_with_pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{clusterIP: 10.96.0.9, selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {{name: {name}, namespace: shop}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-1, namespace: shop, labels: {{app: {name}, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: {name}, nodeName: n1, containers: [{{name: app, image: app}}]}}
status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: \"True\"}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints:
- {{addresses: [{address}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}-1, namespace: shop}}}}
ports: [{{name: http, port: 8080}}]
"
    )
}

impl Remote {
    /// Writes the credential's Secret, as `fairlead join` does.
    fn keep(&self, token: &str) {
        let data = json!({"token": STANDARD.encode(token), "kubeconfig": STANDARD.encode("kept as it is")});
        let metadata = json!({"name": "fairlead-remote", "namespace": HOME});
        self.primary.handle().put(json!({"kind": "Secret", "metadata": metadata, "data": data}));
    }

    fn kept(&self) -> Value {
        let secret = object(&self.primary, &format!("/api/v1/namespaces/{HOME}/secrets/fairlead-remote"), "").unwrap();
        secret["data"].clone()
    }

    /// The load balancer of the Service in the primary.
    fn door(&self, host: &str, port: u16) {
        self.primary.handle().apply(&format!(
            "apiVersion: v1
kind: Service
metadata: {{name: fairlead-peering, namespace: {HOME}}}
spec: {{type: LoadBalancer, ports: [{{name: tls-xds, port: {port}}}, {{name: https-webhook, port: 15443}}]}}
status: {{loadBalancer: {{ingress: [{{ip: {host}}}]}}}}
"
        ));
    }

    fn slice(&self, token: &str) -> Option<Value> {
        let path = "/apis/discovery.k8s.io/v1/namespaces/fairlead-system/endpointslices/fairlead-control-ipv4";
        object(&self.west, path, token)
    }

    fn hears_of(&self, name: &str, address: &str) {
        self.west.handle().apply(&service_with_pod(name, address));
        let host = format!("{name}.shop.svc.cluster.local");
        self.plane.until("/services", &format!("with {name}"), |all| {
            rows(all, "host", &host).first().is_some_and(|row| row["ready"] == 1)
        });
    }

    /// Lists and watches of pods that were asked for.
    fn questions(&self) -> usize {
        self.west.handle().cluster().asked.iter().filter(|path| path.starts_with("api/v1/pods")).count()
    }
}

/// One object of an API server, by its path.
fn object(server: &ApiServer, path: &str, token: &str) -> Option<Value> {
    use std::io::{Read as _, Write as _};
    let address = server.address();
    let mut stream = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).unwrap())
}

fn until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let found = look();
        if wanted(&found) {
            return found;
        }
        assert!(begun.elapsed() < SOON, "never {what}: {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn told_of(listing: &Value) -> bool {
    !rows(listing, "code", "FL0505").is_empty()
}

#[test]
fn objects_are_the_remotes_and_state_is_in_the_primary() {
    let token = token(0, 3600, "first");
    let mut remote = remote(&token);
    remote.plane.start();
    remote.hears_of("ratings", "10.1.0.2");
    let endpoint = remote.plane.rows("/endpoints", "workload", "west/shop/ratings-1").remove(0);
    assert_eq!(endpoint["identity"], "spiffe://west.shop.example/ns/shop/sa/ratings", "a trust domain of its own");
    let ca = format!("/api/v1/namespaces/{HOME}/secrets/fairlead-ca");
    assert!(object(&remote.primary, &ca, "").unwrap()["data"]["ca-key.pem"].is_string());
    let trust = "/api/v1/namespaces/shop/configmaps/fairlead-trust";
    until("trust in the remote", || object(&remote.west, trust, &token), Option::is_some);
    assert!(object(&remote.primary, trust, "").is_none(), "the primary's trust is its own control plane's");
    let lease =
        |namespace: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/fairlead-control");
    assert!(object(&remote.primary, &lease(HOME), "").is_some());
    let path = |kind: &str| format!("api/v1/namespaces/fairlead-system/{kind}");
    let asked = remote.west.handle().cluster().asked.clone();
    assert!(!asked.iter().any(|a| a.starts_with(&path("secrets")) || a.contains("leases")), "no secret of the remote");
}

#[test]
fn the_remote_and_peers_are_told_where_its_control_plane_is() {
    let token = token(0, 3600, "first");
    let mut remote = remote(&token);
    let (host, port) = remote.plane.address.rsplit_once(':').unwrap();
    let (host, port) = (host.to_owned(), port.parse().unwrap());
    remote.door(&host, port);
    remote.plane.start();
    let slice = until("a slice", || remote.slice(&token), Option::is_some).unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"], json!([host]));
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "fairlead-control");
    let ports = json!([{"name": "https-webhook", "port": 15443, "protocol": "TCP"}, {"name": "tls-xds", "port": port, "protocol": "TCP"}]);
    assert_eq!(slice["ports"], ports);
    // A member that dials in by that address, which the token carries.
    remote.mesh.write("clusters/east/carts.yaml", &service("carts", "10.2.0.1", Some("")));
    let east = remote.mesh.start("east");
    until("an address", || remote.plane.post("/token", json!({})), |made| made["token"].is_string());
    east.join(&remote.plane);
    east.until("/services", "with west's service", |all| !rows(all, "host", REVIEWS).is_empty());
    remote.plane.until("/services", "with east's", |all| !rows(all, "host", "carts.shop.svc.cluster.local").is_empty());
    // The load balancer moves.
    remote.door("192.0.2.7", port);
    until(
        "the other address",
        || remote.slice(&token),
        |slice| slice.as_ref().is_some_and(|slice| slice["endpoints"][0]["addresses"] == json!(["192.0.2.7"])),
    );
    let told = json!([format!("192.0.2.7:{port}")]);
    east.until("/peers", "told of it", |all| rows(all, "cluster", "west").iter().any(|row| row["addresses"] == told));
}

#[test]
fn a_credential_is_renewed_at_half_of_its_life_and_no_watch_ends() {
    // More than half of its life is over.
    let (first, second) = (token(2000, 1600, "first"), token(0, 3600, "second"));
    let mut remote = remote(&first);
    remote.plane.start();
    remote.hears_of("ratings", "10.1.0.2");
    let before = remote.questions();
    remote.west.handle().cluster().next_tokens.push(second.clone());
    let kept = until("kept in the primary", || remote.kept(), |kept| kept["token"] == STANDARD.encode(&second));
    assert_eq!(kept["kubeconfig"], STANDARD.encode("kept as it is"));
    // The first is no good any more, and nobody notices.
    remote.west.handle().cluster().tokens = Some(BTreeSet::from([second]));
    remote.hears_of("details", "10.1.0.3");
    assert_eq!(remote.questions(), before, "the watches went on");
    assert!(!told_of(&remote.plane.get("/diagnostics")));
}

#[test]
fn a_revoked_credential_is_told_of_and_a_new_one_repairs_it() {
    let first = token(0, 3600, "first");
    let mut remote = remote(&first);
    remote.plane.start();
    remote.hears_of("ratings", "10.1.0.2");
    remote.west.handle().cluster().tokens = Some(BTreeSet::new());
    let told = remote.plane.until("/diagnostics", "told of it", told_of);
    let told = rows(&told, "code", "FL0505").remove(0);
    assert!(told.to_string().contains("fairlead join --context west --primary"), "{told:#}");
    let ready = remote.plane.rows("/services", "host", REVIEWS).remove(0)["ready"].clone();
    assert_eq!(ready, 1, "its proxies are served what is known");
    // Over a restart too; and what `fairlead join` brings meanwhile is heard of.
    remote.plane.kill();
    remote.plane.start();
    remote.plane.until("/diagnostics", "told of it again", told_of);
    let second = token(0, 3600, "second");
    remote.west.handle().cluster().tokens = Some(BTreeSet::from([second.clone()]));
    remote.keep(&second);
    remote.plane.until("/diagnostics", "silent of it", |all| !told_of(all));
    remote.hears_of("details", "10.1.0.3");
}
