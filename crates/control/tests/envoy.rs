//! A stock Envoy takes all that a control plane tells a sidecar and an east-west gateway, live over ADS, without a nack.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use fairlead_proto::ResourceType;
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use support::envoy::{Envoy, available, listed};
use support::proxy::Identity;
use support::{Mesh, Plane, rows};

/// The shop's objects, as they stand in examples/.
fn shop() -> Mesh {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    let mesh = Mesh::new(&std::fs::read_to_string(example.join("mesh.yaml")).unwrap());
    for cluster in ["east", "west", "north"] {
        let name = format!("clusters/{cluster}/shop.yaml");
        mesh.write(&name, &std::fs::read_to_string(example.join(&name)).unwrap());
    }
    mesh
}

fn names(values: &[Value], at: &str) -> Vec<String> {
    let mut names: Vec<String> = values.iter().filter_map(|v| v.pointer(at)?.as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

fn told(plane: &Plane, workload: &str, kind: ResourceType, as_envoy: bool) -> Vec<String> {
    let proxy = Identity::of(plane, workload).subscribe_as(if as_envoy { "envoy" } else { "fairlead" }, None);
    proxy.synced();
    let mut names: Vec<String> =
        proxy.versions().into_keys().filter(|(of, _)| of == kind.url()).map(|(_, name)| name).collect();
    names.sort();
    names
}

#[test]
fn a_stock_envoy_takes_everything() {
    let binary = match available() {
        Ok(binary) => binary,
        Err(reason) => {
            // Written past the harness, which keeps the words of a passing test to itself.
            writeln!(std::io::stdout(), "SUITE DID NOT RUN: live discovery by a stock Envoy: {reason}").unwrap();
            return;
        }
    };
    let mesh = shop();
    let (east, west, north) = (mesh.start("east"), mesh.start("west"), mesh.start("north"));
    west.join(&east);
    north.join(&east);
    east.until("/peers", "connected", |all| {
        all.as_array().is_some_and(|a| a.len() == 2 && a.iter().all(|r| r["connected"] == true))
    });
    east.until("/endpoints", "with west's", |all| {
        ["west/", "north/"].iter().all(|c| {
            all.as_array().is_some_and(|a| a.iter().any(|r| r["workload"].as_str().is_some_and(|w| w.starts_with(c))))
        })
    });
    for workload in ["east/shop/frontend-0", "east/fairlead-system/east-west"] {
        let mut clusters = told(&east, workload, ResourceType::Cluster, true);
        let listeners = told(&east, workload, ResourceType::Listener, true);
        clusters.extend(["sds-grpc".into(), "xds".into()]);
        clusters.sort();
        let mut envoy = Envoy::start(&binary, &east, workload);
        let dump = envoy.until("holding every listener and Envoy cluster", |dump| {
            let active: Vec<Value> =
                listed(dump, "dynamic_listeners").into_iter().filter(|l| l.get("active_state").is_some()).collect();
            let mut held = listed(dump, "dynamic_active_clusters");
            held.extend(listed(dump, "static_clusters"));
            names(&active, "/name") == listeners && names(&held, "/cluster/name") == clusters
        });
        let refused: Vec<Value> = ["dynamic_listeners", "dynamic_active_clusters", "dynamic_warming_clusters"]
            .iter()
            .flat_map(|key| listed(&dump, key))
            .filter(|held| held.get("error_state").is_some())
            .collect();
        assert!(refused.is_empty(), "{workload}: {refused:#?}");
        let row = east.until("/proxies", "settled", |all| {
            rows(all, "workload", workload)
                .iter()
                .any(|r| r["client"] == "envoy" && r["generation"] == r["offered"] && r["atMs"].as_u64() > Some(0))
        });
        let row = &rows(&row, "workload", workload)[0];
        assert_eq!((&row["nacks"], &row["rejected"]), (&0.into(), &0.into()), "{workload}: {row}\n{}", envoy.log());
    }
}
