//! Heads on their way: the route's header operations and the `server` header.
//!
//! Invariant: operations see the request as it was routed, whatever other operations have changed meanwhile.

use super::context::{Config, HttpContext};
use super::head::Head;
use fairlead_engine::listener::ServerHeader;
use fairlead_engine::route::ValueSource;
use http::header::SERVER;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;

/// Applies a route's operations, the backend's first.
pub fn apply(
    ops: &[Arc<fairlead_engine::route::HeaderOps>],
    first: Option<&Arc<fairlead_engine::route::HeaderOps>>,
    headers: &mut HeaderMap,
    context: &HttpContext,
    head: &Head,
) {
    if ops.is_empty() && first.is_none() {
        return;
    }
    let view = head.view();
    let source = value_source(&view, context, None);
    for ops in first.into_iter().chain(ops) {
        ops.apply(headers, &source);
    }
}

/// What header values may be made of.
pub fn value_source<'a>(
    view: &'a fairlead_engine::RequestHead<'a>,
    context: &'a HttpContext,
    protocol: Option<&'static str>,
) -> ValueSource<'a> {
    let connection = &context.connection;
    ValueSource {
        head: view,
        remote: connection.remote,
        local: connection.original,
        peer: connection.principal(),
        server_name: connection.sni.as_deref(),
        protocol: protocol.unwrap_or("HTTP/1.1"),
        hostname: &context.worker.shared.hostname,
    }
}

/// `server`, as the connection manager wants it.
pub fn server_header(headers: &mut HeaderMap, config: &Config) {
    let absent = !headers.contains_key(SERVER);
    let set = match config.manager.server_header {
        ServerHeader::Overwrite => true,
        ServerHeader::AppendIfAbsent => absent,
        ServerHeader::PassThrough => false,
    };
    if set && let Ok(value) = HeaderValue::from_str(&config.manager.server_name) {
        headers.insert(SERVER, value);
    }
}
