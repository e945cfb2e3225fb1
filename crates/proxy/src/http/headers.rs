//! Headers that belong to one hop, and headers that belong to the mesh.
//!
//! Invariant: nothing named `x-fairlead-*` crosses from or to anyone but an authenticated Fairlead proxy, and no hop-by-hop
//! header is ever forwarded (RFC 9110 §7.6.1).

use http::header::{CONNECTION, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Version};

/// Set on a response by the callee's proxy when its program never got the request.
pub const NOT_DELIVERED: HeaderName = HeaderName::from_static("x-fairlead-not-delivered");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
pub const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// The path before a route rewrote it.
pub const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
pub const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const MESH_PREFIX: &str = "x-fairlead-";

/// Removes what belongs to the hop the message came over. `upgrade` keeps the upgrade's own two headers.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    if headers.contains_key(CONNECTION) {
        // Bounded: a list longer than the header limit cannot come.
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| *name != UPGRADE && *name != TE)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if let Some(te) = headers.get(TE) {
        let trailers = te.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")));
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Removes everything that only proxies of this mesh may say.
pub fn strip_mesh(headers: &mut HeaderMap) {
    // Most messages have none: look before collecting.
    if !headers.keys().any(|name| name.as_str().starts_with(MESH_PREFIX)) {
        return;
    }
    let named: Vec<HeaderName> = headers.keys().filter(|n| n.as_str().starts_with(MESH_PREFIX)).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// Joins `cookie` crumbs, which HTTP/2 may split and HTTP/1 may not (RFC 9113 §8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(http::header::COOKIE).iter();
    let (Some(_), Some(_)) = (cookies.next(), cookies.next()) else { return };
    let crumbs: Vec<&[u8]> = headers.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(http::header::COOKIE, joined);
    }
}

/// The upgrade a request asks for, lower case.
pub fn upgrade_of(headers: &HeaderMap, version: Version) -> Option<String> {
    if version != Version::HTTP_11 {
        return None;
    }
    let asks = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    if !asks.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let protocol = headers.get(UPGRADE)?.to_str().ok()?.trim().to_ascii_lowercase();
    (!protocol.is_empty()).then_some(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> HeaderMap {
        let parse = |(n, v): &(&str, &str)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), v.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in entries.iter().map(parse) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn hop_by_hop_and_what_connection_names() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut headers, false);
        assert_eq!(headers, map(&[("te", "trailers"), ("x-kept", "1")]));
    }

    #[test]
    fn mesh_headers_and_cookies() {
        let mut headers = map(&[("x-fairlead-peer", "{}"), ("x-fairlead-other", "1"), ("a", "b")]);
        strip_mesh(&mut headers);
        assert_eq!(headers, map(&[("a", "b")]));
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn upgrades_are_asked_for_twice() {
        let both = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(upgrade_of(&both, Version::HTTP_11).as_deref(), Some("websocket"));
        assert_eq!(upgrade_of(&both, Version::HTTP_10), None);
        assert_eq!(upgrade_of(&map(&[("upgrade", "websocket")]), Version::HTTP_11), None);
    }
}
