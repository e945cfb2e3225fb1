//! Who is refused, and how: wrong certificates, policies, malformed heads.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use fairlead_identity::{CertHandle, CertificateSpec, Expected, Mint, SystemRandom};
use fairlead_proto::envoy::http::rbac as http_rbac;
use fairlead_proto::envoy::network::rbac as tcp_rbac;
use fairlead_proto::envoy::rbac as rb;
use rustls::pki_types::UnixTime;
use std::collections::HashMap;
use std::time::Duration;
use support::client::{caller, get, raw};
use support::echo::Program;
use support::resources::{self, Ep, inbound, outbound};
use support::{Pki, id, options, start, told};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

fn deny_all() -> rb::Rbac {
    let any_permission = rb::Permission { rule: Some(rb::permission::Rule::Any(true)) };
    let any_principal = rb::Principal { identifier: Some(rb::principal::Identifier::Any(true)) };
    let policy =
        rb::Policy { permissions: vec![any_permission], principals: vec![any_principal], ..Default::default() };
    rb::Rbac {
        action: rb::rbac::Action::Deny as i32,
        policies: HashMap::from([("ns[shop]-policy[closed]-rule[0]".to_owned(), policy)]),
        ..Default::default()
    }
}

fn allow_nobody() -> rb::Rbac {
    rb::Rbac { action: rb::rbac::Action::Allow as i32, ..Default::default() }
}

