//! One keep-alive HTTP/1.1 connection of the generator: one request at a time, plain or over TLS.
//!
//! Written on bare sockets, since it shares a core with the upstream. Invariant: a response that is not a complete 200 of
//! the expected framing is an error, never a success.

use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// The only request there is.
pub const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nhost: bench.local\r\nuser-agent: fairlead-bench\r\n\r\n";
/// Name in the proxies' certificate.
pub const SERVER_NAME: &str = "bench.local";

pub struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    buffer: Box<[u8]>,
    filled: usize,
    /// Length of the whole response once its head is there.
    whole: Option<usize>,
    /// When the request in flight was due, in nanoseconds of the run.
    pub due: u64,
}

impl Connection {
    /// Connects and finishes the TLS handshake; afterwards the socket does not block.
    pub fn open(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        let tls = match tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from(SERVER_NAME)?;
                let mut session = Box::new(ClientConnection::new(config.clone(), name)?);
                while session.is_handshaking() {
                    session.complete_io(&mut socket).context("TLS handshake")?;
                }
                Some(session)
            }
        };
        socket.set_nonblocking(true)?;
        Ok(Self { socket, tls, buffer: vec![0; 16 * 1024].into(), filled: 0, whole: None, due: 0 })
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends the request that was due at `due`.
    pub fn send(&mut self, due: u64) -> anyhow::Result<()> {
        self.due = due;
        match &mut self.tls {
            None => self.socket.write_all(REQUEST).context("send")?,
            Some(session) => {
                session.writer().write_all(REQUEST)?;
                while session.wants_write() {
                    session.write_tls(&mut self.socket).context("send over TLS")?;
                }
            }
        }
        Ok(())
    }

    /// Reads what there is. `true`: the response is complete.
    pub fn receive(&mut self) -> anyhow::Result<bool> {
        match &mut self.tls {
            None => match self.socket.read(&mut self.buffer[self.filled..]) {
                Ok(0) => bail!("the proxy closed the connection"),
                Ok(n) => self.filled += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e).context("receive"),
            },
            Some(session) => {
                match session.read_tls(&mut self.socket) {
                    Ok(0) => bail!("the proxy closed the connection"),
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(e).context("receive"),
                }
                session.process_new_packets().context("receive over TLS")?;
                match session.reader().read(&mut self.buffer[self.filled..]) {
                    Ok(0) => bail!("the proxy closed the session"),
                    Ok(n) => self.filled += n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e).context("receive over TLS"),
                }
            }
        }
        self.complete()
    }

    fn complete(&mut self) -> anyhow::Result<bool> {
        let seen = &self.buffer[..self.filled];
        let whole = match self.whole {
            Some(whole) => whole,
            None => match response_length(seen)? {
                Some(whole) if whole <= self.buffer.len() => *self.whole.insert(whole),
                Some(whole) => bail!("a response of {whole} bytes"),
                None => return Ok(false),
            },
        };
        if self.filled < whole {
            return Ok(false);
        }
        if self.filled > whole {
            bail!("{} bytes after the response", self.filled - whole);
        }
        self.filled = 0;
        self.whole = None;
        Ok(true)
    }
}

/// Length of head and body, once the head is complete.
fn response_length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    if !bytes.starts_with(b"HTTP/1.1 200") {
        bail!("the proxy answered {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    }
    for line in bytes[..end].split(|b| *b == b'\n').skip(1) {
        const LENGTH: &[u8] = b"content-length:";
        if line.len() > LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH) {
            let length: usize = std::str::from_utf8(&line[LENGTH.len()..])?.trim().parse().context("content-length")?;
            return Ok(Some(end + 4 + length));
        }
    }
    bail!("a response without content-length: {:?}", String::from_utf8_lossy(&bytes[..end]))
}

#[cfg(test)]
mod tests {
    use super::response_length;

    #[test]
    fn responses_are_framed_or_refused() {
        assert_eq!(response_length(b"HTTP/1.1 200 OK\r\nConte").unwrap(), None);
        assert_eq!(response_length(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").unwrap(), Some(41));
        assert!(response_length(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(response_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
