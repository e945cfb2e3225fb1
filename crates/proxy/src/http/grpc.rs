//! What gRPC needs beside HTTP/2: status from trailers or headers, and errors of the proxy in gRPC's own form.
//!
//! Invariant: a gRPC caller never gets an HTTP error page: a failed call is 200 with `grpc-status` (gRPC over HTTP/2 spec,
//! Envoy's `Grpc::Common`).

use http::{HeaderMap, HeaderValue};

/// `grpc-status` of trailers, or of a trailers-only response's head.
pub fn status_of(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.trim().parse().ok()
}

/// Head of a trailers-only response.
pub fn trailers_only(status: i32, message: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(status));
    if let Ok(value) = HeaderValue::from_str(&percent(message)) {
        headers.insert("grpc-message", value);
    }
    headers
}

/// Percent-encoding of `grpc-message`: everything outside printable ASCII, and `%`.
fn percent(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded() {
        assert_eq!(percent("a b%\n"), "a b%25%0A");
        assert_eq!(status_of(&trailers_only(14, "x")), Some(14));
    }
}
