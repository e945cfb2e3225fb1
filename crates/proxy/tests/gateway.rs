//! Through an east-west gateway: SNI names one endpoint, TLS stays end to end, and a dead gateway costs no request.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use fairlead_proto::envoy::listener as l;
use fairlead_proxy::StaticProxy;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::client::{caller, get};
use support::echo::Program;
use support::resources::{self, Ep, inbound, outbound};
use support::{Pki, id, options, start, told};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const HOP: &str = "gateway|west-net|west";

/// A gateway's resources: one chain per endpoint, and the probe's.
fn gateway(endpoints: &[(&str, SocketAddr)]) -> Vec<fairlead_proxy::StaticResource> {
    let matching = |mut chain: l::FilterChain, name: &str| {
        chain.filter_chain_match = Some(l::FilterChainMatch {
            server_names: vec![name.to_owned()],
            transport_protocol: "tls".into(),
            ..Default::default()
        });
        chain
    };
    let sni = |id: &str| format!("outbound_.9080_.ep-{id}_.reviews.shop.svc.cluster.local");
    let mut chains = vec![matching(resources::chain("probe", true, vec![]), "probe_.west")];
    let mut list = Vec::new();
    for (id, address) in endpoints {
        let name = sni(id);
        chains.push(matching(resources::chain(&name, false, resources::tcp_filters(&name, vec![])), &name));
        list.push(resources::cluster_resource(&resources::cluster(&name, &[Ep::plain(*address)])));
    }
    let mut listener = resources::listener("15443", false, chains);
    listener.listener_filters = resources::inspectors(&["tls"]);
    list.push(resources::listener_resource(&listener));
    list
}

async fn callee(pki: &Pki, program: &Program, name: &str) -> StaticProxy {
    start(options("west", name), inbound(program.address, vec![]), Some(pki.identity("west", "reviews"))).await
}

async fn admin(proxy: &StaticProxy, path: &str) -> serde_json::Value {
    get(&caller(false), proxy.listening("admin").await, path).await.body
}

#[tokio::test]
async fn the_server_name_names_one_endpoint() {
    let pki = Pki::new(&["east", "west"]);
    let (one, two) = (Program::echo("one").await, Program::echo("two").await);
    let (callee1, callee2) = (callee(&pki, &one, "r-1").await, callee(&pki, &two, "r-2").await);
    let ends = [("aaaa", callee1.listening("inbound").await), ("bbbb", callee2.listening("inbound").await)];
    let gw = start(options("west", "east-west"), gateway(&ends), Some(pki.identity("west", "gateway"))).await;
    let at = gw.listening("15443").await;
    let reviews = id("west", "reviews");
    let behind = |id: &str, name: &str| Ep::mesh(at, reviews.as_str(), "west", name).behind(HOP, id);
    let mut list = outbound(&[behind("aaaa", "r-1"), behind("bbbb", "r-2")]);
    list.push(resources::cluster_resource(&resources::cluster(HOP, &[Ep::plain(at)])));
    let proxy = start(options("east", "frontend"), list, Some(pki.identity("east", "frontend"))).await;
    let out = proxy.listening("outbound").await;
    let mut names: Vec<String> = Vec::new();
    for _ in 0..40 {
        let answer = get(&caller(false), out, "/").await;
        assert_eq!(answer.status(), 200, "{}", answer.body);
        names.push(answer.name().to_owned());
    }
    names.sort();
    names.dedup();
    assert_eq!(names, ["one", "two"]);
    let record = told(&proxy, 40).await.pop().unwrap();
    assert_eq!(record.gateway, Some(at.to_string()));
    assert_eq!(told(&callee1, 1).await.last().unwrap().peer.as_deref(), Some(id("east", "frontend").as_str()));
    assert!(gw.records().iter().all(|record| record.protocol == "tcp" && record.peer.is_none()));

    // An unknown endpoint id, and bytes that are no TLS, are closed without a byte.
    let mut stream = TcpStream::connect(at).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    assert!(all.is_empty());
    let paths = admin(&proxy, "/fairlead/paths").await;
    assert_eq!((paths[0]["cluster"].as_str(), paths[0]["state"].as_str()), (Some("west"), Some("up")));
    let hosts = &admin(&proxy, "/clusters?format=json").await["cluster_statuses"];
    let status =
        hosts.as_array().unwrap().iter().find(|c| c["name"].as_str().unwrap().starts_with("outbound|9080")).unwrap();
    assert_eq!(status["host_statuses"][0]["fairlead"]["share"], 0.5);
}

#[tokio::test]
async fn a_dead_gateway_costs_no_request_and_comes_back() {
    let pki = Pki::new(&["east", "west"]);
    let (far, near) = (Program::echo("far").await, Program::echo("near").await);
    let callee = callee(&pki, &far, "r-1").await;
    let ends = [("aaaa", callee.listening("inbound").await)];
    let gw = start(options("west", "east-west"), gateway(&ends), Some(pki.identity("west", "gateway"))).await;
    let at = gw.listening("15443").await;
    let reviews = id("west", "reviews");
    let endpoints = [
        Ep::mesh(at, reviews.as_str(), "west", "r-1").behind(HOP, "aaaa"),
        Ep { priority: 1, cluster: "east".into(), ..Ep::plain(near.address) },
    ];
    let mut list = outbound(&endpoints);
    list.push(resources::cluster_resource(&resources::cluster(HOP, &[Ep::plain(at)])));
    let proxy = start(options("east", "frontend"), list, Some(pki.identity("east", "frontend"))).await;
    let out = proxy.listening("outbound").await;
    let caller = caller(false);
    assert_eq!(get(&caller, out, "/").await.name(), "far");
    let mut short = options("west", "east-west");
    short.bind.insert("15443".into(), at);
    gw.end().await;
    let state = async |wanted: &str| {
        let began = Instant::now();
        loop {
            let answer = get(&caller, out, "/").await;
            assert_eq!(answer.status(), 200, "nothing fails that could have been served");
            let paths = admin(&proxy, "/fairlead/paths").await;
            if paths[0]["state"] == wanted {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{paths}");
        }
    };
    state("down").await;
    assert_eq!(get(&caller, out, "/").await.name(), "near");
    let before = proxy.records().len();
    assert_eq!(get(&caller, out, "/").await.name(), "near");
    assert_eq!(told(&proxy, before + 1).await[before].attempts, 1, "a dead path is not even tried");
    let again = start(short, gateway(&ends), Some(pki.identity("west", "gateway"))).await;
    state("returning").await;
    // Under the ramp a tenth goes there at once.
    let mut far_seen = 0;
    for _ in 0..100 {
        far_seen += usize::from(get(&caller, out, "/").await.name() == "far");
    }
    assert!((1..80).contains(&far_seen), "{far_seen} of 100 under the ramp");
    again.end().await;
}
