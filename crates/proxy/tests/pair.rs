//! A sidecar pair over real sockets: client, outbound proxy, mutual TLS, inbound proxy, program.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use http::{Request, Version};
use http_body_util::Full;
use serde_json::Value;
use std::net::SocketAddr;
use support::client::{caller, send};
use support::echo::Program;
use support::resources::{Ep, inbound, outbound};
use support::{Pki, id, options, start, told};

async fn get(h2: bool, at: SocketAddr, path: &str) -> (http::response::Parts, Value) {
    let request = Request::get(format!("http://{at}{path}")).header("x-fairlead-forged", "1").body(Full::default());
    let answer = send(&caller(h2), request.unwrap()).await;
    (answer.parts, answer.body)
}

#[tokio::test]
async fn http_crosses_two_proxies_with_mutual_tls() {
    let pki = Pki::new(&["east", "west"]);
    let program = Program::echo("reviews").await;
    let callee =
        start(options("west", "reviews-v1"), inbound(program.address, vec![]), Some(pki.identity("west", "reviews")))
            .await;
    let reviews = id("west", "reviews");
    let endpoint = Ep::mesh(callee.listening("inbound").await, reviews.as_str(), "west", "reviews-v1");
    let proxy = start(options("east", "frontend"), outbound(&[endpoint]), Some(pki.identity("east", "frontend"))).await;
    let at = proxy.listening("outbound").await;

    for h2 in [false, true] {
        let (parts, seen) = get(h2, at, "/ratings/7?x=1").await;
        assert_eq!(parts.status, 200, "{seen}");
        assert_eq!(parts.headers["server"], "fairlead");
        assert!(parts.headers.contains_key("x-envoy-upstream-service-time"));
        assert!(!parts.headers.keys().any(|name| name.as_str().starts_with("x-fairlead")), "{:?}", parts.headers);
        assert_eq!(parts.version, if h2 { Version::HTTP_2 } else { Version::HTTP_11 });
        assert_eq!(seen["path"], "/ratings/7?x=1");
        assert_eq!(seen["authority"], at.to_string());
        let headers = seen["headers"].as_object().unwrap();
        assert!(!headers.keys().any(|name| name.starts_with("x-fairlead")), "{headers:?}");
        let cert = headers["x-forwarded-client-cert"].as_str().unwrap();
        assert!(cert.contains(&format!("URI={}", id("east", "frontend").as_str())), "{cert}");
        assert!(cert.contains(&format!("By={}", reviews.as_str())), "{cert}");
        assert_eq!(headers["x-request-id"].as_str().unwrap().len(), 36);
    }
    let records = told(&proxy, 2).await;
    assert_eq!(records.len(), 2);
    assert!(records[0].upstream_tls);
    assert_eq!(records[0].endpoint.as_ref().unwrap().workload, "reviews-v1");
    assert_eq!((records[0].status, records[0].attempts), (200, 1));
    let seen = told(&callee, 2).await;
    assert_eq!(seen[0].peer.as_deref(), Some(id("east", "frontend").as_str()));
    assert_eq!(seen[0].protocol, "HTTP/2", "between proxies HTTP travels as HTTP/2");
    let metrics = callee.metrics();
    let line = metrics.lines().find(|line| line.starts_with("istio_requests_total")).unwrap();
    for part in [
        "reporter=\"destination\"",
        "source_workload=\"frontend\"",
        "source_cluster=\"east\"",
        "destination_cluster=\"west\"",
        "connection_security_policy=\"mutual_tls\"",
        "response_code=\"200\"",
    ] {
        assert!(line.contains(part), "{part} not in {line}");
    }
    proxy.end().await;
    callee.end().await;
}