#[tokio::test]
async fn the_table_of_certificates() {
    let pki = Pki::new(&["east", "west"]);
    let program = Program::echo("reviews").await;
    let callee =
        start(options("west", "reviews"), inbound(program.address, vec![]), Some(pki.identity("west", "reviews")))
            .await;
    let at = callee.listening("inbound").await;
    let caller = id("east", "frontend");
    let cases = [
        (Some(CertificateSpec::Mesh), true),
        (Some(CertificateSpec::Expired), false),
        (Some(CertificateSpec::ForeignRoot), false),
        (Some(CertificateSpec::WrongDomainRoot), false),
        (Some(CertificateSpec::NoSpiffe), false),
        (None, false),
    ];
    for (spec, allowed) in cases {
        let handle = match &spec {
            Some(spec) => {
                let mint = Mint::new(&pki.cas["east"], Some(support::domain("west")));
                let minted = mint.mint(spec, &caller, UnixTime::now(), &mut SystemRandom).unwrap();
                Some(CertHandle::new(minted.credentials().unwrap()))
            }
            None => None,
        };
        let (anyone, _) = pki.tls(pki.handle("east", "frontend"));
        let clock = std::sync::Arc::new(rustls::time_provider::DefaultTimeProvider) as _;
        let config = fairlead_identity::tls::client_config(
            handle.as_ref(),
            anyone.verifier(Expected::Any),
            &clock,
            &[b"http/1.1"],
        );
        let stream = TcpStream::connect(at).await.unwrap();
        let name = "reviews.shop".try_into().unwrap();
        // With TLS 1.3 the refusal of a client certificate shows on the first read.
        let answer = async {
            let mut tls = TlsConnector::from(config.unwrap()).connect(name, stream).await.ok()?;
            tls.write_all(b"GET / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n").await.ok()?;
            let mut answer = Vec::new();
            let read = tls.read_to_end(&mut answer).await;
            (read.is_ok() || !answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = answer.await.unwrap_or_default();
        assert_eq!(answer.starts_with("HTTP/1.1 200"), allowed, "{spec:?}: {answer}");
    }
    let answer = raw(at, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "plaintext under STRICT: {answer}");
    assert_eq!(program.count(), 1);
}

#[tokio::test]
async fn the_callee_must_be_who_was_called() {
    let pki = Pki::new(&["east", "west"]);
    let program = Program::echo("other").await;
    let other =
        start(options("west", "other"), inbound(program.address, vec![]), Some(pki.identity("west", "other"))).await;
    let wanted = id("west", "reviews");
    let endpoint = Ep::mesh(other.listening("inbound").await, wanted.as_str(), "west", "reviews");
    let proxy = start(options("east", "frontend"), outbound(&[endpoint]), Some(pki.identity("east", "frontend"))).await;
    let answer = get(&caller(false), proxy.listening("outbound").await, "/").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(program.count(), 0);
}

#[tokio::test]
async fn policies_answer_403_and_name_themselves() {
    for (rules, denied_by) in [(deny_all(), "AuthorizationPolicy shop/closed"), (allow_nobody(), "no-allow")] {
        let program = Program::echo("reviews").await;
        let filter = http_rbac::Rbac { rules: Some(rules), ..Default::default() };
        let manager = resources::manager(resources::routes("in", vec![resources::route_to("app")]), vec![filter]);
        let chain = resources::chain("9080-plain", false, resources::http_filters(&manager));
        let list = vec![
            resources::listener_resource(&resources::listener("inbound", true, vec![chain])),
            resources::cluster_resource(&resources::cluster("app", &[Ep::plain(program.address)])),
        ];
        let proxy = start(options("west", "reviews"), list, None).await;
        let answer = get(&caller(false), proxy.listening("inbound").await, "/").await;
        assert_eq!((answer.status(), answer.body.as_str().unwrap()), (403, "RBAC: access denied"));
        assert_eq!(told(&proxy, 1).await.pop().unwrap().denied_by.as_deref(), Some(denied_by));
        assert_eq!(program.count(), 0);
    }
}

#[tokio::test]
async fn a_denied_tcp_connection_is_reset() {
    let program = Program::tcp().await;
    let filter = tcp_rbac::Rbac { rules: Some(deny_all()), stat_prefix: "tcp".into(), ..Default::default() };
    let chain = resources::chain("3306-plain", false, resources::tcp_filters("app", vec![filter]));
    let list = vec![
        resources::listener_resource(&resources::listener("inbound", true, vec![chain])),
        resources::cluster_resource(&resources::cluster("app", &[Ep::plain(program.address)])),
    ];
    let proxy = start(options("west", "ledger"), list, None).await;
    // The reset may arrive before the connect call has looked at its socket.
    let error = match TcpStream::connect(proxy.listening("inbound").await).await {
        Ok(mut stream) => stream.read(&mut [0]).await.expect_err("a reset"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(told(&proxy, 1).await.pop().unwrap().denied_by.as_deref(), Some("AuthorizationPolicy shop/closed"));
}

#[tokio::test]
async fn heads_that_two_parsers_could_read_differently() {
    let program = Program::echo("reviews").await;
    let proxy = start(options("east", "frontend"), outbound(&[Ep::plain(program.address)]), None).await;
    let at = proxy.listening("outbound").await;
    let heads: [&[u8]; 7] = [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ];
    for head in heads {
        let answer = raw(at, head).await;
        let text = String::from_utf8_lossy(head);
        assert!(answer.starts_with("HTTP/1.1 400"), "{text:?}: {answer:?}");
    }
    assert_eq!(program.count(), 0);
    let records = told(&proxy, heads.len()).await;
    assert!(records.iter().all(|record| record.status == 400 && record.flags == ["DPE"]));
    assert_eq!(records[0].details, "http1.content_length_and_transfer_encoding");
}

#[tokio::test]
async fn revocation_closes_live_connections() {
    let pki = Pki::new(&["east", "west"]);
    let program = Program::echo("reviews").await;
    let identity = pki.identity("west", "reviews");
    let callee = start(options("west", "reviews"), inbound(program.address, vec![]), Some(identity.clone())).await;
    let reviews = id("west", "reviews");
    let endpoint = Ep::mesh(callee.listening("inbound").await, reviews.as_str(), "west", "reviews");
    let proxy = start(options("east", "frontend"), outbound(&[endpoint]), Some(pki.identity("east", "frontend"))).await;
    let at = proxy.listening("outbound").await;
    let caller = caller(false);
    assert_eq!(get(&caller, at, "/").await.status(), 200);
    identity.trust(pki.bundles.with_revoked_domain(&support::domain("east")).unwrap());
    // The old connection is cut and a new one is refused, at the latest after the event has gone round.
    for _ in 0..200 {
        if get(&caller, at, "/").await.status() == 503 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("still served after revocation");
}

/// An upgraded connection is no HTTP connection any more: what watches those must go on watching it, on either side.
#[tokio::test]
async fn revocation_ends_websockets() {
    for by_callee in [true, false] {
        let pki = Pki::new(&["east", "west"]);
        let program = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (own, theirs) = (pki.identity("east", "frontend"), pki.identity("west", "chat"));
        let resources = inbound(program.local_addr().unwrap(), vec![]);
        let callee = start(options("west", "chat"), resources, Some(theirs.clone())).await;
        let endpoint = Ep::mesh(callee.listening("inbound").await, id("west", "chat").as_str(), "west", "chat");
        let proxy = start(options("east", "frontend"), outbound(&[endpoint]), Some(own.clone())).await;
        let mut caller = TcpStream::connect(proxy.listening("outbound").await).await.unwrap();
        let request = b"GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        caller.write_all(request).await.unwrap();
        let (mut called, _) = program.accept().await.unwrap();
        head(&mut called).await;
        let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        called.write_all(switched).await.unwrap();
        let answer = head(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let mut bytes = [0; 4];
        caller.write_all(b"ping").await.unwrap();
        called.read_exact(&mut bytes).await.unwrap();
        called.write_all(b"pong").await.unwrap();
        caller.read_exact(&mut bytes).await.unwrap();
        let (judge, revoked) = if by_callee { (&theirs, "east") } else { (&own, "west") };
        judge.trust(pki.bundles.with_revoked_domain(&support::domain(revoked)).unwrap());
        let ended = async { tokio::join!(over(&mut caller), over(&mut called)) };
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        assert_eq!(ended, Ok((true, true)), "the WebSocket outlived the trust in {revoked}");
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Waits for what comes next; true: nothing does, the stream has ended.
async fn over(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0]).await, Ok(n) if n > 0)
}
