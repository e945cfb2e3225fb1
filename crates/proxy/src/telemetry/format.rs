//! Envoy's access-log format strings: parsed once, then written without looking at a name again.
//!
//! Invariant: a line always has every field of its format; what is not known is `-`, as in Envoy.

use super::access_log::Story;
use super::timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::io::Write;

/// Istio's default (`EnvoyTextLogFormat`).
#[cfg(test)]
pub const ISTIO_DEFAULT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% ",
    "%ROUTE_NAME%\n"
);

/// Envoy's own default.
pub const ENVOY_DEFAULT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" ",
    "\"%UPSTREAM_HOST%\"\n"
);

/// A parsed format.
#[derive(Debug)]
pub struct Format {
    parts: Vec<Part>,
    /// Request headers the format shows, in the order of their slots.
    request: Vec<Wanted>,
    response: Vec<Wanted>,
}

/// A header to show, or another where the first is missing.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    first: Header,
    second: Option<Header>,
}

#[derive(Debug, PartialEq, Eq)]
enum Header {
    Method,
    Path,
    Authority,
    Scheme,
    Named(HeaderName),
    /// No header can have this name.
    Impossible,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Request(usize, usize),
    Response(usize, usize),
    Field(Field),
}

macro_rules! fields {
    ($($name:ident = $text:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Field { $($name,)* Unknown }
        impl Field {
            fn parse(name: &str) -> Self {
                match name { $($text => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

fields! {
    StartTime = "START_TIME",
    Protocol = "PROTOCOL",
    Code = "RESPONSE_CODE",
    Flags = "RESPONSE_FLAGS",
    Details = "RESPONSE_CODE_DETAILS",
    Termination = "CONNECTION_TERMINATION_DETAILS",
    UpstreamFailure = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    Received = "BYTES_RECEIVED",
    Sent = "BYTES_SENT",
    Duration = "DURATION",
    UpstreamHost = "UPSTREAM_HOST",
    UpstreamCluster = "UPSTREAM_CLUSTER",
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    UpstreamLocal = "UPSTREAM_LOCAL_ADDRESS",
    DownstreamLocal = "DOWNSTREAM_LOCAL_ADDRESS",
    DownstreamRemote = "DOWNSTREAM_REMOTE_ADDRESS",
    DownstreamRemoteIp = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamPeer = "DOWNSTREAM_PEER_URI_SAN",
    ServerName = "REQUESTED_SERVER_NAME",
    Route = "ROUTE_NAME",
    FilterChain = "FILTER_CHAIN_NAME",
    Attempts = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    GrpcStatus = "GRPC_STATUS_NUMBER",
}

/// What a format shows of one message.
#[derive(Debug, Default)]
pub struct Captured(Vec<Option<HeaderValue>>);

impl Format {
    /// Reads a format string. Operators this proxy does not have are written as `-`.
    pub fn parse(text: &str) -> Self {
        let mut format = Self { parts: Vec::new(), request: Vec::new(), response: Vec::new() };
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            format.text(&rest[..start]);
            let after = &rest[start + 1..];
            if let Some(tail) = after.strip_prefix('%') {
                format.text("%");
                rest = tail;
                continue;
            }
            let Some(end) = operator_end(after) else {
                format.text(&rest[start..]);
                return format;
            };
            format.operator(&after[..end]);
            rest = &after[end + 1..];
        }
        format.text(rest);
        format
    }

    /// Keeps what the format shows of a request.
    pub fn capture_request(
        &self,
        method: &str,
        path: &str,
        authority: &str,
        scheme: &str,
        headers: &HeaderMap,
    ) -> Captured {
        let read = |header: &Header| match header {
            Header::Method => HeaderValue::from_str(method).ok(),
            Header::Path => HeaderValue::from_str(path).ok(),
            Header::Authority => HeaderValue::from_str(authority).ok().filter(|v| !v.is_empty()),
            Header::Scheme => HeaderValue::from_str(scheme).ok(),
            Header::Named(name) => headers.get(name).cloned(),
            Header::Impossible => None,
        };
        Captured(self.request.iter().map(|w| read(&w.first).or_else(|| w.second.as_ref().and_then(read))).collect())
    }

    /// Keeps what the format shows of a response.
    pub fn capture_response(&self, headers: &HeaderMap) -> Captured {
        let read = |header: &Header| match header {
            Header::Named(name) => headers.get(name).cloned(),
            _ => None,
        };
        Captured(self.response.iter().map(|w| read(&w.first).or_else(|| w.second.as_ref().and_then(read))).collect())
    }

    /// Appends one line.
    pub fn write(&self, story: &Story<'_>, request: &Captured, response: &Captured, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Request(slot, limit) => write_value(request, *slot, *limit, out),
                Part::Response(slot, limit) => write_value(response, *slot, *limit, out),
                Part::Field(field) => write_field(*field, story, out),
            }
        }
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.parts.push(Part::Text(text.into()));
        }
    }

    fn operator(&mut self, text: &str) {
        let (body, limit) = match text.rsplit_once("):") {
            Some((body, limit)) => (format!("{body})"), limit.parse().unwrap_or(usize::MAX)),
            None => (text.to_owned(), usize::MAX),
        };
        let (name, argument) = match body.strip_suffix(')').and_then(|b| b.split_once('(')) {
            Some((name, argument)) => (name, Some(argument)),
            None => (body.as_str(), None),
        };
        match (name, argument) {
            ("REQ", Some(argument)) => {
                self.request.push(Wanted::parse(argument));
                self.parts.push(Part::Request(self.request.len() - 1, limit));
            }
            ("RESP", Some(argument)) => {
                self.response.push(Wanted::parse(argument));
                self.parts.push(Part::Response(self.response.len() - 1, limit));
            }
            _ => self.parts.push(Part::Field(Field::parse(name))),
        }
    }
}

impl Wanted {
    fn parse(argument: &str) -> Self {
        match argument.split_once('?') {
            Some((first, second)) => Self { first: Header::parse(first), second: Some(Header::parse(second)) },
            None => Self { first: Header::parse(argument), second: None },
        }
    }
}

impl Header {
    fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            other => HeaderName::from_bytes(other.as_bytes()).map_or(Self::Impossible, Self::Named),
        }
    }
}

fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '%' if depth == 0 => return Some(i),
            _ => {}
        }
    }
    None
}

