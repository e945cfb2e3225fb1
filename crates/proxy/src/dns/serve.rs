//! The sockets of the DNS server, UDP and TCP.
//!
//! Runs on the control thread: a question must never wait for traffic, nor traffic for a question. Invariant: a foreign
//! question is forwarded as it came, byte for byte.

use super::answer::{Answer, answer, unknown};
use super::table::DnsTable;
use arc_swap::ArcSwap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// How long an upstream resolver may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// A TCP client that says nothing is let go (RFC 7766 §6.2.3 asks for seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Forwarded questions in flight; more are dropped and asked again by their stub resolver.
const MAX_FORWARDED: usize = 256;
/// UDP replies without EDNS (RFC 1035 §4.2.1).
const UDP_LIMIT: usize = 512;

/// The workload's own resolvers, asked in order.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    pub servers: Vec<SocketAddr>,
    /// `SO_MARK`, so that capture lets forwarded questions pass.
    pub mark: Option<u32>,
}

/// A DNS server over one table that may be replaced at any time.
pub struct DnsServer {
    table: Arc<ArcSwap<DnsTable>>,
    upstreams: Upstreams,
    forwarding: Semaphore,
}

impl DnsServer {
    pub fn new(table: Arc<ArcSwap<DnsTable>>, upstreams: Upstreams) -> Arc<Self> {
        Arc::new(Self { table, upstreams, forwarding: Semaphore::new(MAX_FORWARDED) })
    }

    /// Serves until the socket fails.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket) -> io::Result<()> {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; 4096];
        loop {
            let (n, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An ICMP answer to an earlier reply surfaces here; it is about that reply only.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(e) => return Err(e),
            };
            let question = &buffer[..n];
            match answer(&self.table.load(), question, UDP_LIMIT) {
                Answer::Reply(reply) => {
                    let _ = socket.send_to(&reply, peer).await;
                }
                Answer::Ignore => {}
                Answer::Forward => {
                    let (server, socket, question) = (self.clone(), socket.clone(), question.to_vec());
                    tokio::spawn(async move {
                        if let Some(reply) = server.forward(&question).await {
                            let _ = socket.send_to(&reply, peer).await;
                        }
                    });
                }
            }
        }
    }

    /// Serves until the listener fails.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let server = self.clone();
            tokio::spawn(async move {
                let _ = server.serve_stream(stream).await;
            });
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut question = Vec::new();
            let read = async {
                let length = stream.read_u16().await?;
                question.resize(usize::from(length), 0);
                stream.read_exact(&mut question).await.map(|_| ())
            };
            tokio::time::timeout(TCP_IDLE, read).await??;
            let reply = match answer(&self.table.load(), &question, usize::from(u16::MAX)) {
                Answer::Reply(reply) => Some(reply),
                Answer::Ignore => None,
                Answer::Forward => self.forward(&question).await,
            };
            let Some(reply) = reply else { return Ok(()) };
            let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
            framed.extend_from_slice(&reply);
            stream.write_all(&framed).await?;
        }
    }

    async fn forward(&self, question: &[u8]) -> Option<Vec<u8>> {
        let _permit = self.forwarding.try_acquire().ok()?;
        for server in &self.upstreams.servers {
            if let Ok(Ok(reply)) = tokio::time::timeout(PATIENCE, self.upstreams.ask(*server, question)).await {
                return Some(reply);
            }
        }
        unknown(question)
    }
}

impl Upstreams {
    /// One question to one resolver, marked so that capture lets it pass.
    pub(super) async fn ask(&self, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        // A socket of its own per question: the kernel's random port is half of the protection against forged replies.
        let socket = UdpSocket::bind(any).await?;
        if let Some(mark) = self.mark {
            fairlead_transport::socket::mark(&socket, mark)?;
        }
        socket.connect(server).await?;
        socket.send(question).await?;
        let mut reply = vec![0; 4096];
        loop {
            let n = socket.recv(&mut reply).await?;
            if n >= 2 && reply[..2] == question[..2] {
                reply.truncate(n);
                return Ok(reply);
            }
        }
    }
}
