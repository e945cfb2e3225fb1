//! The listeners as a kubelet, a scraper and a Job's program meet them, before there is a certificate.

use super::server::{Status, bounded};
use super::{AppMetrics, AppProbes};
use crate::options::ProxyOptions;
use bytes::Bytes;
use fairlead_model::{ProxyRole, WorkloadRef};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn options() -> ProxyOptions {
    let workload = WorkloadRef { cluster: "east".into(), namespace: "shop".into(), name: "web".into() };
    let mut options = ProxyOptions::new(ProxyRole::Sidecar, workload);
    options.serve.ready = Some(any_port());
    options.serve.merged = Some(any_port());
    options
}

async fn serve(options: ProxyOptions) -> (Arc<Status>, SocketAddr, SocketAddr) {
    let status = Status::serve(Arc::new(options)).await;
    let bound = |name: &str| status.bound().iter().find(|(of, _)| *of == name).unwrap().1;
    let (ready, merged) = (bound("ready"), bound("merged"));
    (status, ready, merged)
}

/// Status and body of an answer.
async fn ask(method: &str, at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let question =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nuser-agent: kube-probe/1.33\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A program that answers every request with this, and gives the port and the heads of what it was asked.
async fn program(answer: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let _ = tell.send(String::from_utf8_lossy(&head).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, told)
}

fn probes(text: &str) -> AppProbes {
    AppProbes::read(text).unwrap()
}

#[tokio::test]
async fn not_ready_without_a_certificate_but_the_programs_probes_are_answered() {
    let (well, mut asked) = program("HTTP/1.1 302 X\r\ncontent-length: 0\r\n\r\n").await;
    let (ill, _ill) = program("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    let nobody = TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap().port();
    let mut options = options();
    options.app_probes = probes(&format!(
        r#"{{"/app-health/web/readyz": {{"httpGet": {{"path": "/ready?x", "port": {well}, "httpHeaders": [{{"name": "X-A", "value": "b"}}]}}}},
            "/app-health/web/livez": {{"httpGet": {{"port": {ill}}}}},
            "/app-health/web/startupz": {{"tcpSocket": {{"port": {well}}}}},
            "/app-health/db/livez": {{"tcpSocket": {{"port": {nobody}}}}}}}"#
    ));
    let (_status, ready, merged) = serve(options).await;
    for at in [ready, merged] {
        let (status, why) = ask("GET", at, "/healthz/ready").await;
        assert_eq!((status, why.contains("certificate")), (503, true), "{why}");
    }
    assert_eq!(ask("GET", merged, "/app-health/web/readyz").await.0, 200);
    let head = asked.recv().await.unwrap().to_lowercase();
    for line in ["get /ready?x http/1.1\r\n", "x-a: b\r\n", "user-agent: kube-probe/1.33\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    assert_eq!(ask("GET", merged, "/app-health/web/livez").await, (503, "answered 500 Internal Server Error\n".into()));
    assert_eq!(ask("GET", merged, "/app-health/web/startupz").await.0, 200);
    assert_eq!(ask("GET", merged, "/app-health/db/livez").await.0, 503);
    assert_eq!(ask("GET", merged, "/app-health/other/livez").await.0, 404);
    assert_eq!(ask("GET", ready, "/app-health/web/readyz").await.0, 404, "only on the merged port");
}

#[tokio::test]
async fn hooks_are_called() {
    let (ill, mut asked) = program("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    let slow = TcpListener::bind(any_port()).await.unwrap();
    let nobody = TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap().port();
    let mut options = options();
    options.app_probes = probes(&format!(
        r#"{{"/app-lifecycle/web/poststartz": {{"httpGet": {{"path": "/begin?x", "port": {ill}, "httpHeaders": [{{"name": "X-A", "value": "b"}}]}}}},
            "/app-lifecycle/web/prestopz": {{"httpGet": {{"path": "/end", "port": {slow}}}}},
            "/app-lifecycle/db/prestopz": {{"httpGet": {{"port": {nobody}}}}}}}"#,
        slow = slow.local_addr().unwrap().port(),
    ));
    let (_status, ready, merged) = serve(options).await;
    // As for a kubelet, any answer is one.
    assert_eq!(ask("GET", merged, "/app-lifecycle/web/poststartz").await, (500, "called\n".into()));
    let head = asked.recv().await.unwrap().to_lowercase();
    for line in ["get /begin?x http/1.1\r\n", "x-a: b\r\n", "user-agent: kube-probe/1.33\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    assert_eq!(ask("GET", merged, "/app-lifecycle/web/other").await.0, 404);
    assert_eq!(ask("GET", ready, "/app-lifecycle/web/poststartz").await.0, 404, "only on the merged port");
    // What a kubelet takes for a failure is an answer that does not come.
    let mut stream = TcpStream::connect(merged).await.unwrap();
    stream.write_all(b"GET /app-lifecycle/db/prestopz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), "");

    let caller = tokio::spawn(ask("GET", merged, "/app-lifecycle/web/prestopz"));
    let (mut hook, _) = slow.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(hook.read_u8().await.unwrap());
    }
    hook.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(caller.await.unwrap(), (200, "called\n".into()));
}

#[tokio::test]
async fn a_hook_lasts_as_long_as_it_does() {
    let (end, ended) = tokio::sync::oneshot::channel();
    let lasts = AtomicBool::new(true);
    let hook = bounded(ended, Duration::ZERO, &lasts);
    tokio::pin!(hook);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut hook).await.is_err());
    end.send(()).unwrap();
    assert_eq!(hook.await, Some(Ok(())));
    let lasts = AtomicBool::new(false);
    assert_eq!(bounded(std::future::pending::<()>(), Duration::ZERO, &lasts).await, None);
}

