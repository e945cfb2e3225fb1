//! What a request or connection looks like to a decision: borrowed, parsed once by the caller, never changed here.
//!
//! Invariant: nothing here is decoded per decision; a `RequestHead` is a view of what the codec already holds.

use http::HeaderMap;
use std::net::{IpAddr, SocketAddr};

/// The head of one HTTP request as decisions see it: after path normalisation, before header operations.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// `GET`; case matters.
    pub method: &'a str,
    /// Path with query, as in `:path` (`/a/b?x=1`).
    pub path: &'a str,
    /// `:authority` or `Host`, with port if there is one.
    pub authority: &'a str,
    /// `http` or `https`, as the downstream connection had it.
    pub scheme: &'a str,
    /// All other headers. A `host` entry is not looked at: `authority` stands for it.
    pub headers: &'a HeaderMap,
}

/// What is known of a connection when access is decided.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo<'a> {
    /// Whether the connection came over TLS that this proxy terminated.
    pub tls: bool,
    /// The caller's verified SPIFFE ID (`spiffe://…`), if it has shown one.
    pub peer: Option<&'a str>,
    /// Address of the socket's other end (RBAC `direct_remote_ip`).
    pub direct_remote: IpAddr,
    /// Address of the client after PROXY protocol and `x-forwarded-for` (RBAC `remote_ip`); without those, the same.
    pub remote: IpAddr,
    /// Original destination (RBAC `destination_ip`, `destination_port`).
    pub local: SocketAddr,
    /// Server name the client asked for, lower case.
    pub server_name: Option<&'a str>,
}

/// One request, or one TCP connection when `head` is `None`, up for authorisation.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo<'a> {
    pub connection: ConnectionInfo<'a>,
    pub head: Option<RequestHead<'a>>,
}

impl<'a> RequestHead<'a> {
    /// Path without query and fragment.
    pub fn path_only(&self) -> &'a str {
        path_only(self.path)
    }

    /// Query string without `?` and fragment, if there is one.
    pub fn query(&self) -> Option<&'a str> {
        let before_fragment = self.path.split('#').next().unwrap_or_default();
        before_fragment.split_once('?').map(|(_, query)| query)
    }

    /// Whether this is a gRPC request, by its content type (`application/grpc` or `application/grpc+…`).
    pub fn is_grpc(&self) -> bool {
        let Some(kind) = self.headers.get(http::header::CONTENT_TYPE) else { return false };
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && matches!(kind.get(16), None | Some(b'+') | Some(b';'))
    }
}

/// Cuts query and fragment off a `:path`.
pub(crate) fn path_only(path: &str) -> &str {
    let end = path.bytes().position(|b| b == b'?' || b == b'#').unwrap_or(path.len());
    &path[..end]
}
