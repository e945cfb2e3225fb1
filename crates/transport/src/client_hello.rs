//! Reads server name and ALPN from a TLS ClientHello without terminating TLS.
//!
//! It must never trust a length: every read is bounded by the slice. Invariant: `Parsed::More` is only answered while
//! the bytes so far are a valid beginning and below [`MAX_HELLO`]. (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301 §3.1.)

/// Bytes of records that a ClientHello may span; Envoy's tls_inspector allows 64 KiB, hybrid key shares need about 2 KiB.
pub const MAX_HELLO: usize = 64 * 1024;
/// ALPN names kept; more are ignored.
const MAX_ALPN: usize = 16;

const RECORD_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower-cased server name.
    pub sni: Option<String>,
    pub alpn: Vec<String>,
}

/// What can be said of the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Hello(ClientHello),
    More,
    NotTls,
}

/// Parses the beginning of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    match handshake_bytes(bytes) {
        Records::Whole(message) => match hello(&message) {
            Some(hello) => Parsed::Hello(hello),
            None => Parsed::NotTls,
        },
        Records::More => Parsed::More,
        Records::NotTls => Parsed::NotTls,
    }
}

enum Records {
    Whole(Vec<u8>),
    More,
    NotTls,
}

/// Joins the handshake records until the ClientHello is whole.
fn handshake_bytes(mut bytes: &[u8]) -> Records {
    let mut message = Vec::new();
    let mut taken = 0;
    loop {
        let Some(&kind) = bytes.first() else { return Records::More };
        if kind != RECORD_HANDSHAKE {
            return Records::NotTls;
        }
        if bytes.get(1).is_some_and(|major| *major != 3) {
            return Records::NotTls;
        }
        let Some(header) = bytes.get(..5) else { return Records::More };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // RFC 8446 §5.1: a handshake record is never empty and holds at most 2^14 bytes.
        if length == 0 || length > 1 << 14 {
            return Records::NotTls;
        }
        let body = &bytes[5..];
        let part = &body[..length.min(body.len())];
        message.extend_from_slice(part);
        taken += 5 + part.len();
        if message.first().is_some_and(|kind| *kind != HANDSHAKE_CLIENT_HELLO) {
            return Records::NotTls;
        }
        if let [_, a, b, c, ..] = message[..] {
            let want = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if want > MAX_HELLO {
                return Records::NotTls;
            }
            if message.len() >= want {
                message.truncate(want);
                return Records::Whole(message);
            }
        }
        if taken > MAX_HELLO {
            return Records::NotTls;
        }
        if body.len() < length {
            return Records::More;
        }
        bytes = &body[length..];
    }
}

fn hello(message: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(message.get(4..)?);
    reader.take(2 + 32)?;
    let session = reader.u8()?;
    reader.take(usize::from(session))?;
    let ciphers = reader.u16()?;
    reader.take(usize::from(ciphers))?;
    let compression = reader.u8()?;
    reader.take(usize::from(compression))?;
    let mut found = ClientHello::default();
    if reader.0.is_empty() {
        return Some(found);
    }
    let length = reader.u16()?;
    let mut extensions = Reader(reader.take(usize::from(length))?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let body = Reader(extensions.take(usize::from(length))?);
        match kind {
            EXTENSION_SERVER_NAME => found.sni = server_name(body),
            EXTENSION_ALPN => found.alpn = alpn(body)?,
            _ => {}
        }
    }
    Some(found)
}

fn server_name(mut body: Reader<'_>) -> Option<String> {
    let length = body.u16()?;
    let mut list = Reader(body.take(usize::from(length))?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let length = list.u16()?;
        let name = list.take(usize::from(length))?;
        if kind == 0 {
            let name = std::str::from_utf8(name).ok()?;
            return (!name.is_empty()).then(|| name.to_ascii_lowercase());
        }
    }
    None
}

fn alpn(mut body: Reader<'_>) -> Option<Vec<String>> {
    let length = body.u16()?;
    let mut list = Reader(body.take(usize::from(length))?);
    let mut names = Vec::new();
    while !list.0.is_empty() && names.len() < MAX_ALPN {
        let length = list.u8()?;
        let name = list.take(usize::from(length))?;
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Some(names)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        if n > self.0.len() {
            return None;
        }
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sni: &str, alpn: &[&str]) -> Vec<u8> {
        let mut extensions = Vec::new();
        let name = sni.as_bytes();
        extensions.extend_from_slice(&[0, 0]);
        extensions.extend_from_slice(&((name.len() + 5) as u16).to_be_bytes());
        extensions.extend_from_slice(&((name.len() + 3) as u16).to_be_bytes());
        extensions.push(0);
        extensions.extend_from_slice(&(name.len() as u16).to_be_bytes());
        extensions.extend_from_slice(name);
        let list: Vec<u8> =
            alpn.iter().flat_map(|a| std::iter::once(a.len() as u8).chain(a.bytes()).collect::<Vec<_>>()).collect();
        extensions.extend_from_slice(&[0, 16]);
        extensions.extend_from_slice(&((list.len() + 2) as u16).to_be_bytes());
        extensions.extend_from_slice(&(list.len() as u16).to_be_bytes());
        extensions.extend_from_slice(&list);
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend_from_slice(&[0, 2, 0x13, 1, 1, 0]);
        body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(&extensions);
        let mut message = vec![1, 0];
        message.extend_from_slice(&(body.len() as u16).to_be_bytes());
        message.extend_from_slice(&body);
        message
    }

    fn record(part: &[u8]) -> Vec<u8> {
        let mut bytes = vec![22, 3, 1];
        bytes.extend_from_slice(&(part.len() as u16).to_be_bytes());
        bytes.extend_from_slice(part);
        bytes
    }

    #[test]
    fn reads_name_and_alpn() {
        let bytes = record(&sample("outbound_.9080_._.Reviews.shop", &["istio-h2", "istio"]));
        let Parsed::Hello(hello) = parse(&bytes) else { panic!("not parsed") };
        assert_eq!(hello.sni.as_deref(), Some("outbound_.9080_._.reviews.shop"));
        assert_eq!(hello.alpn, ["istio-h2", "istio"]);
    }

    #[test]
    fn every_prefix_asks_for_more_and_split_records_join() {
        let message = sample("a.b", &["h2"]);
        let mut bytes = record(&message[..10]);
        bytes.extend(record(&message[10..]));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::More, "prefix of {end}");
        }
        assert!(matches!(parse(&bytes), Parsed::Hello(_)));
    }

    #[test]
    fn garbage_never_panics_and_is_not_tls() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::NotTls);
        assert_eq!(parse(&[22, 3, 1, 0, 0, 1]), Parsed::NotTls);
        let mut bytes = record(&sample("a.b", &["h2"]));
        for i in 5..bytes.len() {
            let old = bytes[i];
            for bad in [0, 255, old.wrapping_add(1)] {
                bytes[i] = bad;
                let _ = parse(&bytes);
            }
            bytes[i] = old;
        }
    }
}
