//! Two control planes of one Kubernetes cluster on one API server: what one learns the other knows, and either may die.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "../../sources/tests/support/api_server.rs"]
mod api_server;
mod support;

use api_server::ApiServer;
use fairlead_control::{ControlTimings, Source};
use serde_json::{Value, json};
use std::time::Duration;
use support::proxy::{Identity, status};
use support::{Mesh, Plane, rows, service};

const REVIEWS: &str = "reviews.shop.svc.cluster.local";
const MESH: &str = "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nspec: {trustDomain: shop.example}\n";
const SETTINGS: &str = "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\n\
    metadata: {name: mesh, namespace: fairlead-system}\nspec: {trustDomain: shop.example, admission: open}\n";

struct Pair {
    server: ApiServer,
    a: Plane,
    b: Plane,
}

/// Started; each is a pod of the cluster.
fn pair(mesh: &Mesh, timings: ControlTimings) -> Pair {
    let server = ApiServer::start(&[]);
    let options = mesh.on_api_server(&server.address());
    let api = server.handle();
    api.apply(SETTINGS);
    api.apply(
        "apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: machine, namespace: shop}
spec: {address: 10.9.0.1, labels: {app: reviews}, serviceAccount: reviews}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: other, namespace: shop}
spec: {address: 10.9.0.2, labels: {app: reviews}, serviceAccount: reviews}
---
apiVersion: v1
kind: Pod
metadata: {name: pod, namespace: shop, labels: {app: reviews, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews, nodeName: n1, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.1.0.1, conditions: [{type: Ready, status: \"True\"}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews, namespace: shop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: pod, namespace: shop}}
ports: [{name: http, port: 8080}]
",
    );
    let plane = |name: &str| {
        let mut plane = mesh.plane("east", timings, Source::Kubernetes(options.clone())).replica(name);
        let (host, port) = plane.address.rsplit_once(':').unwrap();
        api.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: fairlead-system, labels: {{app: fairlead-control}}}}
spec: {{containers: [{{name: control, image: x, ports: [{{name: tls-xds, containerPort: {port}}}]}}]}}
status: {{phase: Running, podIP: {host}}}
"
        ));
        plane.start();
        plane
    };
    let (a, b) = (plane("control-a"), plane("control-b"));
    Pair { server, a, b }
}

fn health(endpoints: &Value, workload: &str) -> Option<String> {
    let of_reviews = |row: &&Value| row["service"] == REVIEWS;
    let found = rows(endpoints, "workload", &format!("east/shop/{workload}"));
    found.iter().find(of_reviews).and_then(|row| row["health"].as_str().map(str::to_owned))
}

fn until_health(plane: &Plane, workload: &str, wanted: &str) {
    plane.until("/endpoints", &format!("{wanted} for {workload}"), |all| {
        health(all, workload).as_deref() == Some(wanted)
    });
}

#[test]
fn what_a_proxy_reports_to_one_replica_counts_at_both() {
    let mesh = Mesh::new("");
    let grace = ControlTimings { report_grace: Duration::from_millis(20), ..ControlTimings::default() };
    let Pair { server: _server, a, b } = pair(&mesh, grace);
    let [machine, other] = ["east/shop/machine", "east/shop/other"].map(|workload| Identity::of(&a, workload));
    let (at_a, _one) = machine.report();
    let (other_at_a, _two) = other.report();
    for (ready, wanted) in [(false, "unhealthy"), (true, "healthy")] {
        at_a.blocking_send(status(ready, &[])).unwrap();
        other_at_a.blocking_send(status(ready, &[])).unwrap();
        for plane in [&a, &b] {
            until_health(plane, "machine", wanted);
            until_health(plane, "other", wanted);
        }
    }
    // One moves to the other replica before its stream here ends; the other just ends.
    let (at_b, _three) = machine.at(&b).report();
    // Heard at both before the end of the other is: what was said last counts.
    for (ready, wanted) in [(false, "unhealthy"), (true, "healthy")] {
        at_b.blocking_send(status(ready, &[("west", true)])).unwrap();
        for plane in [&a, &b] {
            until_health(plane, "machine", wanted);
        }
    }
    drop((at_a, other_at_a));
    for plane in [&a, &b] {
        until_health(plane, "other", "unhealthy");
        assert_eq!(health(&plane.get("/endpoints"), "machine").as_deref(), Some("healthy"));
    }
    at_b.blocking_send(status(false, &[])).unwrap();
    until_health(&a, "machine", "unhealthy");
}

