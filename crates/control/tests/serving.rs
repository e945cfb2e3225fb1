//! One control plane and its proxies: certificates, edits, wrong input, restarts, reports.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use fairlead_control::ControlTimings;
use fairlead_identity::WorkloadKey;
use fairlead_proto::ResourceType;
use fairlead_proto::envoy::core::HealthStatus;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use support::proxy::{Identity, Proxy, status};
use support::{Mesh, Plane, rows, service};

const MESH: &str = "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nmetadata: {name: shop}\nspec:\n  trustDomain: shop.example\n  clusters:\n    east: {network: n1}\n    west: {network: n1}\n";
const REVIEWS: &str = "outbound|80||reviews.shop.svc.cluster.local";

fn mesh() -> Mesh {
    let mesh = Mesh::new(MESH);
    mesh.write("clusters/east/frontend.yaml", &service("frontend", "10.1.0.1", None));
    mesh.write("clusters/east/reviews.yaml", &service("reviews", "10.1.0.2", None));
    mesh
}

fn split(v1: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\nspec:\n  hosts: [reviews]\n  http:\n  - route:\n    - {{destination: {{host: reviews}}, weight: {v1}}}\n    - {{destination: {{host: frontend}}, weight: {}}}\n",
        100 - v1
    )
}

fn code(plane: &Plane, code: &str) {
    plane.until("/diagnostics", &format!("with {code}"), |all| !rows(all, "code", code).is_empty());
}

/// All but what a change of the named route set may touch.
fn others(proxy: &Proxy) -> BTreeMap<(String, String), String> {
    proxy.versions().into_iter().filter(|((kind, _), _)| kind != ResourceType::RouteConfiguration.url()).collect()
}

#[test]
fn a_proxy_is_served_and_seen() {
    let mesh = mesh();
    let plane = mesh.start("east");
    let identity = Identity::of(&plane, "east/shop/frontend-1");
    let proxy = identity.subscribe(None);
    proxy.synced();
    proxy.until("told endpoints", |r| {
        r.versions.contains_key(&(ResourceType::ClusterLoadAssignment.url().into(), REVIEWS.into()))
    });
    let row = plane.until("/proxies", "settled", |all| {
        rows(all, "workload", "east/shop/frontend-1")
            .iter()
            .any(|r| r["generation"] == r["offered"] && r["atMs"].as_u64() > Some(0))
    });
    assert_eq!(row[0]["role"], "sidecar");
    assert_eq!(row[0]["nacks"], 0);
    // A weight is edited: a new generation, well under a second on an idle machine.
    let before = row[0]["generation"].as_u64().unwrap();
    mesh.write("clusters/east/split.yaml", &split(90));
    let first = plane.until("/proxies", "at a new generation", |all| all[0]["generation"].as_u64() > Some(before));
    let name = ("80".to_owned(), ResourceType::RouteConfiguration);
    let (version, rest) = (proxy.version(name.1, &name.0), others(&proxy));
    mesh.write("clusters/east/split.yaml", &split(50));
    proxy.until("told of the new weights", |r| {
        r.versions.get(&(name.1.url().to_owned(), name.0.clone())) != version.as_ref()
    });
    plane.until("/proxies", "settled", |all| all[0]["generation"].as_u64() > first[0]["generation"].as_u64());
    assert_eq!(others(&proxy), rest, "nothing else changed");
    // The proxy renews by its certificate alone, until its workload is gone.
    identity.renew().unwrap();
    mesh.remove("clusters/east/frontend.yaml");
    plane.until("/endpoints", "without frontend", |all| rows(all, "workload", "east/shop/frontend-1").is_empty());
    let refused = identity.renew().unwrap_err();
    assert!(refused.message().contains("no workload of this cluster"), "{refused:?}");
    let answer = plane.post("/workload-token", json!({"workload": "east/shop/frontend-1"}));
    assert!(answer["error"].is_string(), "{answer}");
    // A new stream is refused as long as the workload is gone, however often it is tried, and no longer.
    drop(proxy);
    for _ in 0..10 {
        assert!(identity.is_refused());
    }
    mesh.write("clusters/east/frontend.yaml", &service("frontend", "10.1.0.1", None));
    identity.subscribe(None).synced();
}

#[test]
fn a_workload_token_is_good_once() {
    let mesh = mesh();
    let plane = mesh.start("east");
    let answer = plane.post("/workload-token", json!({"workload": "east/shop/frontend-1"}));
    let credential = serde_json::from_value(answer).unwrap();
    Identity::with(&plane, &credential).unwrap();
    let refused = Identity::with(&plane, &credential).err().unwrap();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
}

