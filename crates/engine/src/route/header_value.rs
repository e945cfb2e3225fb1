//! Values of added headers: literal text with Envoy's `%OPERATOR%`s.
//!
//! Invariant: an operator this proxy does not know is a decode error of the route, never an empty header.

use crate::error::{DecodeError, Decoded};
use crate::request::RequestHead;
use std::net::SocketAddr;

/// A decoded value. Most are one literal, which needs no formatting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderValueTemplate(pub(crate) Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(Box<str>),
    Operator(Operator),
}

/// Envoy's command operators that can stand in header values here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `%REQ(NAME?ALTERNATIVE):MAX%`
    Request {
        name: Box<str>,
        alternative: Option<Box<str>>,
        max: Option<usize>,
    },
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamPeerUriSan,
    RequestedServerName,
    Protocol,
    Hostname,
}

/// What operators read.
#[derive(Clone, Copy, Debug)]
pub struct ValueSource<'a> {
    pub head: &'a RequestHead<'a>,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub peer: Option<&'a str>,
    pub server_name: Option<&'a str>,
    /// `HTTP/1.1`
    pub protocol: &'a str,
    pub hostname: &'a str,
}

impl HeaderValueTemplate {
    /// Reads a value; `%%` is a percent sign.
    ///
    /// # Errors
    /// On an unknown operator or one that is not closed.
    pub fn parse(value: &str) -> Decoded<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (operator, after) = split_operator(after).ok_or_else(|| {
                DecodeError::new("value", format!("{value:?}: an operator is not closed; write %% for %"))
            })?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Operator(Operator::parse(operator)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self(parts))
    }

    /// The value when it does not depend on the request.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The value for one request; an operator without a value gives `-`, as in Envoy.
    pub fn format(&self, source: &ValueSource<'_>) -> Vec<u8> {
        let mut value = Vec::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => value.extend_from_slice(text.as_bytes()),
                Part::Operator(operator) => operator.write(source, &mut value),
            }
        }
        // A single operator without a value adds no header in Envoy.
        if self.0.len() == 1 && value == b"-" {
            value.clear();
        }
        value
    }
}

impl Operator {
    fn parse(text: &str) -> Decoded<Self> {
        Ok(match text {
            "DOWNSTREAM_REMOTE_ADDRESS" => Self::DownstreamRemoteAddress,
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Self::DownstreamRemoteAddressWithoutPort,
            "DOWNSTREAM_LOCAL_ADDRESS" => Self::DownstreamLocalAddress,
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Self::DownstreamLocalAddressWithoutPort,
            "DOWNSTREAM_LOCAL_PORT" => Self::DownstreamLocalPort,
            "DOWNSTREAM_PEER_URI_SAN" => Self::DownstreamPeerUriSan,
            "REQUESTED_SERVER_NAME" => Self::RequestedServerName,
            "PROTOCOL" => Self::Protocol,
            "HOSTNAME" => Self::Hostname,
            _ => return Self::parse_request(text),
        })
    }

    fn parse_request(text: &str) -> Decoded<Self> {
        let unknown = || DecodeError::new("value", format!("unknown operator %{text}%"));
        let inner = text.strip_prefix("REQ(").ok_or_else(unknown)?;
        let (names, tail) = inner.split_once(')').ok_or_else(unknown)?;
        let max = match tail {
            "" => None,
            tail => Some(tail.strip_prefix(':').and_then(|max| max.parse().ok()).ok_or_else(unknown)?),
        };
        let (name, alternative) = match names.split_once('?') {
            Some((name, alternative)) => (name, Some(alternative.to_ascii_lowercase().into())),
            None => (names, None),
        };
        Ok(Self::Request { name: name.to_ascii_lowercase().into(), alternative, max })
    }

    fn write(&self, source: &ValueSource<'_>, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: &str| out.extend_from_slice(text.as_bytes());
        match self {
            Self::Request { name, alternative, max } => {
                let found = request_value(source.head, name)
                    .or_else(|| alternative.as_ref().and_then(|name| request_value(source.head, name)));
                let value = found.unwrap_or(b"-");
                out.extend_from_slice(&value[..value.len().min(max.unwrap_or(usize::MAX))]);
            }
            Self::DownstreamRemoteAddress => text(out, &source.remote.to_string()),
            Self::DownstreamRemoteAddressWithoutPort => text(out, &source.remote.ip().to_string()),
            Self::DownstreamLocalAddress => text(out, &source.local.to_string()),
            Self::DownstreamLocalAddressWithoutPort => text(out, &source.local.ip().to_string()),
            Self::DownstreamLocalPort => text(out, &source.local.port().to_string()),
            Self::DownstreamPeerUriSan => text(out, source.peer.unwrap_or("-")),
            Self::RequestedServerName => text(out, source.server_name.unwrap_or("-")),
            Self::Protocol => text(out, source.protocol),
            Self::Hostname => text(out, source.hostname),
        }
    }
}

fn request_value<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a [u8]> {
    match name {
        ":method" => Some(head.method.as_bytes()),
        ":path" => Some(head.path.as_bytes()),
        ":authority" | "host" => Some(head.authority.as_bytes()),
        ":scheme" => Some(head.scheme.as_bytes()),
        name => head.headers.get(name).map(http::HeaderValue::as_bytes),
    }
}

/// Splits `REQ(a%b):3%rest` at the percent sign that closes the operator.
fn split_operator(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0i32;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '%' if depth <= 0 => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let headers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-user"),
            http::HeaderValue::from_static("jason"),
        )]);
        let head = RequestHead { method: "GET", path: "/p", authority: "a:1", scheme: "http", headers: &headers };
        let source = ValueSource {
            head: &head,
            remote: "192.0.2.1:5".parse().unwrap(),
            local: "192.0.2.2:6".parse().unwrap(),
            peer: None,
            server_name: None,
            protocol: "HTTP/1.1",
            hostname: "h",
        };
        let table = [
            ("plain", "plain"),
            ("100%%", "100%"),
            ("u=%REQ(X-User):3%!", "u=jas!"),
            ("%REQ(X-None?:path)%", "/p"),
            ("%REQ(x-none)%", ""),
            ("<%DOWNSTREAM_PEER_URI_SAN%>", "<->"),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "192.0.2.1"),
        ];
        for (template, value) in table {
            let template = HeaderValueTemplate::parse(template).unwrap();
            assert_eq!(template.format(&source), value.as_bytes(), "{template:?}");
        }
        assert!(HeaderValueTemplate::parse("50% off").is_err());
        assert!(HeaderValueTemplate::parse("%NOSUCH%").is_err());
    }
}
