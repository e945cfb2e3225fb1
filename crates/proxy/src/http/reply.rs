//! Answers of the proxy's own: errors, denials, direct responses, redirects.
//!
//! Texts are Envoy's. Invariant: a gRPC caller gets `grpc-status`, and a peer that is a Fairlead proxy is told whether the
//! program has seen the request.

use super::grpc;
use super::headers::NOT_DELIVERED;
use super::response_body::ResponseBody;
use crate::telemetry::{Flags, RequestRecord};
use bytes::Bytes;
use fairlead_engine::errors::{ProxyError, grpc_status_of};
use fairlead_engine::route::Abort;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use std::borrow::Cow;

/// Set beside an error when the program had the request and broke off before it answered: a caller's proxy may repeat what
/// is safe to repeat, as it would after a reset.
pub const PROGRAM_RESET: HeaderName = HeaderName::from_static("x-fairlead-program-reset");

/// Answers a failure and writes it into the record.
pub fn failure(
    mut record: Box<RequestRecord>,
    error: ProxyError,
    reason: Option<&str>,
    sent: bool,
) -> Response<ResponseBody> {
    let meaning = error.meaning();
    record.flags.insert(Flags::parse(meaning.flag));
    if record.details.is_empty() {
        record.details = Cow::Borrowed(meaning.details);
    }
    if record.upstream_failure.is_none() && error.meaning().flag == "UF" {
        record.upstream_failure = reason.map(str::to_owned);
    }
    let status = StatusCode::from_u16(meaning.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = text(record, status, &body_of(error, reason));
    mark(&mut response, error, sent);
    response
}

/// 403.
pub fn denied(record: Box<RequestRecord>) -> Response<ResponseBody> {
    text(record, StatusCode::FORBIDDEN, "RBAC: access denied")
}

/// 307 to the unescaped path.
pub fn redirect(mut record: Box<RequestRecord>, location: &str) -> Response<ResponseBody> {
    record.details = Cow::Borrowed("path_normalization_redirect");
    let mut response = text(record, StatusCode::TEMPORARY_REDIRECT, "");
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// The answer of a route.
pub fn direct(mut record: Box<RequestRecord>, status: u16, body: Bytes) -> Response<ResponseBody> {
    record.details = Cow::Borrowed("direct_response");
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    bytes(record, status, body)
}

/// The answer of a route that sends its callers elsewhere.
pub fn elsewhere(record: Box<RequestRecord>, status: u16, location: &str) -> Response<ResponseBody> {
    let mut response = direct(record, status, Bytes::new());
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// A failure that the route's fault asks for.
pub fn aborted(mut record: Box<RequestRecord>, abort: &Abort) -> Response<ResponseBody> {
    record.details = Cow::Borrowed("fault_filter_abort");
    record.flags.insert(Flags::FAULT_INJECTED);
    let status = StatusCode::from_u16(abort.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    answer(record, status, abort.grpc_status, Bytes::from_static(b"fault filter abort"))
}

fn text(record: Box<RequestRecord>, status: StatusCode, body: &str) -> Response<ResponseBody> {
    bytes(record, status, Bytes::copy_from_slice(body.as_bytes()))
}

fn bytes(record: Box<RequestRecord>, status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    answer(record, status, None, body)
}

/// `forced` is the status towards gRPC where it is not what `status` maps to.
fn answer(
    mut record: Box<RequestRecord>,
    status: StatusCode,
    forced: Option<u32>,
    body: Bytes,
) -> Response<ResponseBody> {
    if record.grpc {
        let grpc_status = forced.unwrap_or_else(|| grpc_status_of(status.as_u16())) as i32;
        record.code = 200;
        record.grpc_status = Some(grpc_status);
        let headers = grpc::trailers_only(grpc_status, &String::from_utf8_lossy(&body));
        let mut response = Response::new(ResponseBody::own(Bytes::new(), Some(record)));
        *response.headers_mut() = headers;
        return response;
    }
    record.code = status.as_u16();
    let empty = body.is_empty();
    let mut response = Response::new(ResponseBody::own(body, Some(record)));
    *response.status_mut() = status;
    if !empty {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// Tells a Fairlead caller what became of the request; the mark is stripped for everybody else by the caller of this.
fn mark(response: &mut Response<ResponseBody>, error: ProxyError, sent: bool) {
    use ProxyError as E;
    let one = HeaderValue::from_static("1");
    match error {
        E::NoHealthyUpstream
        | E::ConnectFailed
        | E::ConnectTimeout
        | E::UpstreamTls
        | E::Overflow
        | E::RefusedStream
        | E::ClusterNotFound
        | E::RoutesMissing
        | E::Overloaded
        | E::LocalUnhealthy => {
            response.headers_mut().insert(NOT_DELIVERED, one);
        }
        E::UpstreamReset | E::UpstreamClosed | E::UpstreamProtocol | E::PathDead if !sent => {
            response.headers_mut().insert(NOT_DELIVERED, one);
        }
        E::UpstreamReset | E::UpstreamClosed | E::PathDead => {
            response.headers_mut().insert(PROGRAM_RESET, one);
        }
        _ => {}
    }
}

/// Envoy's texts.
fn body_of(error: ProxyError, reason: Option<&str>) -> String {
    use ProxyError as E;
    let before_headers = |what: &str| {
        let mut text = format!("upstream connect error or disconnect/reset before headers. reset reason: {what}");
        if let Some(reason) = reason {
            text.push_str(", transport failure reason: ");
            text.push_str(reason);
        }
        text
    };
    match error {
        E::NoHealthyUpstream => "no healthy upstream".to_owned(),
        E::ConnectFailed | E::UpstreamTls => before_headers("remote connection failure"),
        E::ConnectTimeout => before_headers("connection timeout"),
        E::UpstreamClosed | E::PathDead => before_headers("connection termination"),
        E::UpstreamReset => before_headers("remote reset"),
        E::RefusedStream => before_headers("remote refused stream reset"),
        E::UpstreamProtocol => before_headers("protocol error"),
        E::Overflow => before_headers("overflow"),
        E::RouteTimeout | E::PerTryTimeout => "upstream request timeout".to_owned(),
        E::StreamIdle => "stream timeout".to_owned(),
        E::RequestTimeout | E::RequestHeadTimeout => "request timeout".to_owned(),
        E::Denied => "RBAC: access denied".to_owned(),
        _ => String::new(),
    }
}
