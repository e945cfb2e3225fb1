//! The raw-head check: finds what hyper would silently repair.
//!
//! hyper drops Content-Length beside Transfer-Encoding, merges equal lengths and unfolds nothing; by the time it has
//! parsed a head the evidence is gone. This scanner follows the framing of an HTTP/1 request stream byte for byte and
//! refuses what two parsers could read differently (RFC 9112 §2.2, §5.1, §5.2, §6.1, §6.3). It must never accept what it
//! cannot frame. Invariant: it and hyper agree on where every head begins, because everything ambiguous is refused.

/// Why a request stream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    BareLineFeed,
    FoldedHeader,
    SpaceBeforeColon,
    NoColon,
    LengthAndEncoding,
    RepeatedLength,
    BadLength,
    BadEncoding,
    RepeatedHost,
    HeadTooLarge,
    BadChunk,
}

impl Refusal {
    /// Response-code detail for the access log.
    pub fn detail(self) -> &'static str {
        match self {
            Self::BareLineFeed => "http1.bare_line_feed",
            Self::FoldedHeader => "http1.folded_header",
            Self::SpaceBeforeColon => "http1.space_before_colon",
            Self::NoColon => "http1.header_without_colon",
            Self::LengthAndEncoding => "http1.content_length_and_transfer_encoding",
            Self::RepeatedLength => "http1.repeated_content_length",
            Self::BadLength => "http1.invalid_content_length",
            Self::BadEncoding => "http1.unsupported_transfer_encoding",
            Self::RepeatedHost => "http1.repeated_host",
            Self::HeadTooLarge => "http1.head_too_large",
            Self::BadChunk => "http1.invalid_chunk",
        }
    }
}

/// Where the scanner is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Between requests: no byte of a head has come.
    Idle,
    /// In a head.
    Head,
    /// In a body.
    Body,
    /// After a request that asks for an upgrade: heads again unless the upgrade happens.
    Upgrading,
}

/// Follows one connection's request stream.
#[derive(Debug)]
pub struct HeadScan {
    limit: usize,
    state: State,
    /// The part of the current line that came in earlier reads.
    partial: Vec<u8>,
    head: Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    RequestLine,
    Header,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: usize,
    length: Option<u64>,
    chunked: bool,
    host: bool,
    upgrade: bool,
}

impl HeadScan {
    /// `limit`: bytes of a head, request line and headers together.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: State::RequestLine, partial: Vec::new(), head: Head::default() }
    }

    pub fn position(&self) -> Position {
        match self.state {
            State::RequestLine if self.head.bytes == 0 && self.head.upgrade => Position::Upgrading,
            State::RequestLine if self.head.bytes == 0 => Position::Idle,
            State::RequestLine | State::Header => Position::Head,
            _ => Position::Body,
        }
    }

    /// Follows `bytes`. On refusal, gives how many of them are harmless: everything from there on must be withheld.
    ///
    /// # Errors
    /// The refusal and the offset of the offending line.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), (Refusal, usize)> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Length(left) => at += self.skip(left, bytes.len() - at, State::Length, State::RequestLine),
                State::ChunkData(left) => at += self.skip(left, bytes.len() - at, State::ChunkData, State::ChunkEnd),
                _ => {
                    let rest = &bytes[at..];
                    let Some(end) = memchr(rest) else {
                        self.hold(rest).map_err(|r| (r, at))?;
                        return Ok(());
                    };
                    let line = &rest[..=end];
                    self.line(line).map_err(|r| (r, at))?;
                    at += end + 1;
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, left: u64, have: usize, stay: fn(u64) -> State, done: State) -> usize {
        let n = left.min(have as u64);
        if n == left {
            self.state = done;
            if done == State::RequestLine {
                self.head = Head::default();
            }
        } else {
            self.state = stay(left - n);
        }
        n as usize
    }

    fn hold(&mut self, rest: &[u8]) -> Result<(), Refusal> {
        self.count(rest.len())?;
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    fn count(&mut self, n: usize) -> Result<(), Refusal> {
        self.head.bytes += n;
        if self.head.bytes > self.limit { Err(Refusal::HeadTooLarge) } else { Ok(()) }
    }

    /// `tail` ends with LF; together with `partial` it is one line.
    fn line(&mut self, tail: &[u8]) -> Result<(), Refusal> {
        self.count(tail.len())?;
        if self.partial.is_empty() {
            return self.whole_line(tail);
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(tail);
        let verdict = self.whole_line(&whole);
        whole.clear();
        self.partial = whole;
        verdict
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(Refusal::BareLineFeed) };
        match self.state {
            // Empty lines before a request line are allowed (RFC 9112 §2.2).
            State::RequestLine if line.is_empty() => self.head.bytes = 0,
            State::RequestLine => {
                self.head = Head { bytes: self.head.bytes, ..Head::default() };
                self.state = State::Header;
            }
            State::Header if line.is_empty() => self.end_of_head()?,
            State::Header => self.header(line)?,
            State::ChunkSize => self.chunk_size(line)?,
            State::ChunkEnd if line.is_empty() => self.state = State::ChunkSize,
            State::ChunkEnd => return Err(Refusal::BadChunk),
            State::Trailer if line.is_empty() => {
                self.head = Head::default();
                self.state = State::RequestLine;
            }
            State::Trailer => {
                field_name(line)?;
            }
            State::Length(_) | State::ChunkData(_) => {}
        }
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let name = field_name(line)?;
        let value = trim(&line[name.len() + 1..]);
        // Dispatch by length first: most headers are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") && std::mem::replace(&mut self.head.host, true) => {
                return Err(Refusal::RepeatedHost);
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.head.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.head.length.is_some() {
                    return Err(Refusal::RepeatedLength);
                }
                self.head.length = Some(decimal(value).ok_or(Refusal::BadLength)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.head.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::BadEncoding);
                }
                self.head.chunked = true;
            }
            _ => {}
        }
        if self.head.chunked && self.head.length.is_some() {
            return Err(Refusal::LengthAndEncoding);
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), Refusal> {
        if self.head.chunked {
            self.head.bytes = 0;
            self.state = State::ChunkSize;
        } else if let Some(length) = self.head.length.filter(|n| *n > 0) {
            self.state = State::Length(length);
        } else {
            self.head = Head { upgrade: self.head.upgrade, ..Head::default() };
            self.state = State::RequestLine;
        }
        Ok(())
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Refusal> {
        // Chunk extensions are skipped as hyper skips them; what precedes `;` must be plain hexadecimal.
        let size = line.split(|b| *b == b';').next().unwrap_or_default();
        let size = size.strip_suffix(b" ").unwrap_or(size);
        if size.is_empty() || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(Refusal::BadChunk);
        }
        let text = std::str::from_utf8(size).map_err(|_| Refusal::BadChunk)?;
        let size = u64::from_str_radix(text, 16).map_err(|_| Refusal::BadChunk)?;
        // A chunk's own line must not add up to the head limit over a long body.
        self.head.bytes = 0;
        self.state = if size == 0 { State::Trailer } else { State::ChunkData(size) };
        Ok(())
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n')
}

