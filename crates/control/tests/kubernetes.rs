//! A control plane on an API server: it waits for its settings, follows objects, says where it is reached, and starts again while
//! the API server is away.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "../../sources/tests/support/api_server.rs"]
mod api_server;
mod support;

use api_server::{ApiServer, Handle};
use fairlead_control::{ControlTimings, KubernetesOptions, Source};
use fairlead_identity::{Ca, SystemRandom, TrustDomain};
use fairlead_proto::ResourceType;
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};
use std::time::Instant;
use support::proxy::{Identity, Received};
use support::{Mesh, Plane, SOON, kubeconfig, rows, service};

const SETTINGS: &str = "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\n\
    metadata: {name: mesh, namespace: fairlead-system}\nspec: {trustDomain: shop.example, admission: open}\n";
const REVIEWS: &str = "reviews.shop.svc.cluster.local";

/// A control plane that is not started yet, and its API server with a service.
fn east(mesh: &Mesh) -> (Plane, ApiServer) {
    let server = ApiServer::start(&[]);
    let options = KubernetesOptions { context: Some("only".into()), ..mesh.on_api_server(&server.address()) };
    // The context is chosen by its name alone.
    let mut written = kubeconfig(&server.address(), json!({"token": "secret"}));
    written["current-context"] = json!("none");
    std::fs::write(options.kubeconfig.as_ref().unwrap(), written.to_string()).unwrap();
    server.handle().apply(
        "apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: reviews, namespace: shop}
",
    );
    pod(&server.handle(), "reviews-1", "10.1.0.1", true);
    let plane = mesh.plane("east", ControlTimings::default(), Source::Kubernetes(options));
    (plane, server)
}

/// A pod with a proxy, and its endpoint.
fn pod(api: &Handle, name: &str, address: &str, ready: bool) {
    api.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: reviews, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: reviews, nodeName: n1, containers: [{{name: app, image: app}}]}}
status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: \"{}\"}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: reviews}}}}
addressType: IPv4
endpoints:
- {{addresses: [{address}], conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: {name}, namespace: shop}}}}
ports: [{{name: http, port: 8080}}]
",
        if ready { "True" } else { "False" },
    ));
}