#[test]
fn an_answer_that_was_lost_can_be_asked_for_again() {
    let mesh = mesh();
    let plane = mesh.start("east");
    let answer = plane.post("/workload-token", json!({"workload": "east/shop/frontend-1"}));
    let credential = serde_json::from_value(answer).unwrap();
    let request = || WorkloadKey::generate().unwrap().csr().unwrap().to_vec();
    let (own, other) = (request(), request());
    for _ in 0..2 {
        Identity::ask(&plane, &credential, &own).unwrap();
    }
    let refused = Identity::ask(&plane, &credential, &other).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
    Identity::ask(&plane, &credential, &own).unwrap();
}

#[test]
fn wrong_input_costs_itself_alone() {
    let mesh = mesh();
    mesh.write("clusters/east/split.yaml", &split(90));
    let mut plane = mesh.start("east");
    let proxy = Identity::of(&plane, "east/shop/frontend-1").subscribe(None);
    proxy.synced();
    proxy.until("told routes", |r| {
        r.versions.contains_key(&(ResourceType::RouteConfiguration.url().into(), "80".into()))
    });
    plane.until("/diagnostics", "read", |all| all.is_array());
    let good = proxy.versions();

    mesh.write(
        "clusters/east/split.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: [\n",
    );
    code(&plane, "FL0002");
    code(&plane, "FL0501");
    assert_eq!(proxy.versions(), good, "a syntax error");

    mesh.write("clusters/east/split.yaml", &split(50).replace("hosts:", "hots:"));
    code(&plane, "IST0106");
    code(&plane, "FL0501");
    assert_eq!(proxy.versions(), good, "an unknown field");

    // The last good version outlives the process.
    plane.kill();
    plane.start();
    code(&plane, "FL0501");
    let route = &plane.get("/routes")[0];
    assert_eq!(route["to"].as_array().map(Vec::len), Some(2), "{route}");
    let back = Identity::of(&plane, "east/shop/frontend-1").subscribe(None);
    back.synced();
    back.until("told routes", |r| r.versions.len() == good.len());
    assert_eq!(back.versions(), good, "after a restart with the broken file");

    mesh.write("clusters/east/split.yaml", &split(90));
    plane.until("/diagnostics", "good again", |all| rows(all, "code", "FL0501").is_empty());
    mesh.write("clusters/east/zz-again.yaml", &split(10));
    code(&plane, "FL0006");
    assert_eq!(back.versions(), good, "an object written twice");
    mesh.remove("clusters/east/zz-again.yaml");

    let dangling = split(90)
        .replace("name: reviews, namespace", "name: nowhere, namespace")
        .replace("hosts: [reviews]", "hosts: [nowhere]")
        .replace("{host: reviews}", "{host: absent}");
    mesh.write("clusters/east/dangling.yaml", &dangling);
    code(&plane, "IST0101");
    for (key, version) in &good {
        if key.0 != ResourceType::RouteConfiguration.url() {
            assert_eq!(back.versions().get(key), Some(version), "a dangling reference changed {key:?}");
        }
    }
    mesh.remove("clusters/east/dangling.yaml");
    plane.until("/diagnostics", "good again", |all| rows(all, "code", "IST0101").is_empty());

    mesh.write("clusters/east/reviews.yaml", &"# twenty megabytes\n".repeat(20 * 1024 * 1024 / 19 + 1));
    code(&plane, "FL0001");
    back.until("as it was", |r| r.versions == good);
}