fn field_name(line: &[u8]) -> Result<&[u8], Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::FoldedHeader);
    }
    let colon = line.iter().position(|b| *b == b':').ok_or(Refusal::NoColon)?;
    let name = &line[..colon];
    match name.last() {
        Some(b' ' | b'\t') => Err(Refusal::SpaceBeforeColon),
        None => Err(Refusal::NoColon),
        Some(_) => Ok(name),
    }
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(value: &[u8]) -> Option<u64> {
    // 18 digits cannot overflow, and nobody sends an exabyte.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<Refusal> {
        // Whole, and byte by byte: the verdict may not depend on how the kernel cut the stream.
        let whole = HeadScan::new(1024).feed(text.as_bytes()).err().map(|(r, _)| r);
        let mut scan = HeadScan::new(1024);
        let mut cut = None;
        for b in text.as_bytes() {
            if let Err((r, _)) = scan.feed(&[*b]) {
                cut = Some(r);
                break;
            }
        }
        assert_eq!(whole, cut, "{text:?}");
        whole
    }

    #[test]
    fn refusals() {
        let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(1100));
        let cases = [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Refusal::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Refusal::BareLineFeed),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Refusal::FoldedHeader),
            ("GET / HTTP/1.1\r\nA : b\r\n\r\n", Refusal::SpaceBeforeColon),
            ("GET / HTTP/1.1\r\nAb\r\n\r\n", Refusal::NoColon),
            ("GET / HTTP/1.1\r\n: b\r\n\r\n", Refusal::NoColon),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::LengthAndEncoding),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n", Refusal::LengthAndEncoding),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Refusal::RepeatedLength),
            ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Refusal::BadLength),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Refusal::BadLength),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Refusal::BadEncoding),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Refusal::BadEncoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refusal::RepeatedHost),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n", Refusal::BadChunk),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", Refusal::BadChunk),
            (long.as_str(), Refusal::HeadTooLarge),
        ];
        for (text, want) in cases {
            assert_eq!(refused(text), Some(want), "{text:?}");
        }
    }

    #[test]
    fn good_streams_pass_and_the_position_is_known() {
        let streams = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na : bPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nT: u\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ];
        for stream in streams {
            assert_eq!(refused(stream), None, "{stream:?}");
            let mut scan = HeadScan::new(1024);
            scan.feed(stream.as_bytes()).unwrap();
            assert_eq!(scan.position(), Position::Idle);
        }
        let mut scan = HeadScan::new(1024);
        scan.feed(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").unwrap();
        assert_eq!(scan.position(), Position::Upgrading);
        scan.feed(b"GE").unwrap();
        assert_eq!(scan.position(), Position::Head);
    }
}