fn until_status(plane: &Plane, wanted: u16, part: &str) {
    let begun = Instant::now();
    loop {
        let (status, text) = plane.status("/ready");
        if status == wanted && text.contains(part) {
            return;
        }
        assert!(begun.elapsed() < SOON, "/ready never became {wanted} with {part}: {status} {text}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn ready_endpoints(plane: &Plane, wanted: usize) -> Value {
    plane.until("/services", &format!("with {wanted} ready"), |all| {
        rows(all, "host", REVIEWS).first().is_some_and(|row| row["ready"] == wanted)
    })
}

fn code(listing: &Value, code: &str) -> bool {
    !rows(listing, "code", code).is_empty()
}

#[test]
fn it_waits_for_its_settings_and_says_so() {
    let mesh = Mesh::new("");
    let (mut plane, server) = east(&mesh);
    plane.launch();
    until_status(&plane, 503, "there is no Mesh fairlead-system/mesh");
    assert_eq!(plane.status("/metrics").0, 503);
    server.handle().apply(SETTINGS);
    until_status(&plane, 200, "ready");
    let services = ready_endpoints(&plane, 1);
    assert_eq!(rows(&services, "host", REVIEWS)[0]["addresses"], json!(["10.96.0.9"]));
    let (status, metrics) = plane.status("/metrics");
    assert_eq!(status, 200);
    for line in ["fairlead_source_up 1", "fairlead_objects 5", "fairlead_objects_stale 0"] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    let endpoint = plane.rows("/endpoints", "workload", "east/shop/reviews-1").remove(0);
    assert_eq!(endpoint["identity"], "spiffe://east.shop.example/ns/shop/sa/reviews");
}

#[test]
fn it_starts_while_the_api_server_is_away() {
    let mesh = Mesh::new("");
    let (mut plane, mut server) = east(&mesh);
    server.handle().apply(SETTINGS);
    plane.start();
    ready_endpoints(&plane, 1);
    pod(&server.handle(), "reviews-2", "10.1.0.2", true);
    ready_endpoints(&plane, 2);
    plane.kill();
    server.down();
    plane.start();
    ready_endpoints(&plane, 2);
    plane.until("/diagnostics", "told of the outage", |all| code(all, "FL0007"));
    pod(&server.handle(), "reviews-2", "10.1.0.2", false);
    server.up();
    ready_endpoints(&plane, 1);
    plane.until("/diagnostics", "silent of the outage", |all| !code(all, "FL0007"));
}

#[test]
fn refused_settings_leave_the_last_good_ones() {
    let mesh = Mesh::new("");
    let (mut plane, server) = east(&mesh);
    server.handle().apply(SETTINGS);
    plane.start();
    server.handle().apply(&SETTINGS.replace("admission: open", "admission: never"));
    let told = plane.until("/diagnostics", "told of", |all| {
        rows(all, "path", "spec.admission").iter().any(|d| d["object"]["kind"] == "Mesh" && d["file"] == "")
    });
    assert!(code(&told, "FL0001") || !rows(&told, "severity", "warning").is_empty(), "{told:#}");
    // Over a restart too.
    plane.kill();
    plane.start();
    ready_endpoints(&plane, 1);
    // Nor does a deleted object mean other settings than it had.
    server.handle().delete("Mesh/fairlead-system/mesh");
    plane.until("/diagnostics", "told of the deletion", |all| {
        all.to_string().contains("no Mesh fairlead-system/mesh any more")
    });
    let endpoint = plane.rows("/endpoints", "workload", "east/shop/reviews-1").remove(0);
    assert_eq!(endpoint["identity"], "spiffe://east.shop.example/ns/shop/sa/reviews");
}

#[test]
fn its_address_is_that_of_the_peering_service_and_a_directory_cluster_joins_there() {
    let mesh = Mesh::new("apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nspec: {trustDomain: shop.example}\n");
    let (mut plane, server) = east(&mesh);
    server.handle().apply(SETTINGS);
    plane.start();
    let (host, port) = plane.address.rsplit_once(':').unwrap();
    server.handle().apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: fairlead-peering, namespace: fairlead-system}}
spec: {{type: LoadBalancer, ports: [{{name: tls-xds, port: {port}}}]}}
status: {{loadBalancer: {{ingress: [{{ip: {host}}}]}}}}
"
    ));
    ready_endpoints(&plane, 1);
    plane.until("/services", "with the peering service", |all| {
        !rows(all, "host", "fairlead-peering.fairlead-system.svc.cluster.local").is_empty()
    });
    mesh.write("clusters/west/ratings.yaml", &service("ratings", "10.2.0.1", Some("")));
    let west = mesh.start("west");
    // The token carries the address: nothing else tells west where east is.
    west.join(&plane);
    west.until("/services", "with east's service", |all| !rows(all, "host", REVIEWS).is_empty());
    plane.until("/services", "with west's service", |all| {
        !rows(all, "host", "ratings.shop.svc.cluster.local").is_empty()
    });
}

