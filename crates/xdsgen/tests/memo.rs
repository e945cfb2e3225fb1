//! Work is proportional to what changed.
#![allow(clippy::expect_used)]

mod support;

use fairlead_model::ResolvedMesh;
use fairlead_proto::ResourceType;
use fairlead_xdsgen::{Counters, Memo, generate};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use support::fixture::Fixture;

const SERVICES: usize = 1000;
const ENDPOINTS: usize = 10;

fn large() -> Fixture {
    let mut text = String::from("why: size\ncluster: east\nmembers: [{cluster: east}]\nservices:\n");
    for s in 0..SERVICES {
        let _ = writeln!(
            text,
            "- {{name: s{s}, ports: {{80: http}}, vips: [240.240.{}.{}], endpoints: [",
            s / 250,
            s % 250
        );
        for e in 0..ENDPOINTS {
            let _ = writeln!(text, "  {{name: s{s}-{e}, address: 10.{}.{}.{e}, locality: us/a}},", s / 250, s % 250);
        }
        text.push_str("]}\n");
    }
    text.push_str(
        "proxies:\n  a: {name: s1-0, locality: us/a}\n  b: {name: s2-0, locality: us/a}\n  c: {name: s3-0, locality: us/b}\n",
    );
    Fixture::parse(&text)
}

fn generated(counters: &Counters, kind: ResourceType) -> u64 {
    counters.by_type.get(&kind).map_or(0, |c| c.generated)
}

#[test]
fn one_changed_endpoint_regenerates_one_resource() {
    let fixture = large();
    let memo = Memo::default();
    let mut mesh: ResolvedMesh = fixture.mesh;
    let callers = [&fixture.proxies["a"], &fixture.proxies["b"]];
    for proxy in callers {
        assert!(generate(&mesh, proxy, &memo).len() > 2 * SERVICES);
    }
    let before = memo.counters();
    // Equal callers share all that does not name their own workload.
    assert_eq!(generated(&before, ResourceType::ClusterLoadAssignment), SERVICES as u64);
    assert_eq!(generated(&before, ResourceType::RouteConfiguration), 1);

    let key = mesh.services.keys().nth(500).expect("a service").clone();
    let service = mesh.services.get_mut(&key).map(Arc::make_mut).expect("a service");
    let endpoint = Arc::make_mut(&mut service.endpoints[3]);
    endpoint.address = Some("10.9.9.9".parse::<IpAddr>().expect("an address"));
    mesh.generation += 1;
    for proxy in callers {
        generate(&mesh, proxy, &memo);
    }
    let after = memo.counters();
    for kind in ResourceType::ALL {
        let more = generated(&after, *kind) - generated(&before, *kind);
        let expected = u64::from(*kind == ResourceType::ClusterLoadAssignment);
        assert_eq!(more, expected, "{kind}");
    }
}

#[test]
fn a_caller_elsewhere_has_endpoints_of_its_own() {
    let fixture = large();
    let memo = Memo::default();
    generate(&fixture.mesh, &fixture.proxies["a"], &memo);
    generate(&fixture.mesh, &fixture.proxies["c"], &memo);
    let counters = memo.counters();
    assert_eq!(generated(&counters, ResourceType::ClusterLoadAssignment), 2 * SERVICES as u64);
    assert_eq!(generated(&counters, ResourceType::Cluster), counters.by_type[&ResourceType::Cluster].hits);
}
