//! What connections may do, and how many there may be.

use super::super::server::Limits;
use super::{NAME, answer, pod, post, review, serve, serve_within};
use crate::places::Bounds;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

#[tokio::test]
async fn what_is_no_review_is_told_so() {
    let served = serve(None).await;
    let mut stream = served.connect(NAME).await.unwrap();
    for (body, part) in [
        ("{", "no AdmissionReview"),
        (r#"{"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "x"}}"#, "v1beta1 is not served"),
        (r#"{"apiVersion": "admission.k8s.io/v1"}"#, "no request"),
    ] {
        let (status, why) = post(&mut stream, "/validate", body.as_bytes()).await;
        assert_eq!(status, 400, "{body}");
        assert!(String::from_utf8_lossy(&why).contains(part), "{body}: {}", String::from_utf8_lossy(&why));
    }
    assert_eq!(post(&mut stream, "/other", b"{}").await.0, 404);
    let mut stream = served.connect(NAME).await.unwrap();
    let head = format!("POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n", 8 * 1024 * 1024 + 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 413, "without having read it");
}

#[tokio::test]
async fn a_renewed_certificate_ends_no_connection() {
    let served = serve(None).await;
    let leaf = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let mut before = served.connect(NAME).await.unwrap();
    let body = review(pod()).to_string();
    assert_eq!(post(&mut before, "/inject", body.as_bytes()).await.0, 200);
    served.serving.renew().unwrap();
    assert_eq!(post(&mut before, "/inject", body.as_bytes()).await.0, 200, "the same connection");
    let mut after = served.connect(NAME).await.unwrap();
    assert_ne!(leaf(&before), leaf(&after));
    assert_eq!(post(&mut after, "/inject", body.as_bytes()).await.0, 200);
}

#[tokio::test]
async fn it_is_believed_under_its_names_only() {
    let served = serve(None).await;
    assert!(served.connect("fairlead-control.fairlead-system.svc.cluster.local").await.is_ok());
    let error = served.connect("fairlead-control.other.svc").await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Waits for the end of a connection; what came until then.
async fn ended(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut came = Vec::new();
    // A connection may end with or without a TLS goodbye.
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut came)).await.expect("never ended");
    came
}

#[tokio::test]
async fn whoever_dawdles_is_put_out() {
    let soon = Duration::from_millis(300);
    let far = Duration::from_secs(600);
    let patient = Limits { head: far, body: far, request: far, idle: far, ..Limits::default() };
    // Says nothing.
    let served = serve_within(None, Limits { idle: soon, ..patient }).await;
    assert!(ended(&mut served.connect(NAME).await.unwrap()).await.is_empty());
    // Nor after a review.
    let mut stream = served.connect(NAME).await.unwrap();
    assert_eq!(post(&mut stream, "/inject", review(pod()).to_string().as_bytes()).await.0, 200);
    ended(&mut stream).await;
    // Never ends its head.
    let served = serve_within(None, Limits { head: soon, ..patient }).await;
    let mut stream = served.connect(NAME).await.unwrap();
    stream.write_all(b"POST /inject HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    assert!(ended(&mut stream).await.is_empty());
    // Never ends its body: told so, or put out.
    let head = b"POST /inject HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{";
    let served = serve_within(None, Limits { body: soon, ..patient }).await;
    let mut stream = served.connect(NAME).await.unwrap();
    stream.write_all(head).await.unwrap();
    assert_eq!(answer(&mut stream).await.0, 408);
    let served = serve_within(None, Limits { request: soon, ..patient }).await;
    let mut stream = served.connect(NAME).await.unwrap();
    stream.write_all(head).await.unwrap();
    assert!(ended(&mut stream).await.is_empty());
}

#[tokio::test]
async fn one_source_takes_a_part_of_the_places_and_gives_them_to_newcomers() {
    let places = Bounds { all: 4, each: 3, young: Duration::ZERO };
    let served = serve_within(None, Limits { places, ..Limits::default() }).await;
    let from = |source: &'static str| served.connect_from(source, NAME);
    let mut strangers = Vec::new();
    for _ in 0..places.each {
        strangers.push(from("127.0.0.2").await.unwrap());
    }
    assert!(from("127.0.0.2").await.is_err(), "no more than its part");
    let mut server = from("127.0.0.3").await.unwrap();
    // All are taken: the oldest of the stranger's is given to who has none.
    let mut other = from("127.0.0.4").await.unwrap();
    ended(&mut strangers[0]).await;
    for stream in [&mut server, &mut other] {
        assert_eq!(post(stream, "/inject", review(pod()).to_string().as_bytes()).await.0, 200);
    }
}

#[tokio::test]
async fn large_reviews_are_bounded_together() {
    let half = 512 * 1024;
    let served = serve_within(None, Limits { bytes: (4 * half, half), ..Limits::default() }).await;
    let mut request = pod();
    request["object"]["metadata"]["annotations"]["note"] = json!("x".repeat(half));
    let body = review(request).to_string();
    let mut stream = served.connect(NAME).await.unwrap();
    assert_eq!(post(&mut stream, "/inject", body.as_bytes()).await.0, 429);
    assert_eq!(served.review("/inject", pod()).await["allowed"], true, "what was held is given back");
    let served = serve(None).await;
    let mut stream = served.connect(NAME).await.unwrap();
    assert_eq!(post(&mut stream, "/inject", body.as_bytes()).await.0, 200);
}

#[tokio::test]
async fn a_silent_stranger_keeps_nobody_out() {
    let served = serve(None).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert_eq!(served.review("/inject", pod()).await["allowed"], true);
}
