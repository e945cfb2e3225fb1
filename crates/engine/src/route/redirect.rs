//! `envoy.config.route.v3.RedirectAction`.
//!
//! Invariant: a location is a function of the request's head alone; what the action leaves out is taken from it.

use super::{Fault, HeaderOps};
use crate::error::{DecodeError, Decoded};
use crate::request::RequestHead;
use fairlead_model::Origin;
use fairlead_proto::envoy::route::{
    self as proto, redirect_action::PathRewriteSpecifier, redirect_action::SchemeRewriteSpecifier,
};
use std::sync::Arc;

/// An answer that sends the caller elsewhere.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub route_name: Arc<str>,
    pub virtual_host: Arc<str>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    pub(super) scheme: Option<Box<str>>,
    pub(super) host: Option<Box<str>>,
    pub(super) port: Option<u16>,
    pub(super) path: Option<Box<str>>,
    pub(super) strip_query: bool,
    pub response_headers: Vec<Arc<HeaderOps>>,
    pub fault: Option<Arc<Fault>>,
    pub origin: Option<Origin>,
}

/// What the action itself says.
pub(super) struct Parts {
    pub status: u16,
    pub scheme: Option<Box<str>>,
    pub host: Option<Box<str>>,
    pub port: Option<u16>,
    pub path: Option<Box<str>>,
    pub strip_query: bool,
}

impl Parts {
    pub fn decode(action: &proto::RedirectAction) -> Decoded<Self> {
        let some = |text: &str| (!text.is_empty()).then(|| Box::from(text));
        Ok(Self {
            status: match action.response_code {
                0 => 301,
                1 => 302,
                2 => 303,
                3 => 307,
                4 => 308,
                other => return Err(DecodeError::new("response_code", format!("{other} is unknown"))),
            },
            scheme: match &action.scheme_rewrite_specifier {
                None => None,
                Some(SchemeRewriteSpecifier::HttpsRedirect(on)) => on.then(|| "https".into()),
                Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => some(scheme),
            },
            host: some(&action.host_redirect),
            port: match action.port_redirect {
                0 => None,
                port => Some(
                    u16::try_from(port).map_err(|_| DecodeError::new("port_redirect", format!("{port} is no port")))?,
                ),
            },
            path: match &action.path_rewrite_specifier {
                None => None,
                Some(PathRewriteSpecifier::PathRedirect(path)) => some(path),
                Some(_) => return Err(DecodeError::unsupported("path rewriting other than path_redirect")),
            },
            strip_query: action.strip_query,
        })
    }
}

impl Redirect {
    /// Where the caller is sent: an absolute URL.
    pub fn location(&self, head: &RequestHead<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme);
        let host = self.host.as_deref().unwrap_or_else(|| self.own_host(head, scheme));
        let mut location = format!("{scheme}://{host}");
        if let Some(port) = self.port {
            location.push_str(&format!(":{port}"));
        }
        let query = head.path.find('?').and_then(|at| head.path.get(at..)).unwrap_or_default();
        match self.path.as_deref() {
            // A query that is written here takes the place of the request's.
            Some(path) if path.contains('?') => location.push_str(path),
            Some(path) => {
                location.push_str(path);
                location.push_str(if self.strip_query { "" } else { query });
            }
            None if self.strip_query => location.push_str(head.path.split('?').next().unwrap_or_default()),
            None => location.push_str(head.path),
        }
        location
    }

    /// The request's host; its port goes where another is written, and where it is the default of a scheme that changes.
    fn own_host<'a>(&self, head: &RequestHead<'a>, scheme: &str) -> &'a str {
        let host = super::config::without_port(head.authority);
        let port = &head.authority[host.len()..];
        let default = match head.scheme {
            "https" => ":443",
            _ => ":80",
        };
        if self.port.is_some() || (scheme != head.scheme && port == default) { host } else { head.authority }
    }
}
