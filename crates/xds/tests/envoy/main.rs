//! A real Envoy 1.40 on our server, delta and state of the world: it takes everything, loses no request while what
//! serves it is replaced, refuses what is bad, and resumes.

// clippy.toml allows these in test functions; here everything is a test, helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod process;
mod server;
mod snapshot;

use fairlead_xds::server::{Encoding, Event};
use process::{Envoy, binary, request, upstream};
use server::{Heard, serve};
use snapshot::{LISTENER, mesh};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test]
async fn delta() {
    envoy_is_served(Encoding::Delta).await;
}

#[tokio::test]
async fn state_of_the_world() {
    envoy_is_served(Encoding::StateOfTheWorld).await;
}

async fn envoy_is_served(encoding: Encoding) {
    let binary = match binary() {
        Ok(binary) => binary,
        // Written past the harness, which keeps the words of a passing test to itself.
        Err(reason) => {
            return writeln!(std::io::stdout(), "SUITE DID NOT RUN: a real Envoy on our server: {reason}").unwrap();
        }
    };
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("listener");
    let first = mesh(1, &socket, upstream, "blue");
    let mut server = serve(first).await;
    let envoy = Envoy::start(&binary, folder.path(), server.address, encoding);

    assert_eq!(server.settled_with(LISTENER, 1).await, 0);
    let status = envoy.serving(&socket).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "clusters, endpoints, listener and routes are in use");

    // The cluster changes and its endpoints do not: Envoy must not be left warming.
    server.publish(mesh(2, &socket, upstream, "blue").connect_timeout(7));
    assert_eq!(server.settled(2).await, 0);
    envoy.warmed("blue", "7s").await;

    // Cluster, endpoints and route are replaced under load: make before break.
    let (done, load) = (Arc::new(AtomicBool::new(false)), socket.clone());
    let stop = done.clone();
    let load = tokio::spawn(async move {
        let mut answers = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            answers.push(request(&load, "/").await.unwrap_or_else(|e| e.to_string()));
        }
        answers
    });
    let colours = ["green", "blue", "green", "red", "blue"];
    for (generation, colour) in (3..33).zip(colours.into_iter().cycle()) {
        server.publish(mesh(generation, &socket, upstream, colour));
        assert_eq!(server.settled(generation).await, 0);
    }
    done.store(true, Ordering::Relaxed);
    let answers = load.await.unwrap();
    let failed: Vec<&String> = answers.iter().filter(|status| *status != "HTTP/1.1 200 OK").collect();
    assert!(failed.is_empty() && !answers.is_empty(), "{} of {}: {failed:?}", failed.len(), answers.len());

    // A listener it cannot take: refused, and what it had stays.
    server.publish(mesh(40, &socket, upstream, "blue").bad_listener());
    let detail = server
        .hear_until(|heard| match heard {
            Heard::Event(Event::Nacked { generation: 40, detail, .. }) => Some(detail.clone()),
            _ => None,
        })
        .await;
    assert!(detail.contains("no.such.filter"), "{detail}");
    assert_eq!(request(&socket, "/").await.unwrap(), "HTTP/1.1 200 OK");
    server.publish(mesh(41, &socket, upstream, "blue"));
    assert_eq!(server.settled(41).await, 0);

    // Its stream is cut and the state changes meanwhile: the next stream brings it in step.
    server.put_out(mesh(42, &socket, upstream, "green"));
    server.hear_until(|heard| matches!(heard, Heard::Connected).then_some(())).await;
    assert_eq!(server.settled_with(LISTENER, 42).await, 0);
    envoy.warmed("green", "5s").await;
    envoy.gone("blue").await;
    assert_eq!(request(&socket, "/").await.unwrap(), "HTTP/1.1 200 OK");
}