#[test]
fn a_mesh_file_that_cannot_be_read_keeps_what_it_said() {
    let mesh = mesh();
    let mut east = mesh.start("east");
    let identity = |plane: &Plane| {
        let all = plane.until("/endpoints", "known", |all| !rows(all, "workload", "east/shop/frontend-1").is_empty());
        rows(&all, "workload", "east/shop/frontend-1")[0]["identity"].clone()
    };
    let before = identity(&east);
    assert!(before.as_str().unwrap().contains("shop.example"), "{before}");
    east.kill();
    // Neither absent nor readable.
    mesh.remove("mesh.yaml");
    std::fs::create_dir(mesh.folder.path().join("mesh.yaml")).unwrap();
    east.start();
    assert_eq!(identity(&east), before, "from the first resolution on");
    code(&east, "FL0507");
    let told = east.rows("/diagnostics", "code", "FL0507").remove(0);
    assert!(told["message"].as_str().unwrap().contains("the last good settings serve"), "{told}");
    assert!(told["hint"].as_str().unwrap().contains("read it"), "{told}");
    // As it was, it is not said any more.
    std::fs::remove_dir(mesh.folder.path().join("mesh.yaml")).unwrap();
    mesh.write("mesh.yaml", MESH);
    east.until("/diagnostics", "readable again", |all| rows(all, "code", "FL0507").is_empty());
    // For a moment it may have been seen to be gone.
    east.until("/endpoints", "as it was", |all| {
        rows(all, "workload", "east/shop/frontend-1").iter().any(|row| row["identity"] == before)
    });
    mesh.remove("mesh.yaml");
    std::fs::create_dir(mesh.folder.path().join("mesh.yaml")).unwrap();
    code(&east, "FL0507");
    // Gone is an answer: the defaults.
    std::fs::remove_dir(mesh.folder.path().join("mesh.yaml")).unwrap();
    east.until("/endpoints", "of another domain", |all| {
        rows(all, "workload", "east/shop/frontend-1").iter().any(|row| row["identity"] != before)
    });
}

#[test]
fn a_restart_changes_nothing() {
    let mesh = mesh();
    // A service without an address of its own gets a virtual IP.
    mesh.write("clusters/west/ads.yaml", &service("ads", "10.2.0.1", Some("")));
    let (mut east, mut west) = (mesh.start("east"), mesh.start("west"));
    west.join(&east);
    let identity = Identity::of(&east, "east/shop/frontend-1");
    let (ads, runtime) = Identity::of(&west, "west/shop/ads-1").report();
    runtime.block_on(ads.send(status(true, &[]))).unwrap();
    east.until("/services", "with ads", |all| {
        rows(all, "host", "ads.shop.svc.cluster.local").iter().any(|r| r["ready"] == 1)
    });
    let proxy = identity.subscribe(None);
    proxy.synced();
    proxy.until("told of ads", |r| r.versions.keys().any(|(_, name)| name.contains("ads.shop")));
    east.until("/proxies", "settled", |all| all[0]["generation"] == all[0]["offered"]);
    let (services, endpoints, versions, saved) =
        (east.get("/services"), east.get("/endpoints"), proxy.versions(), proxy.saved());
    drop(proxy);
    // Both die, and only one comes back: the other's last state is on disk.
    east.kill();
    west.kill();
    drop((ads, runtime));
    east.start();
    assert_eq!(east.get("/services").to_string(), services.to_string());
    assert_eq!(east.get("/endpoints").to_string(), endpoints.to_string());
    let back = identity.subscribe(Some(saved));
    back.synced();
    east.until("/proxies", "settled", |all| {
        all[0]["generation"] == all[0]["offered"] && all[0]["generation"].as_u64() > Some(0)
    });
    assert_eq!(back.received.lock().unwrap().sent, 0, "nothing is sent again");
    assert_eq!(back.versions(), versions);
    west.start();
    east.until("/peers", "connected", |all| all[0]["connected"] == true);
    assert_eq!(east.get("/services").to_string(), services.to_string());
    assert_eq!(back.versions(), versions, "west's report of before still holds");
}

#[test]
fn a_dead_peer_is_stale_and_keeps_its_endpoints() {
    let mesh = mesh();
    mesh.write("clusters/west/ads.yaml", &service("ads", "10.2.0.1", Some("")));
    let timings = ControlTimings { lease: Duration::from_millis(200), ..ControlTimings::default() };
    let (east, mut west) = (mesh.start_with("east", timings), mesh.start("west"));
    west.join(&east);
    let served =
        |all: &serde_json::Value| rows(all, "host", "ads.shop.svc.cluster.local").iter().any(|r| r["ready"] == 1);
    east.until("/services", "with ads", served);
    east.until("/clusters", "fresh", |all| rows(all, "cluster", "west").iter().any(|r| r["stream"] == "fresh"));
    west.kill();
    east.until("/clusters", "stale", |all| rows(all, "cluster", "west").iter().any(|r| r["stream"] == "stale"));
    assert!(served(&east.get("/services")), "kept while stale");
    west.start();
    east.until("/clusters", "fresh again", |all| rows(all, "cluster", "west").iter().any(|r| r["stream"] == "fresh"));
}

fn health(proxy: &Proxy, cluster: &str) -> Vec<i32> {
    proxy.endpoints(cluster).iter().map(|e| e.health_status).collect()
}

