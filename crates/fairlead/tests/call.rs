//! `fairlead call` against `fairlead echo`, both as programs, on the loopback.
//!
//! Invariant: what a call got is told as it was, and the exit code says whether all was well.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const FAIRLEAD: &str = env!("CARGO_BIN_EXE_fairlead");

/// An echo program, ended with the test.
struct Echo {
    process: Child,
    port: u16,
    answers: tempfile::TempDir,
}

impl Echo {
    fn start() -> Self {
        let answers = tempfile::tempdir().unwrap();
        let mut process = Command::new(FAIRLEAD)
            .args(["echo", "--port", "0", "--bind", "127.0.0.1", "--workload", "east/shop/reviews-0", "--answers"])
            .arg(answers.path().join("answers"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port =
            line.trim().rsplit([' ', ':']).next().unwrap().parse().unwrap_or_else(|_| panic!("no port in {line}"));
        Self { process, port, answers }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn call(arguments: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new(FAIRLEAD).arg("call").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[test]
fn every_protocol_is_told_as_it_was() {
    let echo = Echo::start();
    let port = echo.port;
    let (code, told, _) = call(&[
        &format!("POST http://localhost:{port}/ratings?x=1"),
        "-H",
        "x-test: here",
        "--body",
        "five stars",
        "--http",
        "2",
        "--times",
        "3",
        "-o",
        "json",
    ]);
    assert_eq!(code, Some(0), "{told}");
    let calls: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(calls.as_array().unwrap().len(), 3);
    let body = &calls[2]["body"];
    assert_eq!((&calls[2]["status"], &body["workload"]), (&"200".into(), &"east/shop/reviews-0".into()), "{calls}");
    assert_eq!((&body["method"], &body["path"]), (&"POST".into(), &"/ratings?x=1".into()));
    assert_eq!((&body["protocol"], &body["headers"]["x-test"]), (&"http/2".into(), &"here".into()));

    let (code, told, _) = call(&[&format!("grpc://127.0.0.1:{port}/shop.Cart/Add"), "-o", "json"]);
    let calls: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &calls[0]["grpcStatus"]), (Some(0), &0.into()), "{calls}");

    let (code, told, _) = call(&[&format!("tcp://127.0.0.1:{port}"), "--body", "a line"]);
    assert_eq!(code, Some(0));
    assert!(told.contains("ok") && told.contains("east/shop/reviews-0"), "{told}");
}

#[test]
fn what_fails_is_counted_and_the_exit_code_says_so() {
    let echo = Echo::start();
    std::fs::write(echo.answers.path().join("answers"), "503").unwrap();
    let (code, told, _) = call(&[&format!("GET http://127.0.0.1:{}/", echo.port), "--times", "2"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.lines().any(|line| line.contains("503") && line.trim_end().ends_with('2')), "{told}");
    let closed = echo.port;
    drop(echo);
    let (code, told, _) = call(&[&format!("GET http://127.0.0.1:{closed}/")]);
    assert_eq!((code, told.contains("refused")), (Some(1), true), "{told}");
    let (code, told, _) = call(&["GET http://no-such-name.invalid/"]);
    assert_eq!((code, told.contains("unresolved")), (Some(1), true), "{told}");
}

#[test]
fn words_that_are_no_request_are_refused() {
    for wrong in ["GET", "GET https://a/", "ftp://a/"] {
        let (code, _, told) = call(&[wrong]);
        assert_eq!(code, Some(2), "{wrong}: {told}");
    }
}

#[test]
fn a_load_leaves_by_the_clock_and_tells_what_failed() {
    let echo = Echo::start();
    let url = format!("GET http://localhost:{}/", echo.port);
    let (code, told, error) = call(&[&url, "--rate", "50", "--for", "400ms", "-o", "json"]);
    let report: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}{error}"));
    assert_eq!((code, &report["total"], &report["failed"]), (Some(0), &20.into(), &0.into()), "{report}");
    assert_eq!(report["clusters"]["east"], 20);
    std::fs::write(echo.answers.path().join("answers"), "503").unwrap();
    let (code, told, _) = call(&[&url, "--rate", "50", "--for", "100ms", "-o", "json"]);
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &report["failures"]["503"]), (Some(1), &5.into()), "{report}");
}

#[test]
fn tls_is_made_where_it_is_asked_for() {
    let echo = Echo::start();
    let url = format!("https://localhost:{}/", echo.port);
    let (code, _, error) = call(&[&url]);
    assert!(code == Some(2) && error.contains("--tls"), "{error}");
    let (code, told, error) = call(&[&url, "--tls", "--alpn", "http/1.1", "-o", "json"]);
    let calls: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}{error}"));
    assert_eq!((code, &calls[0]["body"]["tls"]), (Some(0), &true.into()), "{calls}");
}
