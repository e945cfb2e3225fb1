//! Pods with IPv6: a listener at the wildcard address is there for both families, for traffic and for people.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use support::client::{caller, get};
use support::echo::Program;
use support::resources::{Ep, outbound};
use support::{options, start};

#[tokio::test]
async fn the_wildcard_address_is_both_families() {
    let wildcard: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
    let program = Program::echo("reviews").await;
    let mut options = options("east", "frontend");
    options.bind.insert("outbound".into(), wildcard);
    options.serve.admin = Some(wildcard);
    options.serve.ready = Some(wildcard);
    // Workers share the sockets of both.
    options.concurrency = 2;
    let proxy = start(options, outbound(&[Ep::plain(program.address)]), None).await;
    let caller = caller(false);
    for (name, path) in [("outbound", "/"), ("admin", "/ready"), ("ready", "/healthz/ready")] {
        let port = proxy.listening(name).await.port();
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let at = SocketAddr::new(ip, port);
            assert_eq!(get(&caller, at, path).await.status(), 200, "{name} at {at}");
        }
    }
    proxy.end().await;
}