#[test]
fn readiness_reports_reach_own_and_peers_views() {
    let mesh = mesh();
    mesh.write("clusters/west/ads.yaml", &service("ads", "10.2.0.1", Some("")));
    let timings = ControlTimings { report_grace: Duration::from_millis(300), ..ControlTimings::default() };
    let (east, west) = (mesh.start("east"), mesh.start_with("west", timings));
    west.join(&east);
    let ready = |n: u64| {
        move |all: &serde_json::Value| rows(all, "host", "ads.shop.svc.cluster.local").iter().any(|r| r["ready"] == n)
    };
    let proxy = Identity::of(&east, "east/shop/frontend-1").subscribe(None);
    let (reports, runtime) = Identity::of(&west, "west/shop/ads-1").report();
    let ads = "outbound|80||ads.shop.svc.cluster.local";
    let unhealthy = HealthStatus::Unhealthy as i32;
    for _ in 0..2 {
        runtime.block_on(reports.send(status(false, &[]))).unwrap();
        for plane in [&west, &east] {
            plane.until("/services", "without a ready one", ready(0));
        }
        proxy.until("told of an unhealthy endpoint", |_| true);
        let begun = std::time::Instant::now();
        while health(&proxy, ads) != [unhealthy] {
            assert!(begun.elapsed() < support::SOON, "{:?}", health(&proxy, ads));
            std::thread::sleep(Duration::from_millis(5));
        }
        runtime.block_on(reports.send(status(true, &[]))).unwrap();
        for plane in [&west, &east] {
            plane.until("/services", "with a ready one", ready(1));
        }
    }
    // The stream is lost: the report holds through the grace, then nobody vouches for the program.
    drop((reports, runtime));
    for plane in [&west, &east] {
        plane.until("/services", "without a ready one", ready(0));
    }
}

#[test]
fn a_path_is_down_when_every_gateway_says_so() {
    let two_networks =
        MESH.replace("west: {network: n1}", "west: {network: n2, eastWestGateway: {addresses: [192.0.2.1]}}");
    let mesh = Mesh::new(&two_networks);
    let gateway = |n: u32| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: gw-{n}, namespace: shop}}\nspec: {{address: 10.1.1.{n}, labels: {{istio: eastwestgateway, topology.istio.io/network: n1}}, serviceAccount: gw}}\n"
        )
    };
    let servers = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: shop}\nspec:\n  selector: {istio: eastwestgateway}\n  servers:\n  - port: {number: 15443, name: tls, protocol: TLS}\n    tls: {mode: AUTO_PASSTHROUGH}\n    hosts: ['*.local']\n";
    mesh.write("clusters/east/frontend.yaml", &service("frontend", "10.1.0.1", None));
    mesh.write("clusters/east/gateways.yaml", &format!("{servers}{}{}", gateway(1), gateway(2)));
    mesh.write("clusters/west/ads.yaml", &service("ads", "10.1.0.1", Some("")));
    let (east, west) = (mesh.start("east"), mesh.start("west"));
    west.join(&east);
    let path = |wanted: &'static str| {
        move |all: &serde_json::Value| rows(all, "cluster", "west").iter().any(|r| r["path"] == wanted)
    };
    let ready = |n: u64| {
        move |all: &serde_json::Value| rows(all, "host", "ads.shop.svc.cluster.local").iter().any(|r| r["ready"] == n)
    };
    east.until("/clusters", "unknown", path("unknown"));
    east.until("/services", "with ads", ready(1));
    // A sidecar's word about paths counts for nothing.
    let (sidecar, on) = Identity::of(&east, "east/shop/frontend-1").report();
    on.block_on(sidecar.send(status(true, &[("west", false)]))).unwrap();
    let (first, on_first) = Identity::of(&east, "east/shop/gw-1").report();
    let (second, on_second) = Identity::of(&east, "east/shop/gw-2").report();
    on_first.block_on(first.send(status(true, &[("west", false)]))).unwrap();
    east.until("/clusters", "down", path("down"));
    on_second.block_on(second.send(status(true, &[("west", true)]))).unwrap();
    east.until("/clusters", "up by the other", path("up"));
    on_second.block_on(second.send(status(true, &[("west", false)]))).unwrap();
    east.until("/services", "without ads", ready(0));
    on_first.block_on(first.send(status(true, &[("west", true)]))).unwrap();
    east.until("/services", "with ads at once", ready(1));
}
