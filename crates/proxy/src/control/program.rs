//! Is the program behind the sidecar ready? Asked as Kubernetes' kubelet asks; and its hooks, called as a kubelet calls them.
//!
//! Invariant: ready after `success_threshold` good answers in a row, unready after `failure_threshold` bad ones.

use super::grpc_health;
use crate::options::{ProbeKind, ProbeSpec};
use crate::upstream::unverified;
use bytes::Bytes;
use fairlead_transport::{DialOptions, Raw, Stream, dial, tls};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

/// What is read of a hook's answer.
const HOOK_BODY: usize = 10 << 10;

/// Whether it is, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramState {
    pub ready: bool,
    pub reason: String,
}

/// Answers in a row, and what follows from them.
#[derive(Debug, Default)]
struct Run {
    ready: bool,
    good: u32,
    bad: u32,
}

impl Run {
    fn enter(&mut self, good: bool, spec: &ProbeSpec) -> bool {
        (self.good, self.bad) = if good { (self.good.saturating_add(1), 0) } else { (0, self.bad.saturating_add(1)) };
        if self.good >= spec.success_threshold {
            self.ready = true;
        }
        if self.bad >= spec.failure_threshold {
            self.ready = false;
        }
        self.ready
    }
}

/// Probes for ever and tells every change.
pub async fn watch_program(spec: ProbeSpec, mark: Option<u32>, state: watch::Sender<ProgramState>) {
    let mut run = Run::default();
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + spec.delay, spec.period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let answer = match tokio::time::timeout(spec.timeout, ask(&spec, mark)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", spec.timeout)),
        };
        let next = match answer {
            Ok(()) => match run.enter(true, &spec) {
                true => ProgramState { ready: true, reason: String::new() },
                false => {
                    let reason = format!("{} good answers of {}", run.good, spec.success_threshold);
                    ProgramState { ready: false, reason }
                }
            },
            Err(reason) => ProgramState { ready: run.enter(false, &spec), reason },
        };
        state.send_if_modified(|now| {
            let changed = now.ready != next.ready || (!next.ready && now.reason != next.reason);
            *now = next;
            changed
        });
    }
}

/// Asks once. The caller bounds the time.
///
/// # Errors
/// Why the program is not ready.
pub async fn ask(spec: &ProbeSpec, mark: Option<u32>) -> Result<(), String> {
    let (raw, address) = reach(spec, mark).await?;
    match &spec.kind {
        ProbeKind::Tcp { .. } => Ok(()),
        ProbeKind::Grpc { service, .. } => grpc_health::check(raw, &address.to_string(), service).await,
        ProbeKind::Http { path, tls, headers, .. } => {
            let status = get(raw, address, spec.timeout, path, *tls, headers).await?.status();
            // Kubernetes: 200 to 399 is ready.
            if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("answered {status}")) }
        }
    }
}

/// Calls a lifecycle hook over HTTP and waits for its end. As for a kubelet any answer is one; the timeout is for connecting.
///
/// # Errors
/// The program did not answer.
pub async fn call_hook(spec: &ProbeSpec, mark: Option<u32>) -> Result<StatusCode, String> {
    let ProbeKind::Http { path, tls, headers, .. } = &spec.kind else { return Err("hooks are HTTP".to_owned()) };
    let (raw, address) = reach(spec, mark).await?;
    let response = get(raw, address, spec.timeout, path, *tls, headers).await?;
    let status = response.status();
    // A kubelet reads so much of it, and does not mind its end.
    let _ = Limited::new(response.into_body(), HOOK_BODY).collect().await;
    Ok(status)
}

async fn reach(spec: &ProbeSpec, mark: Option<u32>) -> Result<(Raw, SocketAddr), String> {
    let port = match &spec.kind {
        ProbeKind::Tcp { port } | ProbeKind::Http { port, .. } | ProbeKind::Grpc { port, .. } => *port,
    };
    let source = spec.source.map(|address| SocketAddr::new(address, 0));
    let options = DialOptions { connect_timeout: spec.timeout, mark, source };
    let address = SocketAddr::new(spec.address, port);
    Ok((dial(address, options).await.map_err(|e| e.to_string())?, address))
}

async fn get(
    raw: Raw,
    address: SocketAddr,
    timeout: Duration,
    path: &str,
    tls: bool,
    headers: &[(String, String)],
) -> Result<Response<Incoming>, String> {
    let stream = if tls {
        let name = address.ip().to_string();
        let connected = tls::connect(raw, unverified()?, &name, timeout).await.map_err(|e| e.to_string())?;
        connected.0
    } else {
        Stream::Plain(raw)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // Its end is the question's end.
        let _ = connection.await;
    });
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let own =
        [(header::HOST.as_str(), address.to_string()), (header::USER_AGENT.as_str(), "fairlead-probe".to_owned())];
    for (name, value) in own.iter().map(|(n, v)| (*n, v)).chain(headers.iter().map(|(n, v)| (n.as_str(), v))) {
        let name = HeaderName::try_from(name).map_err(|e| e.to_string())?;
        // What is written takes the place of what would be sent.
        request.headers_mut().insert(name, HeaderValue::try_from(value).map_err(|e| e.to_string())?);
    }
    sender.send_request(request).await.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn spec(kind: ProbeKind) -> ProbeSpec {
        ProbeSpec {
            kind,
            address: Ipv4Addr::LOCALHOST.into(),
            source: None,
            delay: Duration::from_secs(5),
            period: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
            success_threshold: 2,
        }
    }

    #[test]
    fn answers_in_a_row() {
        let spec = spec(ProbeKind::Tcp { port: 1 });
        let mut run = Run::default();
        let answers = [true, false, true, true, false, false, true, false, false, false, true, true];
        let ready = answers.map(|good| run.enter(good, &spec));
        assert_eq!(ready, [false, false, false, true, true, true, true, true, true, false, false, true]);
    }

    /// Asks a server that answers each question with the next status, and gives the seconds at which readiness changed.
    #[tokio::test]
    async fn asked_after_the_delay_and_by_the_period_with_the_headers_written() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let headers = vec![("x-probe".to_owned(), "yes".to_owned()), ("Host".to_owned(), "ready.example".to_owned())];
        let kind = ProbeKind::Http { port, path: "/ready?a".into(), tls: false, headers };
        let mut spec = spec(kind);
        // The times are not what is seen here; a clock that is paused does not go with sockets.
        (spec.delay, spec.period) = (Duration::from_millis(1), Duration::from_millis(1));
        let (sender, mut state) = watch::channel(ProgramState::default());
        tokio::spawn(watch_program(spec, None, sender));
        let statuses = ["503", "204", "302", "404", "500", "503"];
        let mut seen = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                question.push(stream.read_u8().await.unwrap());
            }
            let question = String::from_utf8(question).unwrap().to_lowercase();
            assert!(question.starts_with("get /ready?a http/1.1\r\n"), "{question}");
            for line in ["host: ready.example\r\n", "x-probe: yes\r\n", "user-agent: fairlead-probe\r\n"] {
                assert_eq!(question.matches(line).count(), 1, "{question}");
            }
            assert_eq!(question.matches("host:").count(), 1);
            seen.push(state.borrow_and_update().ready);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        // Before each answer: two good ones in a row make it ready, three bad ones unready.
        assert_eq!(seen, [false, false, false, true, true, true]);
        state.wait_for(|state| !state.ready).await.unwrap();
    }
}
