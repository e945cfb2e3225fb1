//! What fails is served by somebody else, where it can be; where it cannot, the answer says why.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use bytes::Bytes;
use fairlead_proto::envoy::protobuf::UInt32Value;
use http::Request;
use http_body_util::Full;
use support::client::{caller, get, post, send};
use support::echo::{Program, dead_address};
use support::resources::{self, Ep, inbound, outbound};
use support::{Pki, id, options, start, told};

#[tokio::test]
async fn dead_endpoints_cost_no_request() {
    let (good, dead) = (Program::echo("good").await, dead_address().await);
    let proxy = start(options("east", "frontend"), outbound(&[Ep::plain(dead), Ep::plain(good.address)]), None).await;
    let at = proxy.listening("outbound").await;
    let caller = caller(false);
    for _ in 0..20 {
        assert_eq!(get(&caller, at, "/").await.name(), "good");
        // Nothing of it was sent, so the body can still go elsewhere.
        assert_eq!(post(&caller, at, b"payload").await.body["body"], 7);
    }
    assert!(told(&proxy, 40).await.iter().any(|record| record.attempts == 2));
}

#[tokio::test]
async fn a_reset_before_the_head_is_retried_for_what_is_safe_to_repeat() {
    let (resets, good) = (Program::reset().await, Program::echo("good").await);
    let endpoints = [Ep::plain(resets.address), Ep { priority: 1, ..Ep::plain(good.address) }];
    let proxy = start(options("east", "frontend"), outbound(&endpoints), None).await;
    let at = proxy.listening("outbound").await;
    let caller = caller(false);
    assert_eq!(get(&caller, at, "/").await.name(), "good");
    let answer = post(&caller, at, b"once").await;
    assert_eq!(answer.status(), 503, "a POST may have been seen: {}", answer.body);
    let last = told(&proxy, 2).await.pop().unwrap();
    assert_eq!((last.flags, last.attempts), (vec!["UC".to_owned()], 1));
    assert_eq!(resets.count(), 2);
}

#[tokio::test]
async fn what_was_not_delivered_is_tried_elsewhere_whatever_the_method() {
    let pki = Pki::new(&["east", "west"]);
    let good = Program::echo("good").await;
    // One callee's program is gone: its proxy says so, and marks that nothing was delivered.
    let dead =
        start(options("west", "dead"), inbound(dead_address().await, vec![]), Some(pki.identity("west", "reviews")))
            .await;
    let alive =
        start(options("west", "alive"), inbound(good.address, vec![]), Some(pki.identity("west", "reviews"))).await;
    let identity = id("west", "reviews");
    let endpoints = [
        Ep::mesh(dead.listening("inbound").await, identity.as_str(), "west", "dead"),
        Ep { priority: 1, ..Ep::mesh(alive.listening("inbound").await, identity.as_str(), "west", "alive") },
    ];
    let proxy = start(options("east", "frontend"), outbound(&endpoints), Some(pki.identity("east", "frontend"))).await;
    let at = proxy.listening("outbound").await;
    let answer = post(&caller(false), at, b"payload").await;
    assert_eq!((answer.status(), answer.name()), (200, "good"));
    assert!(!answer.parts.headers.keys().any(|name| name.as_str().starts_with("x-fairlead")));
    let record = told(&proxy, 1).await.pop().unwrap();
    assert_eq!((record.attempts, record.endpoint.unwrap().workload), (2, "alive".to_owned()));
    assert_eq!(told(&dead, 1).await.pop().unwrap().flags, ["UF", "URX"][..1]);
}

#[tokio::test]
async fn no_endpoint_no_route_no_cluster() {
    let proxy = start(options("east", "frontend"), outbound(&[]), None).await;
    let at = proxy.listening("outbound").await;
    let caller = caller(false);
    let answer = get(&caller, at, "/").await;
    assert_eq!((answer.status(), answer.body.as_str().unwrap()), (503, "no healthy upstream"));
    let record = told(&proxy, 1).await.pop().unwrap();
    assert_eq!(record.flags, ["UH"]);

    let manager = resources::manager(resources::routes("x", vec![resources::route_to("missing")]), vec![]);
    let chain = resources::chain("http", false, resources::http_filters(&manager));
    let lost = resources::listener_resource(&resources::listener("lost", false, vec![chain]));
    let proxy = start(options("east", "frontend"), vec![lost], None).await;
    let at = proxy.listening("lost").await;
    assert_eq!(get(&caller, at, "/").await.status(), 503);
    assert_eq!(told(&proxy, 1).await.pop().unwrap().flags, ["NC"]);
    let metrics = proxy.metrics();
    let line = metrics.lines().find(|line| line.starts_with("istio_requests_total")).unwrap();
    assert!(line.contains("source_cluster=\"east\"") && line.contains("destination_cluster=\"east\""), "{line}");
}

#[tokio::test]
async fn a_grpc_caller_gets_a_grpc_status() {
    let proxy = start(options("east", "frontend"), outbound(&[]), None).await;
    let at = proxy.listening("outbound").await;
    let request = Request::post(format!("http://{at}/grpc.Echo/Call")).header("content-type", "application/grpc");
    let answer = send(&caller(true), request.body(Full::from(Bytes::from_static(&[0, 0, 0, 0, 0]))).unwrap()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.parts.headers["grpc-status"], "14");
    assert_eq!(told(&proxy, 1).await.pop().unwrap().grpc_status, Some(14));
}

#[tokio::test]
async fn timeouts_and_circuit_breakers() {
    let program = Program::echo("slow").await;
    let name = "outbound|9080||reviews.shop.svc.cluster.local";
    let mut list = outbound(&[Ep::plain(program.address)]);
    let mut route = resources::route_to(name);
    if let Some(fairlead_proto::envoy::route::route::Action::Route(action)) = &mut route.action {
        action.timeout = Some(resources::duration(100));
    }
    let manager = resources::manager(resources::routes("9080", vec![route]), vec![]);
    let chain = resources::chain("http", false, resources::http_filters(&manager));
    list.push(resources::listener_resource(&resources::listener("timed", false, vec![chain])));
    let mut limited = resources::cluster(name, &[Ep::plain(program.address)]);
    limited.circuit_breakers = Some(fairlead_proto::envoy::cluster::CircuitBreakers {
        thresholds: vec![fairlead_proto::envoy::cluster::circuit_breakers::Thresholds {
            max_requests: Some(UInt32Value { value: 1 }),
            ..Default::default()
        }],
        ..Default::default()
    });
    list.push(resources::cluster_resource(&limited));
    let proxy = start(options("east", "frontend"), list, None).await;
    let slow = |at, ms: &str| {
        let request = Request::get(format!("http://{at}/")).header("x-wait-ms", ms).body(Full::default()).unwrap();
        async move { send(&caller(false), request).await }
    };
    let timed = proxy.listening("timed").await;
    assert_eq!(slow(timed, "5000").await.status(), 504);
    assert_eq!(told(&proxy, 1).await.pop().unwrap().flags, ["UT"]);
    let at = proxy.listening("outbound").await;
    let (first, second) = tokio::join!(slow(at, "300"), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        slow(at, "0").await
    });
    assert_eq!((first.status(), second.status()), (200, 503));
    assert!(told(&proxy, 3).await.iter().any(|record| record.flags == ["UO"]));
}
