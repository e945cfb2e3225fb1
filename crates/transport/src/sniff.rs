//! What a caller speaks, from its first bytes: TLS with SNI and ALPN, HTTP/1, HTTP/2 or neither.
//!
//! It reads and puts back; it must never answer. Invariant: whatever the verdict, the stream above sees every byte.
//! (Envoy `tls_inspector` and `http_inspector`.)

use crate::client_hello::{self, ClientHello, Parsed};
use crate::stream::Raw;
use bytes::BytesMut;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// HTTP/2 connection preface (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest request line that is waited for before the bytes count as unknown.
const MAX_REQUEST_LINE: usize = 16 * 1024;
/// Bytes of empty lines before a request line.
const MAX_EMPTY: usize = 16;
/// Nothing that is sniffed is longer; what is not told apart by then is neither.
const MAX_SNIFFED: usize = 128 * 1024;
/// First read: most heads and hellos fit.
const FIRST_READ: usize = 4096;

/// Which questions to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct SniffWant {
    pub tls: bool,
    pub http: bool,
}

/// HTTP as told from the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpKind {
    Http10,
    Http11,
    Http2,
}

/// The verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sniffed {
    pub tls: Option<ClientHello>,
    pub http: Option<HttpKind>,
    /// The caller sent nothing telling in time (server-first protocols) or closed.
    pub silent: bool,
}

/// Asks the first bytes of `io`. Without `timeout` it waits for as long as the caller stays silent.
///
/// # Errors
/// The connection broke while reading.
pub async fn sniff(io: &mut Raw, want: SniffWant, timeout: Option<Duration>) -> std::io::Result<Sniffed> {
    if !want.tls && !want.http {
        return Ok(Sniffed::default());
    }
    let mut bytes = BytesMut::from(&io.take_prefix()[..]);
    let verdict = match timeout {
        None => read_until_known(io, &mut bytes, want).await,
        Some(limit) => match tokio::time::timeout(limit, read_until_known(io, &mut bytes, want)).await {
            Ok(verdict) => verdict,
            Err(_) => Ok(Sniffed { silent: true, ..Sniffed::default() }),
        },
    };
    io.put_back(bytes.freeze());
    verdict
}

async fn read_until_known(io: &mut Raw, bytes: &mut BytesMut, want: SniffWant) -> std::io::Result<Sniffed> {
    loop {
        if let Some(verdict) = verdict(bytes, want) {
            return Ok(verdict);
        }
        if bytes.len() > MAX_SNIFFED {
            return Ok(Sniffed::default());
        }
        bytes.reserve(FIRST_READ);
        if io.socket_mut().read_buf(bytes).await? == 0 {
            return Ok(Sniffed { silent: true, ..Sniffed::default() });
        }
    }
}

fn verdict(bytes: &[u8], want: SniffWant) -> Option<Sniffed> {
    if bytes.is_empty() {
        return None;
    }
    if want.tls {
        match client_hello::parse(bytes) {
            Parsed::Hello(hello) => return Some(Sniffed { tls: Some(hello), ..Sniffed::default() }),
            Parsed::More => return None,
            Parsed::NotTls => {}
        }
    }
    if want.http {
        return http_kind(bytes).map(|http| Sniffed { http, ..Sniffed::default() });
    }
    Some(Sniffed::default())
}

/// `None`: more bytes are needed. `Some(None)`: not HTTP.
pub fn http_kind(bytes: &[u8]) -> Option<Option<HttpKind>> {
    if bytes.starts_with(PREFACE) {
        return Some(Some(HttpKind::Http2));
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    // Empty lines before a request line are allowed (RFC 9112 §2.2).
    let Some(start) = bytes.iter().take(MAX_EMPTY + 1).position(|b| *b != b'\r' && *b != b'\n') else {
        return if bytes.len() > MAX_EMPTY { Some(None) } else { None };
    };
    let bytes = &bytes[start..];
    match bytes.iter().position(|b| !is_token(*b)) {
        None if bytes.len() > 32 => return Some(None),
        None => return None,
        Some(0) => return Some(None),
        Some(space) if bytes[space] != b' ' => return Some(None),
        Some(_) => {}
    }
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        return if bytes.len() > MAX_REQUEST_LINE || bytes.contains(&0) { Some(None) } else { None };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    Some(if line.ends_with(b" HTTP/1.1") {
        Some(HttpKind::Http11)
    } else if line.ends_with(b" HTTP/1.0") {
        Some(HttpKind::Http10)
    } else {
        None
    })
}

pub(crate) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Socket;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn tells_http_from_the_rest() {
        let cases: &[(&[u8], Option<Option<HttpKind>>)] = &[
            (b"GET / HTTP/1.1\r\n", Some(Some(HttpKind::Http11))),
            (b"GET / HTTP/1.0\r\n", Some(Some(HttpKind::Http10))),
            (b"\r\nGET / HTTP/1.1\r\nhost", Some(Some(HttpKind::Http11))),
            (b"GE", None),
            (b"GET /x", None),
            (b"PRI * HTTP/2.0\r\n", None),
            (PREFACE, Some(Some(HttpKind::Http2))),
            (b"\x00\x00\x00", Some(None)),
            (b"hello world\n", Some(None)),
            (b"EHLO x\r\n", Some(None)),
            (b"\r\n\r\n", None),
            (&[b'\n'; 17], Some(None)),
        ];
        for (bytes, want) in cases {
            assert_eq!(http_kind(bytes), *want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_caller_is_told_by_the_clock_and_no_byte_is_lost() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut raw = Raw::new(Socket::Memory(far));
        near.write_all(b"GE").await.unwrap();
        let want = SniffWant { tls: true, http: true };
        let verdict = sniff(&mut raw, want, Some(Duration::from_secs(1))).await.unwrap();
        assert!(verdict.silent);
        near.write_all(b"T").await.unwrap();
        let mut seen = [0; 3];
        raw.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"GET");
    }
}
