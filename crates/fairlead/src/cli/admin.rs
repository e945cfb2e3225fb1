//! Talking to a running control plane over its Unix socket.
//!
//! A small HTTP/1.1 client on a Unix stream. Invariant: an error names the socket and what to do.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A control plane answers at once; joining takes a round trip to another cluster.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks with GET, or POST when there is a body.
pub fn ask(socket: &Path, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no control plane answers at {}; is it running?", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let text = body.map(Value::to_string).unwrap_or_default();
    let method = if body.is_some() { "POST" } else { "GET" };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: control\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the control plane's answer was cut")?;
    let status: u16 = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    let value: Value = serde_json::from_str(&body).with_context(|| format!("the control plane answered `{body}`"))?;
    if status != 200 {
        bail!("{}", value["error"].as_str().unwrap_or("the control plane refused"));
    }
    Ok(value)
}

/// The control planes of the lab that runs, by cluster; see `fairlead up`.
pub fn sockets(given: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(socket) = given {
        return Ok(vec![socket.to_owned()]);
    }
    let lab = crate::lab_state::latest()?;
    let mut sockets: Vec<PathBuf> = std::fs::read_dir(&lab)
        .with_context(|| format!("cannot read {}", lab.display()))?
        .flatten()
        .map(|e| e.path().join("control.sock"))
        .filter(|p| p.exists())
        .collect();
    sockets.sort();
    if sockets.is_empty() {
        bail!("no control plane runs in {}; start a mesh with `fairlead up DIR`", lab.display());
    }
    Ok(sockets)
}

fn unchunked(body: &str) -> String {
    let mut rest = body;
    let mut whole = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        let (Some(chunk), true) = (tail.get(..size), size > 0) else { break };
        whole.push_str(chunk);
        rest = tail.get(size + 2..).unwrap_or_default();
    }
    whole
}
