//! Reading a request's head: the caller's words become what is routed, authorised and forwarded.
//!
//! Invariant: after this everybody (routes, policies, upstream, log) sees the same path, authority and headers.

use super::context::{Config, HttpContext};
use super::{forwarded, headers};
use crate::telemetry::{CallHead, PEER_HEADER, RequestRecord};
use fairlead_engine::errors::ProxyError;
use fairlead_engine::normalize::{self, Normalized};
use fairlead_engine::{RequestHead, RequestInfo, decide};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Version, header, request};
use std::net::IpAddr;

/// A head that may be routed.
pub struct Head {
    pub method: Method,
    pub target: PathAndQuery,
    pub authority: String,
    pub scheme: &'static str,
    pub headers: HeaderMap,
    pub version: Version,
    /// Protocol of the upgrade asked for, lower case.
    pub upgrade: Option<String>,
    /// The client behind trusted proxies.
    pub client: IpAddr,
}

/// Why a head is answered at once.
pub enum Refused {
    Error(ProxyError),
    Redirect(String),
}

impl Head {
    /// Reads, cleans and normalises; fills the record with what a log line needs.
    pub fn read(
        context: &HttpContext,
        config: &Config,
        record: &mut RequestRecord,
        parts: request::Parts,
    ) -> Result<Self, Refused> {
        let connection = &context.connection;
        let request::Parts { method, uri, version, mut headers, .. } = parts;
        record.protocol = Some(protocol_name(version));
        record.grpc = is_grpc(&headers);
        let upgrade = headers::upgrade_of(&headers, version);
        headers::strip_hop_by_hop(&mut headers, upgrade.is_some());
        headers.remove(header::EXPECT);
        if connection.inbound {
            let told = headers.get(PEER_HEADER).cloned();
            record.source = Some(connection.peer_info(told.as_ref()));
            record.from_fairlead = told.is_some() && connection.peer.is_some();
        }
        headers::strip_mesh(&mut headers);
        let authority = match uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned(),
        };
        let scheme = if connection.tls { "https" } else { "http" };
        let client = decide::client_address(&config.manager, &headers, connection.remote.ip());
        let own = context.worker.shared.identity.as_ref().map(|identity| identity.spiffe().as_str());
        forwarded::settle(&mut headers, connection, &config.manager, own);
        let target = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut head = Self { method, target, authority, scheme, headers, version, upgrade, client };
        head.describe(context, record);
        if version == Version::HTTP_10 && !config.manager.accept_http_10 {
            return Err(Refused::Error(ProxyError::LowVersion));
        }
        if head.authority.is_empty() {
            return Err(Refused::Error(ProxyError::MissingHost));
        }
        if head.method == Method::CONNECT {
            return Err(Refused::Error(ProxyError::RouteNotFound));
        }
        if let Some(wanted) = &head.upgrade
            && !config.manager.allows_upgrade(wanted)
        {
            // h2c is an offer the server may ignore (RFC 9110 §7.8): without it, it is a plain request.
            if wanted != "h2c" {
                return Err(Refused::Error(ProxyError::UpgradeRefused));
            }
            head.upgrade = None;
            head.headers.remove(header::UPGRADE);
            head.headers.remove(header::CONNECTION);
        }
        head.normalise(config, record)?;
        strip_port(&mut head.authority, context, config);
        Ok(head)
    }

    /// What decisions look at.
    pub fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method.as_str(),
            path: self.target.as_str(),
            authority: &self.authority,
            scheme: self.scheme,
            headers: &self.headers,
        }
    }

    /// What authorisation looks at.
    pub fn info<'a>(&'a self, context: &'a HttpContext) -> RequestInfo<'a> {
        RequestInfo { connection: context.connection.info(self.client), head: Some(self.view()) }
    }

    fn normalise(&mut self, config: &Config, record: &RequestRecord) -> Result<(), Refused> {
        let changed = match normalize::path(&config.manager.path, self.target.as_str()) {
            Normalized::Forward(std::borrow::Cow::Borrowed(_)) => return Ok(()),
            Normalized::Forward(std::borrow::Cow::Owned(changed)) => changed,
            Normalized::Redirect(_) if record.grpc => return Err(Refused::Error(ProxyError::PathRejected)),
            Normalized::Redirect(location) => return Err(Refused::Redirect(location)),
            Normalized::Reject => return Err(Refused::Error(ProxyError::PathRejected)),
        };
        self.target = changed.parse().map_err(|_| Refused::Error(ProxyError::PathRejected))?;
        Ok(())
    }

    fn describe(&self, context: &HttpContext, record: &mut RequestRecord) {
        if let Some(log) = &record.log {
            record.captured_request = log.capture_request(
                self.method.as_str(),
                self.target.as_str(),
                &self.authority,
                self.scheme,
                &self.headers,
            );
        }
        if context.worker.telemetry.records.is_some() {
            let id = self.headers.get(headers::REQUEST_ID).and_then(|id| id.to_str().ok());
            record.call = Some(Box::new(CallHead {
                method: self.method.to_string(),
                path: self.target.to_string(),
                authority: self.authority.clone(),
                request_id: id.map(str::to_owned),
            }));
        }
    }
}

fn strip_port(authority: &mut String, context: &HttpContext, config: &Config) {
    if !config.manager.strip_any_host_port && !config.manager.strip_matching_host_port {
        return;
    }
    if let Some((host, port)) = authority.rsplit_once(':')
        && let Ok(port) = port.parse::<u16>()
        && (config.manager.strip_any_host_port || port == context.connection.original.port())
    {
        authority.truncate(host.len());
    }
}

fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let kind = kind.as_bytes();
    kind.starts_with(b"application/grpc") && matches!(kind.get(16), None | Some(b'+' | b';'))
}
