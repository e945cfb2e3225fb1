//! A proxy under a control plane: bootstrap, discovery, renewal, readiness, names, and life without it.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use http::Request;
use http_body_util::Full;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use support::client::{caller, get, send};
use support::control_plane::{ControlPlane, names};
use support::echo::Program;
use support::resources::{self, Ep, inbound, outbound};
use support::{Pki, any_port, id, options, start};
use tokio::net::UdpSocket;

async fn controlled(
    control: &ControlPlane,
    state: Option<&std::path::Path>,
    probe: Option<u16>,
) -> fairlead_proxy::ControlledProxy {
    let mut options = options("east", "frontend");
    options.control = vec![control.address.to_string()];
    options.bootstrap = control.bootstrap.clone();
    options.state = state.map(Into::into);
    options.serve.ready = Some(any_port());
    options.serve.dns = Some(any_port());
    options.probe = probe.map(|port| {
        serde_json::from_value(serde_json::json!({
            "kind": {"tcp": {"port": port}},
            "period": {"secs": 0, "nanos": 50_000_000},
            "timeout": {"secs": 1, "nanos": 0},
            "failureThreshold": 1
        }))
        .unwrap()
    });
    fairlead_proxy::start(options).await.unwrap()
}

#[tokio::test]
async fn from_bootstrap_to_life_without_a_control_plane() {
    let pki = Arc::new(Pki::new(&["east", "west"]));
    let program = Program::echo("reviews").await;
    let callee =
        start(options("west", "reviews"), inbound(program.address, vec![]), Some(pki.identity("west", "reviews")))
            .await;
    let reviews = id("west", "reviews");
    let endpoint = Ep::mesh(callee.listening("inbound").await, reviews.as_str(), "west", "reviews");
    let mut control = ControlPlane::start(&pki, "east", "frontend", Duration::from_secs(3600)).await;
    let own = Program::echo("frontend").await;
    let state = tempfile::tempdir().unwrap();
    let proxy = controlled(&control, Some(state.path()), Some(own.address.port())).await;
    let ready = proxy.listening("ready").await;
    let mut list = outbound(&[endpoint]);
    list.push(names("reviews.shop.svc.cluster.local", "240.240.0.9".parse().unwrap()));
    control.publish(&list);
    assert_eq!(control.taken().await, 0);
    let at = proxy.listening("outbound").await;
    let caller = caller(false);
    assert_eq!(get(&caller, at, "/").await.status(), 200);
    assert_eq!(get(&caller, ready, "/healthz/ready").await.status(), 200);

    // Readiness of the program is told, and told again when it changes.
    control.status.wait_for(|status| status.as_ref().is_some_and(|s| s.ready)).await.unwrap();
    own.kill();
    control.status.wait_for(|status| status.as_ref().is_some_and(|s| !s.ready && !s.reason.is_empty())).await.unwrap();

    // The name table answers questions, also those that come over IPv6.
    for loopback in ["127.0.0.1", "::1"] {
        let server = SocketAddr::new(loopback.parse().unwrap(), proxy.listening("dns").await.port());
        let socket = UdpSocket::bind(SocketAddr::new(server.ip(), 0)).await.unwrap();
        let mut question = Message::new(9, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_str("reviews.").unwrap(), RecordType::A));
        socket.send_to(&question.to_vec().unwrap(), server).await.unwrap();
        let mut answer = [0; 512];
        let n = socket.recv(&mut answer).await.unwrap();
        let answer = Message::from_vec(&answer[..n]).unwrap();
        assert!(answer.answers[0].to_string().contains("240.240.0.9"), "{answer}");
    }

    // A broken resource is refused alone.
    let mut broken = list.clone();
    let mut bad = resources::cluster("outbound|9080||reviews.shop.svc.cluster.local", &[]);
    bad.lb_policy = 77;
    bad.transport_socket_matches[0].transport_socket.as_mut().unwrap().config_type = None;
    broken[1] = resources::cluster_resource(&bad);
    control.publish(&broken);
    assert_eq!(control.taken().await, 1);
    assert_eq!(get(&caller, at, "/").await.status(), 200, "the last good one serves");

    control.kill();
    for _ in 0..20 {
        assert_eq!(get(&caller, at, "/").await.status(), 200);
    }
    // What was acked is on disk, for a start without any control plane; no key is.
    let file = state.path().join("discovery.state");
    while !file.exists() {
        tokio::task::yield_now().await;
    }
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"PRIVATE KEY"));
    proxy.end().await;
}

/// A pod whose certificate ended while no control plane answered: the token of that day brings it back.
#[tokio::test]
async fn an_ended_certificate_is_replaced_by_the_token_that_is_in_the_file_then() {
    let pki = Arc::new(Pki::new(&["east", "west"]));
    let mut control = ControlPlane::start(&pki, "east", "frontend", fairlead_identity::ca::MIN_LIFETIME).await;
    let folder = tempfile::tempdir().unwrap();
    let files = fairlead_proxy::CredentialFiles {
        token: folder.path().join("token"),
        trust: folder.path().join("bundles.json"),
    };
    let mut options = options("east", "frontend");
    options.control = vec![control.address.to_string()];
    options.bootstrap.control_identity = control.bootstrap.control_identity.clone();
    options.credential_files = Some(files.clone());
    // The kubelet may be a moment behind: the proxy waits for what is not there yet.
    let starting = tokio::spawn(fairlead_proxy::start(options));
    std::fs::write(&files.trust, control.bootstrap.trust_bundles.to_string()).unwrap();
    std::fs::write(&files.token, "first").unwrap();
    let proxy = starting.await.unwrap().unwrap();
    assert_eq!(*control.redeemed.borrow(), ["first"]);
    std::fs::write(&files.token, "second").unwrap();
    control.only_by_token("second");
    let redeemed = control.redeemed.wait_for(|redeemed| redeemed.len() == 2).await.unwrap().clone();
    assert_eq!(redeemed, ["first", "second"]);
    while proxy.renewals() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.end().await;
}

#[tokio::test]
async fn renewal_drops_no_stream() {
    let pki = Arc::new(Pki::new(&["east", "west"]));
    let program = Program::echo("reviews").await;
    let callee =
        start(options("west", "reviews"), inbound(program.address, vec![]), Some(pki.identity("west", "reviews")))
            .await;
    let reviews = id("west", "reviews");
    let endpoint = Ep::mesh(callee.listening("inbound").await, reviews.as_str(), "west", "reviews");
    // As short as an issuer makes them.
    let mut control = ControlPlane::start(&pki, "east", "frontend", fairlead_identity::ca::MIN_LIFETIME).await;
    let proxy = controlled(&control, None, None).await;
    control.publish(&outbound(&[endpoint]));
    let at = proxy.listening("outbound").await;
    let caller = caller(false);
    assert_eq!(get(&caller, at, "/").await.status(), 200);
    let long = {
        let request = Request::get(format!("http://{at}/")).header("x-wait-ms", "12000").body(Full::default()).unwrap();
        let caller = caller.clone();
        tokio::spawn(async move { send(&caller, request).await })
    };
    let waiting = async {
        while proxy.renewals() == 0 {
            assert_eq!(get(&caller, at, "/").await.status(), 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("renewed in time");
    assert_eq!(long.await.unwrap().status(), 200);
    assert_eq!(get(&caller, at, "/").await.status(), 200);
}