#[test]
fn a_pod_is_healthy_as_its_kubelet_says_at_every_replica() {
    let mesh = Mesh::new("");
    let grace = ControlTimings { report_grace: Duration::from_millis(20), ..ControlTimings::default() };
    let Pair { server, mut a, b } = pair(&mesh, grace);
    let [pod, machine] = ["east/shop/pod", "east/shop/machine"].map(|workload| Identity::of(&a, workload));
    let ((of_pod, _one), (of_machine, _two)) = (pod.report(), machine.report());
    of_pod.blocking_send(status(false, &[])).unwrap();
    // What nobody reported of is healthy too: that it was heard is seen by the first of these.
    for (ready, wanted) in [(false, "unhealthy"), (true, "healthy")] {
        of_machine.blocking_send(status(ready, &[])).unwrap();
        for plane in [&a, &b] {
            until_health(plane, "machine", wanted);
        }
    }
    for plane in [&a, &b] {
        assert_eq!(health(&plane.get("/endpoints"), "pod").as_deref(), Some("healthy"));
    }
    // The replica that it reports to dies: what has no kubelet is unheard of after the grace, the pod is as it was.
    a.kill();
    until_health(&b, "machine", "unhealthy");
    assert_eq!(health(&b.get("/endpoints"), "pod").as_deref(), Some("healthy"));
    server.handle().apply(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews, namespace: shop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: false}, targetRef: {kind: Pod, name: pod, namespace: shop}}
ports: [{name: http, port: 8080}]
",
    );
    until_health(&b, "pod", "unhealthy");
}

#[test]
fn what_is_done_at_one_replica_holds_at_both_and_after_either() {
    let mesh = Mesh::new(MESH);
    let Pair { server: _server, mut a, b } = pair(&mesh, ControlTimings::default());
    mesh.write("clusters/west/ratings.yaml", &service("ratings", "10.2.0.1", Some("")));
    let west = mesh.start("west");
    // Made at one replica, used at the other, at once.
    let token = a.post("/token", json!({"addresses": [b.address]}))["token"].clone();
    let joined = west.post("/join", json!({"token": token}));
    assert_eq!(joined["joined"], "east", "{joined}");
    // The service is only there, so its address is a virtual IP: the same for whoever asks.
    let ratings = "ratings.shop.svc.cluster.local";
    let address = |plane: &Plane| {
        let all = plane.until("/services", "with west's service", |all| !rows(all, "host", ratings).is_empty());
        rows(&all, "host", ratings)[0]["addresses"].clone()
    };
    assert_eq!(address(&a), address(&b));
    // A proxy that one replica served goes on at the other without being sent anything.
    let proxy = Identity::of(&a, "east/shop/pod");
    let first = proxy.subscribe(None);
    first.synced();
    first
        .until("told of west's service", |received| received.versions.keys().any(|(_, name)| name.contains("ratings")));
    let (saved, versions) = (first.saved(), first.versions());
    drop(first);
    let before = b.until("/services", "with west's service ready", |all| {
        rows(all, "host", ratings).first().is_some_and(|row| row["ready"] == 1)
    });
    a.lose();
    let moved = proxy.at(&b).subscribe(Some(saved));
    moved.synced();
    assert_eq!(moved.versions(), versions);
    assert_eq!(moved.received.lock().unwrap().sent, 0);
    // The one that takes the lost one's place knows the same.
    a.start();
    let known = a.until("/services", "as before", |all| *all == before);
    assert_eq!(known, before);
    // Drained and revoked at one: both, and their proxies.
    a.post("/drain", json!({"on": true}));
    let of = |plane: &Plane, cluster: &str, state: &str| {
        plane.until("/clusters", state, |all| rows(all, "cluster", cluster).iter().any(|row| row["state"] == state));
    };
    of(&b, "east", "draining");
    let detached = a.post("/detach", json!({"cluster": "west"}));
    assert_eq!(detached["detached"], "west", "{detached}");
    of(&b, "west", "revoked");
    moved.until("without west's service", |received| {
        !received.versions.keys().any(|(_, name)| name.contains("ratings"))
    });
}