#[tokio::test]
async fn grpc_health() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        let question = request.into_body().data().await.unwrap().unwrap();
                        // Serving is who is asked for by the name of `well`.
                        let status = if question.ends_with(b"well") { 1 } else { 2 };
                        let response = http::Response::builder().header("content-type", "application/grpc");
                        let mut body = respond.send_response(response.body(()).unwrap(), false).unwrap();
                        body.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]), false).unwrap();
                        let trailers = [("grpc-status", "0")].map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
                        body.send_trailers(trailers.into_iter().collect()).unwrap();
                    });
                }
            });
        }
    });
    let mut options = options();
    options.app_probes = probes(&format!(
        r#"{{"/app-health/api/livez": {{"grpc": {{"port": {port}, "service": "well"}}}},
            "/app-health/api/readyz": {{"grpc": {{"port": {port}}}}}}}"#
    ));
    let (_status, _, merged) = serve(options).await;
    assert_eq!(ask("GET", merged, "/app-health/api/livez").await, (200, "OK\n".into()));
    assert_eq!(ask("GET", merged, "/app-health/api/readyz").await, (503, "health status 2 (1 is SERVING)\n".into()));
}

#[tokio::test]
async fn the_programs_metrics_are_served_too_or_said_to_be_missing() {
    let (port, mut asked) = program("HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\nrequests 7\n# EOF\n\n").await;
    let mut options = options();
    options.app_metrics = Some(AppMetrics { port, path: "/stats".into() });
    let (_status, _, merged) = serve(options.clone()).await;
    let (status, body) = ask("GET", merged, "/stats/prometheus").await;
    assert_eq!((status, body.contains("\nrequests 7\n"), body.contains("EOF")), (200, true, false), "{body}");
    assert!(body.contains("fairlead_app_scrape_up 1\n"), "{body}");
    assert!(asked.recv().await.unwrap().starts_with("GET /stats HTTP/1.1\r\n"));
    let nobody = TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap().port();
    options.app_metrics = Some(AppMetrics { port: nobody, path: "/stats".into() });
    let (_status, _, merged) = serve(options).await;
    let (status, body) = ask("GET", merged, "/stats/prometheus").await;
    assert_eq!((status, body.contains("fairlead_app_scrape_up 0\n")), (200, true), "{body}");
}

#[tokio::test]
async fn a_job_ends_its_proxy() {
    let (status, ready, merged) = serve(options()).await;
    assert_eq!(ask("GET", merged, "/quitquitquit").await.0, 405);
    assert_eq!(ask("POST", ready, "/quitquitquit").await.0, 404);
    let quit = status.asked_to_quit();
    tokio::pin!(quit);
    assert!(futures_not_ready(&mut quit).await);
    assert_eq!(ask("POST", merged, "/quitquitquit").await.0, 200);
    quit.await;
}

async fn futures_not_ready(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    tokio::select! {
        biased;
        () = future => false,
        () = std::future::ready(()) => true,
    }
}
