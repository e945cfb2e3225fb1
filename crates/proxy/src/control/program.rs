//! Is the program behind the sidecar ready? Asked as Kubernetes' kubelet asks.
//!
//! Invariant: ready after one good answer, unready after `failure_threshold` bad ones in a row.

use crate::options::{ProbeKind, ProbeSpec};
use bytes::Bytes;
use fairlead_transport::{DialOptions, dial};
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::sync::watch;

/// Whether it is, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramState {
    pub ready: bool,
    pub reason: String,
}

/// Probes for ever and tells every change.
pub async fn watch_program(spec: ProbeSpec, mark: Option<u32>, state: watch::Sender<ProgramState>) {
    let mut failures = 0;
    let mut tick = tokio::time::interval(spec.period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let answer = match tokio::time::timeout(spec.timeout, ask(&spec, mark)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", spec.timeout)),
        };
        let next = match answer {
            Ok(()) => {
                failures = 0;
                ProgramState { ready: true, reason: String::new() }
            }
            Err(reason) => {
                failures += 1;
                let was = state.borrow().ready;
                ProgramState { ready: was && failures < spec.failure_threshold, reason }
            }
        };
        state.send_if_modified(|now| {
            let changed = now.ready != next.ready || (!next.ready && now.reason != next.reason);
            *now = next;
            changed
        });
    }
}

async fn ask(spec: &ProbeSpec, mark: Option<u32>) -> Result<(), String> {
    let port = match &spec.kind {
        ProbeKind::Tcp { port } | ProbeKind::Http { port, .. } => *port,
    };
    let options = DialOptions { connect_timeout: spec.timeout, mark, source: None };
    let raw = dial(SocketAddr::new(spec.address, port), options).await.map_err(|e| e.to_string())?;
    let ProbeKind::Http { path, .. } = &spec.kind else { return Ok(()) };
    let (mut sender, connection) = http1::handshake(TokioIo::new(raw)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // Its end is the probe's end.
        let _ = connection.await;
    });
    let request = Request::get(path.as_str())
        .header(header::HOST, format!("{}:{port}", spec.address))
        .header(header::USER_AGENT, "fairlead-probe")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let status = sender.send_request(request).await.map_err(|e| e.to_string())?.status();
    // Kubernetes: 200 to 399 is ready.
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("answered {status}")) }
}
