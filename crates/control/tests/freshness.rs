//! A control plane that knows less than a proxy was served before: it waits with it, says so, and is never stuck.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use fairlead_control::ControlTimings;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::proxy::{Identity, Proxy};
use support::{Mesh, Plane, rows, service};

const MESH: &str = "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nmetadata: {name: shop}\nspec:\n  trustDomain: shop.example\n  clusters:\n    east: {network: n1}\n    west: {network: n1}\n";

/// East and west, joined; the state file of east of a moment when west had less to tell; and a proxy of east that knows it all.
struct Scene {
    mesh: Mesh,
    east: Plane,
    west: Plane,
    identity: Identity,
    proxy: Proxy,
    backup: PathBuf,
}

fn scene(timings: ControlTimings) -> Scene {
    let mesh = Mesh::new(MESH);
    mesh.write("clusters/east/frontend.yaml", &service("frontend", "10.1.0.1", None));
    mesh.write("clusters/west/ads.yaml", &service("ads", "10.2.0.1", Some("")));
    let (mut east, west) = (mesh.start_with("east", timings), mesh.start("west"));
    west.join(&east);
    let knows = |host: &'static str| move |all: &Value| !rows(all, "host", host).is_empty();
    east.until("/services", "with ads", knows("ads.shop.svc.cluster.local"));
    east.kill();
    let backup = mesh.folder.path().join("backup");
    copy(&state(&mesh), &backup);
    east.start();
    let identity = Identity::of(&east, "east/shop/frontend-1");
    let proxy = identity.subscribe(None);
    mesh.write("clusters/west/more.yaml", &service("more", "10.2.0.2", Some("")));
    proxy.until("told of more", |r| r.versions.keys().any(|(_, name)| name.contains("more.shop")));
    east.until("/proxies", "settled", |all| all[0]["generation"] == all[0]["offered"]);
    Scene { mesh, east, west, identity, proxy, backup }
}

fn state(mesh: &Mesh) -> PathBuf {
    mesh.folder.path().join("state-east")
}

/// East begins again with the state of back then.
fn restore(mesh: &Mesh, east: &mut Plane, backup: &Path) {
    east.kill();
    std::fs::remove_dir_all(state(mesh)).unwrap();
    copy(backup, &state(mesh));
    east.start();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn held_back(all: &Value) -> bool {
    rows(all, "workload", "east/shop/frontend-1").iter().any(|row| row["heldBack"].is_string())
}

#[test]
fn a_proxy_that_knows_more_keeps_what_it_has_until_this_one_has_heard_it() {
    let timings = ControlTimings { catch_up: Duration::from_secs(600), ..ControlTimings::default() };
    let Scene { mesh, mut east, mut west, identity, proxy, backup } = scene(timings);
    let (versions, saved) = (proxy.versions(), proxy.saved());
    assert!(saved.freshness.contains("west="), "{}", saved.freshness);
    drop(proxy);
    west.kill();
    restore(&mesh, &mut east, &backup);
    let back = identity.subscribe(Some(saved));
    let row = east.until("/proxies", "with a proxy that waits", held_back);
    assert!(row[0]["reason"].as_str().unwrap().contains("cluster west"), "{row}");
    assert_eq!(back.versions(), versions, "it keeps what it has");
    // One that knows nothing yet is served what there is.
    identity.subscribe(None).synced();
    // West comes back and tells; nothing was lost.
    west.start();
    east.until("/peers", "connected", |all| all[0]["connected"] == true);
    east.until("/services", "with more", |all| !rows(all, "host", "more.shop.svc.cluster.local").is_empty());
    back.synced();
    east.until("/proxies", "served", |all| !held_back(all));
    assert_eq!(back.versions(), versions);
    assert_eq!(back.received.lock().unwrap().sent, 0, "nothing was taken from it, nothing sent again");
}

#[test]
fn nobody_waits_for_ever() {
    let timings = ControlTimings { catch_up: Duration::from_millis(700), ..ControlTimings::default() };
    let Scene { mesh, mut east, mut west, identity, proxy, backup } = scene(timings);
    let saved = proxy.saved();
    drop(proxy);
    west.kill();
    restore(&mesh, &mut east, &backup);
    let back = identity.subscribe(Some(saved));
    east.until("/proxies", "with a proxy that waits", held_back);
    // West stays away. What only it knew is lost; the own cluster's configuration goes on.
    back.until("served without what was lost", |r| !r.versions.keys().any(|(_, name)| name.contains("more.shop")));
    back.synced();
    mesh.write("clusters/east/cart.yaml", &service("cart", "10.1.0.9", None));
    back.until("told of an edit", |r| r.versions.keys().any(|(_, name)| name.contains("cart.shop")));
}

#[test]
fn a_restart_with_its_state_keeps_nobody_waiting() {
    let timings = ControlTimings { catch_up: Duration::from_secs(600), ..ControlTimings::default() };
    // The folder lives as long as its handle.
    let Scene { mesh: _mesh, mut east, mut west, identity, proxy, .. } = scene(timings);
    let (versions, saved) = (proxy.versions(), proxy.saved());
    drop(proxy);
    // Its peer is dead: only its own state file tells it how far it had come.
    west.kill();
    east.kill();
    east.start();
    let back = identity.subscribe(Some(saved));
    back.synced();
    assert_eq!(back.versions(), versions);
    assert!(!held_back(&east.get("/proxies")));
}
