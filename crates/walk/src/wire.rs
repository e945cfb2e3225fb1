//! What travels: a connection with what is on it.
//!
//! Invariant: nothing here knows configuration; it is what a packet capture would show.

use crate::place::Place;
use fairlead_calls::call::Client;
use fairlead_engine::listener::TlsContext;
use fairlead_model::ClusterId;
use http::HeaderMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// One connection attempt with its first (and only) request or bytes.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub place: Place,
    /// Where it was sent.
    pub destination: SocketAddr,
    pub security: Security,
    pub payload: Payload,
}

/// What is on the wire beneath the payload.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    Plain,
    Tls(Arc<Hello>),
}

/// A TLS client and what it will accept.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub server_name: Option<String>,
    pub alpn: Vec<String>,
    pub certificate: Certificate,
    /// The server must be this identity; `None`: anyone is taken.
    pub expect: Option<String>,
    /// Names of which a rule of the caller wants one beside.
    pub names: Option<Arc<TlsContext>>,
    /// Whatever certificate the server shows is taken, also a program's own.
    pub anyone: bool,
}

impl Hello {
    /// The HTTP version that a program's own TLS settles on. `Err`: the handshake fails. The program's certificate is one that
    /// nobody vouches for, and it speaks HTTP only (docs/echo.md).
    pub fn with_program(&self) -> Result<Option<&'static str>, String> {
        let offers = |name: &str| self.alpn.iter().any(|offered| offered == name);
        if !self.anyone {
            return Err("nobody vouches for the program's own certificate".into());
        }
        match self.alpn.is_empty() {
            true => Ok(None),
            false if offers("h2") => Ok(Some("2")),
            false if offers("http/1.1") => Ok(None),
            false => Err("the program speaks none of the application protocols offered".into()),
        }
    }
}

/// What the client shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    None,
    /// A valid one of a member, with this SPIFFE ID. Where all members share a trust domain, `issuer`, if anybody, tells whose
    /// intermediate signed it.
    Valid {
        id: String,
        issuer: Option<ClusterId>,
    },
    /// One that no mesh workload may accept: expired, of a foreign root, or without a SPIFFE ID.
    Invalid(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Http(Arc<HttpRequest>),
    /// Bytes that are no HTTP.
    Bytes,
    /// TLS made by the program itself, not by the mesh; what is inside only the program at the end sees.
    ProgramTls {
        server_name: Option<String>,
        alpn: Vec<String>,
        inside: Option<Arc<HttpRequest>>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct HttpRequest {
    /// `1.0`, `1.1` or `2`
    pub version: &'static str,
    pub method: String,
    pub path: String,
    pub authority: String,
    pub scheme: &'static str,
    pub headers: HeaderMap,
    pub grpc: bool,
}

impl Wire {
    /// What a sniffing listener sees as application protocols.
    pub fn application_protocols(&self) -> Vec<Vec<u8>> {
        match (&self.security, &self.payload) {
            (Security::Tls(hello), _) => hello.alpn.iter().map(|p| p.clone().into_bytes()).collect(),
            (Security::Plain, Payload::ProgramTls { alpn, .. }) => {
                alpn.iter().map(|p| p.clone().into_bytes()).collect()
            }
            (Security::Plain, Payload::Http(request)) => vec![request.inspected().as_bytes().to_vec()],
            (Security::Plain, Payload::Bytes) => Vec::new(),
        }
    }

    pub fn server_name(&self) -> Option<&str> {
        match (&self.security, &self.payload) {
            (Security::Tls(hello), _) => hello.server_name.as_deref(),
            (Security::Plain, Payload::ProgramTls { server_name, .. }) => server_name.as_deref(),
            _ => None,
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.security, Security::Tls(_)) || matches!(self.payload, Payload::ProgramTls { .. })
    }
}

impl HttpRequest {
    /// What Envoy's HTTP inspector calls the version.
    pub fn inspected(&self) -> &'static str {
        match self.version {
            "2" => "h2c",
            "1.0" => "http/1.0",
            _ => "http/1.1",
        }
    }
}

/// The certificate a table's client shows.
pub(crate) fn certificate(client: &Client, own: Option<&str>, issuer: Option<ClusterId>) -> Certificate {
    use fairlead_calls::call::ClientTls;
    let word = client.certificate.as_deref();
    match (client.tls, word) {
        (Some(ClientTls::Simple | ClientTls::None), None) => Certificate::None,
        (_, None | Some("mesh")) => {
            own.map_or(Certificate::None, |id| Certificate::Valid { id: id.to_owned(), issuer })
        }
        (_, Some("expired")) => Certificate::Invalid("expired"),
        (_, Some("foreign-root")) => Certificate::Invalid("foreign root"),
        (_, Some("wrong-domain-root")) => Certificate::Invalid("another domain's root"),
        (_, Some("no-spiffe")) => Certificate::Invalid("no SPIFFE ID"),
        (_, Some(id)) => Certificate::Valid { id: id.to_owned(), issuer },
    }
}
