//! Versions are the same in two processes, change with content, and do not change with what only people read.
#![allow(clippy::expect_used)]

mod support;

use fairlead_xdsgen::{Memo, generate};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;
use support::fixture::Fixture;

const PRINT: &str = "FAIRLEAD_PRINT_VERSIONS";

fn versions() -> String {
    let mut text = String::new();
    let memo = Memo::default();
    let mut folders: Vec<_> =
        std::fs::read_dir(support::cases()).expect("tests/cases exists").map(|e| e.expect("an entry").path()).collect();
    folders.sort();
    for folder in folders {
        let fixture = Fixture::read(&folder.join("mesh.yaml"));
        for (name, proxy) in &fixture.proxies {
            for resource in generate(&fixture.mesh, proxy, &memo) {
                let _ = writeln!(text, "V {name} {} {} {}", resource.type_url(), resource.name, resource.version);
            }
        }
    }
    text
}

/// Speaks only when the test below starts it.
#[test]
fn print_versions() {
    if std::env::var_os(PRINT).is_some() {
        println!("{}", versions());
    }
}

#[test]
fn two_processes_agree() {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "print_versions", "--nocapture"])
        .env(PRINT, "1")
        .output()
        .expect("this test starts again");
    let there = String::from_utf8_lossy(&output.stdout);
    let there: Vec<&str> = there.lines().filter_map(|l| l.find("V ").map(|i| &l[i..])).collect();
    let here = versions();
    let here: Vec<&str> = here.lines().collect();
    assert!(here.len() > 100);
    assert_eq!(here, there);
}

fn of(text: &str) -> BTreeMap<String, String> {
    let fixture = Fixture::parse(text);
    let proxy = &fixture.proxies["frontend"];
    let resources = generate(&fixture.mesh, proxy, &Memo::default());
    resources.iter().map(|r| (format!("{} {}", r.type_url(), r.name), r.version.to_string())).collect()
}

#[test]
fn a_change_reaches_only_what_it_concerns() {
    let file = support::cases().join("shop/mesh.yaml");
    let text = std::fs::read_to_string(file).expect("the case is there");
    let before = of(&text);
    let changed = |from: &str, to: &str| -> Vec<String> {
        assert!(text.contains(from), "{from}");
        let after = of(&text.replace(from, to));
        let mut names: Vec<String> = after
            .iter()
            .filter(|(name, version)| before.get(*name) != Some(version))
            .map(|(name, _)| name.trim_start_matches("type.googleapis.com/").to_owned())
            .collect();
        names.extend(before.keys().filter(|n| !after.contains_key(*n)).map(|n| format!("gone {n}")));
        names
    };
    assert_eq!(changed("weight: 90", "weight: 50"), ["envoy.config.route.v3.RouteConfiguration 9080"]);
    assert_eq!(
        changed("address: 10.0.0.21,", "address: 10.0.0.22,"),
        ["envoy.config.endpoint.v3.ClusterLoadAssignment outbound|7000||cart.shop.svc.cluster.local"]
    );
    assert_eq!(
        changed("max_connections: 10,", "max_connections: 11,"),
        ["envoy.config.cluster.v3.Cluster outbound|9080||reviews.shop.svc.cluster.local"]
    );
}