fn write_value(captured: &Captured, slot: usize, limit: usize, out: &mut Vec<u8>) {
    match captured.0.get(slot).and_then(Option::as_ref) {
        Some(value) => {
            let bytes = value.as_bytes();
            out.extend_from_slice(&bytes[..bytes.len().min(limit)]);
        }
        None => out.push(b'-'),
    }
}

fn write_field(field: Field, story: &Story<'_>, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    macro_rules! put {
        ($value:expr) => {
            match $value {
                Some(value) => {
                    let _ = write!(out, "{value}");
                }
                None => out.push(b'-'),
            }
        };
    }
    macro_rules! both {
        ($r:ident => $value:expr) => {
            match story {
                Story::Http($r) => $value,
                Story::Tcp($r) => $value,
            }
        };
    }
    let http = match story {
        Story::Http(record) => Some(*record),
        Story::Tcp(_) => None,
    };
    let connection = both!(r => &r.connection);
    match field {
        Field::StartTime => timestamp::write(both!(r => r.started_wall), out),
        Field::Protocol => put!(http.and_then(|r| r.protocol)),
        // Envoy writes 0 where there is no HTTP response.
        Field::Code => put!(Some(http.map_or(0, |r| r.code))),
        Field::Flags => put!(Some(both!(r => r.flags))),
        Field::Details => put!(both!(r => Some(&r.details).filter(|d| !d.is_empty()).map(|d| d.replace(' ', "_")))),
        Field::Termination => put!(both!(r => r.termination.as_ref())),
        Field::UpstreamFailure => put!(both!(r => r.upstream_failure.as_ref().map(|t| t.replace([' ', '"'], "_")))),
        Field::Received => put!(Some(match story {
            Story::Http(r) => r.received.get(),
            Story::Tcp(r) => r.received,
        })),
        Field::Sent => put!(Some(match story {
            Story::Http(r) => r.sent.get(),
            Story::Tcp(r) => r.sent,
        })),
        Field::Duration => put!(Some(both!(r => r.started.elapsed().as_millis()))),
        Field::UpstreamHost => put!(match story {
            Story::Http(r) => r.upstream_host(),
            Story::Tcp(r) => r.upstream_host(),
        }),
        Field::UpstreamCluster | Field::UpstreamClusterRaw => {
            put!(both!(r => r.upstream.as_ref().map(|u| &u.cluster.name)))
        }
        Field::UpstreamLocal => put!(both!(r => r.upstream_local)),
        Field::DownstreamLocal => put!(Some(connection.original)),
        Field::DownstreamRemote => put!(Some(connection.remote)),
        Field::DownstreamRemoteIp => put!(Some(connection.remote.ip())),
        Field::DownstreamPeer => put!(connection.principal()),
        Field::ServerName => put!(connection.sni.as_deref()),
        Field::Route => put!(http.and_then(|r| r.route_name())),
        Field::FilterChain => put!(Some(&connection.chain.name)),
        Field::Attempts => put!(Some(both!(r => r.attempts))),
        Field::GrpcStatus => put!(http.and_then(|r| r.grpc_status)),
        Field::Unknown => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_arguments_alternatives_and_lengths() {
        let format = Format::parse("a %REQ(X-A?:PATH):4% %%b %NONSENSE(x)% %RESPONSE_CODE%\n");
        assert_eq!(format.request.len(), 1);
        assert_eq!(
            format.parts,
            [
                Part::Text("a ".into()),
                Part::Request(0, 4),
                Part::Text(" ".into()),
                Part::Text("%".into()),
                Part::Text("b ".into()),
                Part::Field(Field::Unknown),
                Part::Text(" ".into()),
                Part::Field(Field::Code),
                Part::Text("\n".into()),
            ]
        );
        let captured = format.capture_request("GET", "/a/b/c", "h", "http", &HeaderMap::new());
        let mut out = Vec::new();
        write_value(&captured, 0, 4, &mut out);
        assert_eq!(out, b"/a/b");
    }

    #[test]
    fn the_defaults_have_no_unknown_operator() {
        for text in [ISTIO_DEFAULT, ENVOY_DEFAULT] {
            assert!(!Format::parse(text).parts.contains(&Part::Field(Field::Unknown)));
        }
    }
}
