//! gRPC, WebSocket, opaque TCP, and an orderly end.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use std::time::Duration;
use support::client::{caller, get};
use support::echo::Program;
use support::resources::{self, Ep, inbound, outbound};
use support::{Pki, id, options, start, told};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn grpc_messages_and_trailers_cross_two_proxies() {
    let pki = Pki::new(&["east", "west"]);
    let program = Program::echo("cart").await;
    // The program behind a gRPC port speaks HTTP/2 in plaintext.
    let mut list = inbound(program.address, vec![]);
    let mut app = resources::cluster("inbound|9080||", &[Ep::plain(program.address)]);
    app.typed_extension_protocol_options = resources::explicit_http2();
    list.push(resources::cluster_resource(&app));
    let callee = start(options("west", "cart"), list, Some(pki.identity("west", "cart"))).await;
    let cart = id("west", "cart");
    let endpoint = Ep::mesh(callee.listening("inbound").await, cart.as_str(), "west", "cart");
    let proxy = start(options("east", "frontend"), outbound(&[endpoint]), Some(pki.identity("east", "frontend"))).await;
    let at = proxy.listening("outbound").await;
    let message: &[u8] = &[0, 0, 0, 0, 2, 1, 2];
    let request = Request::post(format!("http://{at}/grpc.Echo/Call"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from(Bytes::from_static(message)))
        .unwrap();
    let response = caller(true).request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap();
    let trailers: HeaderMap = body.trailers().unwrap().clone();
    assert_eq!((trailers["grpc-status"].as_bytes(), trailers["x-length"].as_bytes()), (&b"0"[..], &b"7"[..]));
    assert_eq!(body.to_bytes().len(), 11);
    let record = told(&proxy, 1).await.pop().unwrap();
    assert_eq!((record.grpc_status, record.received_bytes, record.sent_bytes), (Some(0), 7, 11));
    let metrics = proxy.metrics();
    let messages = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name) && line.contains("request_protocol=\"grpc\""));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(
        (messages("istio_request_messages_total"), messages("istio_response_messages_total")),
        ("1".into(), "2".into())
    );
}

#[tokio::test]
async fn websockets_pass() {
    let pki = Pki::new(&["east", "west"]);
    let program = Program::echo("chat").await;
    let callee =
        start(options("west", "chat"), inbound(program.address, vec![]), Some(pki.identity("west", "chat"))).await;
    let chat = id("west", "chat");
    let endpoint = Ep::mesh(callee.listening("inbound").await, chat.as_str(), "west", "chat");
    let proxy = start(options("east", "frontend"), outbound(&[endpoint]), Some(pki.identity("east", "frontend"))).await;
    let mut stream = TcpStream::connect(proxy.listening("outbound").await).await.unwrap();
    stream
        .write_all(b"GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // Bytes that no HTTP parser would let pass.
    stream.write_all(b"\n\0abc").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"cba\0\n");
}

#[tokio::test]
async fn opaque_tcp_passes_half_closes_and_is_counted() {
    let pki = Pki::new(&["east", "west"]);
    let program = Program::tcp().await;
    let chain = resources::chain("3306-mtls", true, resources::tcp_filters("app", vec![]));
    let callee_resources = vec![
        resources::listener_resource(&resources::listener("inbound", true, vec![chain])),
        resources::cluster_resource(&resources::cluster("app", &[Ep::plain(program.address)])),
    ];
    let callee = start(options("west", "ledger"), callee_resources, Some(pki.identity("west", "ledger"))).await;
    let ledger = id("west", "ledger");
    let name = "outbound|3306||ledger.shop.svc.cluster.local";
    let endpoints = [
        // Nothing of a connection has been sent when a try fails, so another endpoint serves it.
        Ep::mesh(support::echo::dead_address().await, ledger.as_str(), "east", "ledger-0"),
        Ep { priority: 1, ..Ep::mesh(callee.listening("inbound").await, ledger.as_str(), "west", "ledger-1") },
    ];
    let chain = resources::chain("tcp", false, resources::tcp_filters(name, vec![]));
    let caller_resources = vec![
        resources::listener_resource(&resources::listener("outbound", false, vec![chain])),
        resources::cluster_resource(&resources::cluster(name, &endpoints)),
    ];
    let proxy = start(options("east", "frontend"), caller_resources, Some(pki.identity("east", "frontend"))).await;
    let mut stream = TcpStream::connect(proxy.listening("outbound").await).await.unwrap();
    let sent: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer.reverse();
    assert!(answer == sent);
    drop(stream);
    proxy.end().await;
    callee.end().await;
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    let program = Program::echo("slow").await;
    let proxy = start(options("east", "frontend"), outbound(&[Ep::plain(program.address)]), None).await;
    let at = proxy.listening("outbound").await;
    let calls: Vec<_> = [false, true]
        .into_iter()
        .map(|h2| {
            tokio::spawn(async move {
                let request = Request::get(format!("http://{at}/")).header("x-wait-ms", "700");
                support::client::send(&caller(h2), request.body(Full::default()).unwrap()).await
            })
        })
        .collect();
    while program.count() < 2 {
        tokio::task::yield_now().await;
    }
    proxy.end().await;
    for (h2, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!(answer.status(), 200);
        if h2 == 0 {
            assert_eq!(answer.parts.headers["connection"], "close");
        }
    }
    assert!(TcpStream::connect(at).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn policy_and_endpoints_change_under_open_connections() {
    let (old, new) = (Program::echo("old").await, Program::echo("new").await);
    let mut proxy = start(options("east", "frontend"), outbound(&[Ep::plain(old.address)]), None).await;
    let at = proxy.listening("outbound").await;
    let caller = caller(false);
    assert_eq!(get(&caller, at, "/").await.name(), "old");
    // A request that waits for its answer moves when its endpoint goes.
    let waiting = {
        let request = Request::get(format!("http://{at}/")).header("x-wait-ms", "20000").body(Full::default()).unwrap();
        let caller = caller.clone();
        tokio::spawn(async move { support::client::send(&caller, request).await })
    };
    while old.count() < 2 {
        tokio::task::yield_now().await;
    }
    let name = "outbound|9080||reviews.shop.svc.cluster.local";
    proxy.update(&[resources::cluster_resource(&resources::cluster(name, &[Ep::plain(new.address)]))]).unwrap();
    let moved = tokio::time::timeout(Duration::from_secs(30), async {
        while new.count() == 0 {
            tokio::task::yield_now().await;
        }
    });
    moved.await.expect("the attempt is made again elsewhere");
    assert_eq!(get(&caller, at, "/").await.name(), "new");
    waiting.abort();
    assert_eq!(proxy.listening("outbound").await, at, "the socket stays");
}
