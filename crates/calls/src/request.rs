//! The `request` of a call: `METHOD URL`, or a URL for what has no method.
//!
//! Invariant: the path is kept byte for byte as written (dot segments, escapes and backslashes are for the mesh to judge).

use serde::Serialize;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    Http,
    /// TLS made by the caller itself.
    Https,
    Ws,
    Grpc,
    Tcp,
    Tls,
    Udp,
    Dns,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    pub kind: RequestKind,
    /// `GET` when not written; `POST` for gRPC; empty for what has no method.
    pub method: String,
    pub host: String,
    /// The scheme's default when not written.
    pub port: u16,
    /// Whether the URL names the port (it is then part of the authority).
    pub explicit_port: bool,
    /// With the query; `/` when not written. For gRPC `/package.Service/Method`.
    pub path: String,
}

impl Request {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (method, url) = match text.split_once(char::is_whitespace) {
            Some((method, url)) => (Some(method), url.trim()),
            None => (None, text),
        };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| format!("`{text}`: write `METHOD SCHEME://HOST[:PORT]/PATH`"))?;
        let (kind, default_port) = match scheme {
            "http" => (RequestKind::Http, 80),
            "https" => (RequestKind::Https, 443),
            "ws" => (RequestKind::Ws, 80),
            "grpc" => (RequestKind::Grpc, 80),
            "tcp" => (RequestKind::Tcp, 0),
            "tls" => (RequestKind::Tls, 443),
            "udp" => (RequestKind::Udp, 0),
            "dns" => (RequestKind::Dns, 53),
            other => {
                return Err(format!("`{other}` is no scheme of a call: http, https, ws, grpc, tcp, tls, udp or dns"));
            }
        };
        let has_method = matches!(kind, RequestKind::Http | RequestKind::Https | RequestKind::Ws);
        if let Some(method) = method
            && !has_method
            && !(kind == RequestKind::Grpc && method == "POST")
        {
            return Err(format!("`{method}`: a {scheme} request has no method"));
        }
        let cut = rest.find(['/', '?', '\\', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let (host, port) = split_authority(authority)?;
        if host.is_empty() {
            return Err(format!("`{text}` names no host"));
        }
        let explicit_port = port.is_some();
        let port = port.unwrap_or(default_port);
        if port == 0 {
            return Err(format!("`{text}`: a {scheme} request names its port"));
        }
        let path = match path {
            "" => "/".to_owned(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_owned(),
        };
        let names_method = || {
            let service = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
            service.is_some_and(|(service, method)| !service.is_empty() && !method.is_empty() && !method.contains('/'))
        };
        if kind == RequestKind::Grpc && !names_method() {
            return Err(format!("`{text}`: write `grpc://HOST:PORT/package.Service/Method`"));
        }
        let method = match kind {
            RequestKind::Grpc => "POST".to_owned(),
            _ if has_method => method.unwrap_or("GET").to_owned(),
            _ => String::new(),
        };
        Ok(Self { kind, method, host: host.to_owned(), port, explicit_port, path })
    }

    /// The authority as a client writes it: the port only when the URL named it and it is not the scheme's.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.explicit_port { format!("{host}:{}", self.port) } else { host }
    }

    /// Whether requests are answered with an HTTP status.
    pub fn is_http(&self) -> bool {
        matches!(self.kind, RequestKind::Http | RequestKind::Https | RequestKind::Grpc | RequestKind::Ws)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.method.is_empty() && self.kind != RequestKind::Grpc {
            write!(f, "{} ", self.method)?;
        }
        let scheme = format!("{:?}", self.kind).to_lowercase();
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

fn split_authority(authority: &str) -> Result<(&str, Option<u16>), String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}` is no port"));
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| format!("`{authority}`: `]` is missing"))?;
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host, Some(port(text)?))),
            None => Ok((host, None)),
        };
    }
    match authority.rsplit_once(':') {
        Some((host, text)) => Ok((host, Some(port(text)?))),
        None => Ok((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let r = Request::parse("GET http://reviews.shop:9080/ratings/7?x=1").unwrap();
        assert_eq!((r.method.as_str(), r.host.as_str(), r.port), ("GET", "reviews.shop", 9080));
        assert_eq!((r.path.as_str(), r.authority().as_str()), ("/ratings/7?x=1", "reviews.shop:9080"));
        let r = Request::parse("grpc://cart:7070/shop.Cart/Add").unwrap();
        assert_eq!((r.method.as_str(), r.path.as_str()), ("POST", "/shop.Cart/Add"));
        assert_eq!(Request::parse("tcp://ledger:5432").unwrap().method, "");
        assert_eq!(Request::parse("dns://reviews.shop").unwrap().port, 53);
        assert_eq!(Request::parse("http://a/../b\\c").unwrap().path, "/../b\\c");
        assert_eq!(Request::parse("http://[2001:db8::1]:80/").unwrap().host, "2001:db8::1");
        for bad in ["", "GET", "ftp://x", "tcp://x", "GET tcp://x:1", "http://:80/", "http://x:99999"] {
            assert!(Request::parse(bad).is_err(), "{bad}");
        }
    }
}
