//! Control planes that are all away for a while and come back: nobody notices, and their return changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use crate::mesh::{CLUSTERS, Mesh, until};
use std::collections::BTreeMap;

const PROXIES: [&str; 9] = [
    "east/app/client",
    "east/app/web",
    "east/east-west",
    "north/app/client",
    "north/app/far",
    "north/east-west",
    "west/app/client",
    "west/app/web",
    "west/east-west",
];

#[test]
fn restarted_control_planes_flap_nothing() {
    let mesh = Mesh::start();
    let services = listings(&mesh, "services");
    let endpoints = listings(&mesh, "endpoints");
    assert!(services.values().all(|bytes| bytes.contains("west-only.app.svc")), "{services:?}");
    let counters = counters(&mesh);
    let acked = acked(&mesh);
    let load = |from: &str, request: &str| mesh.begin(&["load", from, request, "--rate", "20", "--for", "8s"]);
    let loads = [
        load("east/app/client", "GET http://west-only/"),
        load("north/app/client", "GET http://west-only/"),
        load("west/app/client", "GET http://web/"),
    ];
    for cluster in CLUSTERS {
        mesh.lab(&["kill", &format!("{cluster}/control")]);
    }
    assert_eq!(mesh.call("east/app/client", "GET http://west-only/").0, "200", "nobody needs them for a request");
    mesh.lab(&["heal"]);
    // Every proxy has subscribed anew, and been told all that there is to tell.
    until("every proxy is served again", || {
        let now = self::acked(&mesh);
        let missing: Vec<_> = acked.keys().filter(|name| now.get(*name).is_none_or(|at| *at <= acked[*name])).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    for load in loads {
        let report = load.end();
        assert_eq!(report["failed"], 0, "{report}");
    }
    for (what, before) in [("services", &services), ("endpoints", &endpoints)] {
        until(&format!("{what} are as before"), || {
            let now = listings(&mesh, what);
            if now == *before { Ok(()) } else { Err(format!("{before:?}\n{now:?}")) }
        });
    }
    assert_eq!(self::counters(&mesh), counters, "no endpoint was added, removed or changed its health");
}

/// Byte by byte, as printed.
fn listings(mesh: &Mesh, what: &str) -> BTreeMap<&'static str, String> {
    let print = |cluster: &'static str| {
        let said = mesh.machine.run(&["get", what, "--cluster", cluster, "-o", "json"]);
        assert_eq!(said.code, 0, "{said:?}");
        (cluster, said.out)
    };
    CLUSTERS.into_iter().map(print).collect()
}

/// When each proxy last acknowledged something, as its present control plane knows.
fn acked(mesh: &Mesh) -> BTreeMap<String, u64> {
    let rows = CLUSTERS.into_iter().flat_map(|cluster| mesh.get("proxies", cluster));
    let served = rows.filter(|row| row["generation"] == row["offered"] && row["ready"] == true);
    served.map(|row| (row["workload"].to_string(), row["atMs"].as_u64().unwrap())).collect()
}

/// What each proxy counts of endpoints that came, went or changed.
fn counters(mesh: &Mesh) -> BTreeMap<&'static str, Vec<String>> {
    let read = |proxy: &'static str| {
        let page = mesh.page(proxy, "/stats");
        let lines: Vec<String> =
            page.lines().filter(|line| line.starts_with("fairlead.endpoints_")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{proxy}: {lines:?}");
        (proxy, lines)
    };
    PROXIES.into_iter().map(read).collect()
}
