//! A real Envoy 1.40 accepts everything that every proxy of every case is told.
#![allow(clippy::expect_used)]

mod support;

use fairlead_model::{ClientKind, ProxyRole};
use fairlead_xdsgen::json::static_bootstrap;
use fairlead_xdsgen::{Memo, generate};
use std::io::Write as _;
use support::fixture::Fixture;

#[test]
fn envoy_accepts_every_case() {
    let envoy = match support::envoy::binary() {
        Ok(envoy) => envoy,
        Err(reason) => {
            // Written past the harness, which keeps the words of a passing test to itself.
            writeln!(std::io::stdout(), "SUITE DID NOT RUN: validation by a real Envoy: {reason}").expect("a line");
            return;
        }
    };
    let descriptors = support::descriptors();
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = support::envoy::secrets(folder.path());
    let mut refused = Vec::new();
    let mut validated = 0;
    for entry in std::fs::read_dir(support::cases()).expect("tests/cases exists") {
        let case = entry.expect("an entry").path();
        let fixture = Fixture::read(&case.join("mesh.yaml"));
        for (name, proxy) in &fixture.proxies {
            if proxy.client == ClientKind::Grpc {
                continue;
            }
            let mut proxy = proxy.clone();
            proxy.client = ClientKind::Envoy;
            let resources = generate(&fixture.mesh, &proxy, &Memo::default());
            let label = format!("{}/{name}", case.file_name().unwrap_or_default().to_string_lossy());
            let bootstrap =
                static_bootstrap(&resources, &descriptors, &secrets).unwrap_or_else(|e| panic!("{label}: {e}"));
            let file = folder.path().join("bootstrap.json");
            std::fs::write(&file, serde_json::to_vec(&bootstrap).expect("JSON")).expect("written");
            if let Err(log) = support::envoy::validate(&envoy, &file) {
                refused.push(format!("{label} ({:?}):\n{log}", proxy.role));
            }
            validated += 1;
            assert!(proxy.role != ProxyRole::Sidecar || resources.len() > 5, "{label}: a sidecar is told more");
        }
    }
    assert!(validated > 0);
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