/// One object of the API server, by its path.
/// A pod as injection makes it of the template `gateway`.
const GATEWAY: &str = "apiVersion: v1
kind: Pod
metadata:
  name: ingress-1
  namespace: edge
  labels: {istio: ingressgateway, fairlead.dev/proxy: gateway, sidecar.istio.io/inject: \"true\"}
spec:
  serviceAccountName: ingress
  containers: [{name: fairlead-proxy, image: fairlead, ports: [{name: web, containerPort: 8080}]}]
status: {phase: Running, podIP: 10.1.0.7, conditions: [{type: Ready, status: \"False\"}]}
";

/// What leads to it, and what it is told to do: the Gateway's port is the Service's.
const EDGE: &str = "apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: edge}
spec: {type: LoadBalancer, selector: {istio: ingressgateway}, ports: [{name: http2, port: 80, targetPort: web}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ingress-x, namespace: edge, labels: {kubernetes.io/service-name: ingress}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.7], conditions: {ready: false}, targetRef: {kind: Pod, name: ingress-1, namespace: edge}}
ports: [{name: http2, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop.example.com]
  gateways: [shop]
  http: [{match: [{uri: {prefix: /reviews}}], route: [{destination: {host: reviews}}]}]
";

fn has(received: &Received, kind: ResourceType, name: &str) -> bool {
    received.versions.contains_key(&(kind.url().to_owned(), name.to_owned()))
}

#[test]
fn a_gateway_pod_is_one_before_a_gateway_selects_it_and_listens_where_its_service_leads() {
    let mesh = Mesh::new("");
    let (mut plane, server) = east(&mesh);
    let api = server.handle();
    api.apply(SETTINGS);
    api.apply(GATEWAY);
    plane.start();
    plane.until("/endpoints", "with reviews", |all| !rows(all, "workload", "east/shop/reviews-1").is_empty());
    // It can begin, and be ready, while nobody has said what it is to listen for.
    let proxy = Identity::of(&plane, "east/edge/ingress-1").subscribe(None);
    proxy.synced();
    let listing =
        plane.until("/proxies", "with the gateway", |all| !rows(all, "workload", "east/edge/ingress-1").is_empty());
    assert_eq!(rows(&listing, "workload", "east/edge/ingress-1")[0]["role"], "gateway");
    let listeners = |received: &Received| -> Vec<String> {
        let of_type = |(kind, name): &(String, String)| (kind == ResourceType::Listener.url()).then(|| name.clone());
        received.versions.keys().filter_map(of_type).collect()
    };
    assert_eq!(listeners(&proxy.received.lock().unwrap()), [""; 0]);
    api.apply(EDGE);
    proxy.until("told to listen", |r| {
        listeners(r) == ["0.0.0.0_8080"]
            && has(r, ResourceType::RouteConfiguration, "http.8080")
            && has(r, ResourceType::ClusterLoadAssignment, &format!("outbound|80||{REVIEWS}"))
    });
    let routes = proxy.received.lock().unwrap().bodies
        [&(ResourceType::RouteConfiguration.url().to_owned(), "http.8080".to_owned())]
        .clone();
    let text = String::from_utf8_lossy(&routes).into_owned();
    assert!(text.contains("shop.example.com") && text.contains("/reviews") && text.contains(REVIEWS), "{text}");
    // What a caller in the mesh is told of it: no mutual TLS, and the account's identity.
    let endpoint = plane.rows("/endpoints", "workload", "east/edge/ingress-1").remove(0);
    assert_eq!(endpoint["identity"], "spiffe://east.shop.example/ns/edge/sa/ingress");
}

fn object(server: &ApiServer, path: &str) -> Option<Value> {
    use std::io::{Read as _, Write as _};
    let address = server.address();
    let mut stream = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).unwrap())
}

fn until_trusted(server: &ApiServer, trust: &Value) {
    let begun = Instant::now();
    loop {
        let map = object(server, "/api/v1/namespaces/shop/configmaps/fairlead-trust");
        let text = map.as_ref().and_then(|map| map["data"]["bundles.json"].as_str());
        if text.and_then(|text| serde_json::from_str::<Value>(text).ok()).as_ref() == Some(trust) {
            return;
        }
        assert!(begun.elapsed() < SOON, "never the present trust: {map:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn the_next_pod_is_the_same_control_plane() {
    let mesh = Mesh::new("");
    let (mut plane, server) = east(&mesh);
    server.handle().apply(SETTINGS);
    server.handle().apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    plane.start();
    let trust = plane.get("/trust");
    until_trusted(&server, &trust);
    let secret = |name: &str| object(&server, &format!("/api/v1/namespaces/fairlead-system/secrets/{name}"));
    assert!(secret("fairlead-ca").unwrap()["data"]["ca-key.pem"].is_string());
    // The pod is lost with all it had, and leaves its lease behind.
    plane.kill();
    std::fs::remove_dir_all(mesh.folder.path().join("state-east")).unwrap();
    server.handle().delete("ConfigMap/shop/fairlead-trust");
    plane.start();
    assert_eq!(plane.get("/trust"), trust, "the CA is the same");
    until_trusted(&server, &trust);
}

#[test]
fn a_ca_from_a_folder_is_there_after_a_restart() {
    let mesh = Mesh::new("");
    let (mut plane, server) = east(&mesh);
    server.handle().apply(SETTINGS);
    server.handle().apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    let folder = mesh.folder.path().join("cacerts");
    std::fs::create_dir_all(&folder).unwrap();
    let domain = TrustDomain::new("east.shop.example").unwrap();
    let ca = Ca::create_root("east", &domain, UnixTime::now(), &mut SystemRandom).unwrap();
    for (name, text) in ca.to_pem().files() {
        std::fs::write(folder.join(name), text).unwrap();
    }
    plane.cacerts = Some(folder);
    plane.start();
    let trust = plane.get("/trust");
    until_trusted(&server, &trust);
    plane.kill();
    plane.start();
    assert_eq!(plane.get("/trust"), trust);
}

#[test]
fn a_ca_that_is_none_or_is_gone_is_told_of_and_never_replaced_in_silence() {
    let mesh = Mesh::new("");
    let (mut plane, server) = east(&mesh);
    server.handle().apply(SETTINGS);
    let secrets = "/api/v1/namespaces/fairlead-system/secrets";
    let cacerts = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "cacerts", "namespace": "fairlead-system"}, "data": {"ca-cert.pem": "bm9uZQ=="}});
    server.handle().put(cacerts);
    plane.launch();
    until_status(&plane, 503, "Secret fairlead-system/cacerts is no CA: it has no ca-key.pem; write it with");
    server.handle().delete("Secret/fairlead-system/cacerts");
    until_status(&plane, 200, "ready");
    let trust = plane.get("/trust");
    let begun = Instant::now();
    let of_members = loop {
        let all = object(&server, secrets).unwrap();
        let is_one = |secret: &&Value| {
            secret["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("fairlead-state-membership"))
        };
        if let Some(found) = all["items"].as_array().unwrap().iter().find(is_one) {
            break found["metadata"]["name"].as_str().unwrap().to_owned();
        }
        assert!(begun.elapsed() < SOON, "membership is never kept");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let ca = object(&server, &format!("{secrets}/fairlead-ca")).unwrap();
    // The pod is lost, and somebody deletes the CA before the next one starts.
    let next = |plane: &mut Plane| {
        plane.kill();
        std::fs::remove_dir_all(mesh.folder.path().join("state-east")).unwrap();
        server.handle().delete("Secret/fairlead-system/fairlead-ca");
        plane.launch();
        until_status(plane, 503, "Secret fairlead-ca is gone, and there is no Secret cacerts; put the Secret back");
    };
    next(&mut plane);
    assert!(object(&server, &format!("{secrets}/fairlead-ca")).is_none(), "no other is made");
    server.handle().put(ca);
    until_status(&plane, 200, "ready");
    assert_eq!(plane.get("/trust"), trust);
    // An operator gives the root up.
    next(&mut plane);
    let (_, told) = plane.status("/ready");
    let root = told.trim().rsplit_once("fairlead.dev/replace-root=").unwrap().1.to_owned();
    let mut secret = object(&server, &format!("{secrets}/{of_members}")).unwrap();
    secret["apiVersion"] = json!("v1");
    secret["kind"] = json!("Secret");
    secret["metadata"]["annotations"] = json!({"fairlead.dev/replace-root": root});
    server.handle().put(secret);
    until_status(&plane, 200, "ready");
    assert_ne!(plane.get("/trust"), trust);
}
