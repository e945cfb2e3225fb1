//! When a process is ready.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::netns::NetNs;

/// What tells that a process is ready. Addresses are tried from inside its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// It runs.
    Started,
    /// It accepts TCP connections here.
    Tcp(SocketAddr),
    /// It answers GET with status 200 here (plain HTTP/1.1).
    Http(SocketAddr, String),
    /// This file exists.
    File(PathBuf),
    /// It accepts connections at this Unix socket. Its file may be that of a process that was killed.
    Unix(PathBuf),
}

impl Ready {
    /// Waits until it is so, for at most `within`. The interval grows from 5 to 100 ms: a start takes milliseconds or seconds.
    pub(super) async fn wait(&self, namespace: &NetNs, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut pause = Duration::from_millis(5);
        loop {
            if let Ok(true) = timeout(Duration::from_secs(2), self.holds(namespace)).await {
                return true;
            }
            if Instant::now() + pause >= deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(100));
        }
    }

    async fn holds(&self, namespace: &NetNs) -> bool {
        match self {
            Ready::Started => true,
            Ready::Tcp(address) => namespace.connect(*address).await.is_ok(),
            Ready::Http(address, path) => answers_ok(namespace, *address, path).await.unwrap_or(false),
            Ready::File(path) => path.exists(),
            Ready::Unix(path) => UnixStream::connect(path).await.is_ok(),
        }
    }
}

async fn answers_ok(namespace: &NetNs, address: SocketAddr, path: &str) -> std::io::Result<bool> {
    let mut stream = namespace.connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    Ok(head.starts_with(b"HTTP/1.") && head.ends_with(b" 200"))
}
