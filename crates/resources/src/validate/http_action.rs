//! Actions of an HTTP rule: header operations, fault, redirect, direct response, rewrite, CORS.

use super::check::Check;
use super::http_route::percent;
use super::{durations, http_match, ports, regexes};
use crate::field::FieldPath;
use crate::istio::{
    CorsPolicy, GRPC_STATUS, Headers, HttpDirectResponse, HttpFaultInjection, HttpRedirect, HttpRewrite, StringMatch,
};
use crate::limits;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

/// A token of RFC 9110.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Names and values of header operations.
pub(super) fn header_operations(headers: &Headers, at: &FieldPath, check: &mut Check<'_>) {
    for (direction, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        let at = at.key(direction);
        for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
            for (name, value) in map {
                let at = at.key(field).key(name);
                header_name(name, &at, check);
                check.problem(&at, header_value(value));
            }
        }
        for (index, name) in operations.remove.iter().enumerate() {
            header_name(name, &at.key("remove").index(index), check);
        }
    }
}

/// Fault injection.
pub(super) fn fault(fault: &HttpFaultInjection, at: &FieldPath, check: &mut Check<'_>) {
    if fault.delay.is_none() && fault.abort.is_none() {
        check.error(at, "a fault must have a delay or an abort");
    }
    if let Some(delay) = &fault.delay {
        let at = at.key("delay");
        percent(delay.percentage.as_ref(), &at.key("percentage"), check);
        if let Some(percent) = delay.percent {
            whole_percent(percent, &at.key("percent"), check);
        }
        durations::positive(delay.fixed_delay, &at.key("fixedDelay"), check);
        if delay.exponential_delay.is_some() {
            check.error(&at.key("exponentialDelay"), "exponentialDelay is not supported");
        } else if delay.fixed_delay.is_none() {
            check.error(&at.key("fixedDelay"), "fixedDelay is required");
        }
    }
    if let Some(abort) = &fault.abort {
        let at = at.key("abort");
        percent(abort.percentage.as_ref(), &at.key("percentage"), check);
        if let Some(code) = abort.http_status {
            status(i64::from(code), &at.key("httpStatus"), check);
        }
        if let Some(word) = &abort.grpc_status
            && !GRPC_STATUS.contains(&word.as_str())
        {
            check.error(&at.key("grpcStatus"), format!("`{word}` is not a gRPC status such as NOT_FOUND"));
        }
        if abort.http2_error.is_some() {
            check.error(&at.key("http2Error"), "http2Error is not supported");
        }
        if abort.http_status.is_some() && abort.grpc_status.is_some() {
            check.error(&at, "only one of httpStatus and grpcStatus may be set");
        }
    }
}

/// Cross-origin rules.
pub(super) fn cors(cors: &CorsPolicy, at: &FieldPath, check: &mut Check<'_>) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let at = at.key("allowOrigins").index(index);
        match origin {
            StringMatch::Exact(text) if text.is_empty() => check.error(&at, "the origin must not be empty"),
            origin => http_match::string_match(origin, &at, check),
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if method != "*" && !METHODS.contains(&method.as_str()) {
            check.error(&at.key("allowMethods").index(index), format!("`{method}` is not a supported HTTP method"));
        }
    }
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            header_name(name, &at.key(field).index(index), check);
        }
    }
    if let Some(age) = cors.max_age {
        durations::positive(Some(age), &at.key("maxAge"), check);
        if age.nanos % 1_000_000_000 != 0 {
            check.error(&at.key("maxAge"), "maxAge has whole seconds only");
        }
    }
}

/// A redirect.
pub(super) fn redirect(redirect: &HttpRedirect, at: &FieldPath, check: &mut Check<'_>) {
    let empty = redirect.uri.is_empty()
        && redirect.authority.is_empty()
        && redirect.scheme.is_empty()
        && redirect.port.is_none()
        && redirect.derive_port.is_none();
    if empty {
        check.error(at, "a redirect must set uri, authority, scheme or port");
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        check.error(at, "only one of port and derivePort may be set");
    }
    if !redirect.scheme.is_empty() && !matches!(redirect.scheme.as_str(), "http" | "https") {
        check.error(&at.key("scheme"), "the scheme must be http or https");
    }
    if let Some(port) = redirect.port {
        ports::number(port, &at.key("port"), check);
    }
    if redirect.redirect_code != 0 && !(300..400).contains(&redirect.redirect_code) {
        check.error(&at.key("redirectCode"), format!("{} is not a 3xx code", redirect.redirect_code));
    }
}

/// A direct response.
pub(super) fn direct_response(response: &HttpDirectResponse, at: &FieldPath, check: &mut Check<'_>) {
    status(i64::from(response.status), &at.key("status"), check);
    let Some(body) = &response.body else { return };
    if body.string.is_some() && body.bytes.is_some() {
        check.error(&at.key("body"), "only one of string and bytes may be set");
    }
    if body.content().is_none() {
        check.error(&at.key("body").key("bytes"), "bytes must be base64");
    }
    // Base64 has four characters for three bytes.
    let size = body.string.as_ref().map(String::len).or(body.bytes.as_ref().map(|b| b.len() / 4 * 3)).unwrap_or(0);
    if size > limits::DIRECT_RESPONSE_BYTES {
        check.error(&at.key("body"), format!("a body of {size} bytes is larger than 1 MiB"));
    } else if size > limits::DIRECT_RESPONSE_WARNING_BYTES {
        check.warning(&at.key("body"), format!("a body of {size} bytes burdens every proxy"));
    }
}

/// A rewrite.
pub(super) fn rewrite(rewrite: &HttpRewrite, at: &FieldPath, check: &mut Check<'_>) {
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && rewrite.uri_regex_rewrite.is_none() {
        check.error(at, "a rewrite must set uri, uriRegexRewrite or authority");
    }
    let Some(regex) = &rewrite.uri_regex_rewrite else { return };
    if !rewrite.uri.is_empty() {
        check.error(at, "a rewrite may have only one of uri and uriRegexRewrite");
    }
    let at = at.key("uriRegexRewrite");
    if regex.matches.is_empty() || regex.rewrite.is_empty() {
        check.error(&at, "uriRegexRewrite needs both match and rewrite");
    }
    regexes::check(&regex.matches, &at.key("match"), check);
}

fn status(code: i64, at: &FieldPath, check: &mut Check<'_>) {
    // Istio's message says 599, its check lets 600 pass.
    if !(200..=600).contains(&code) {
        check.error(at, format!("HTTP status {code} is not in the range 200 to 599"));
    }
}

pub(super) fn whole_percent(percent: i32, at: &FieldPath, check: &mut Check<'_>) {
    if !(0..=100).contains(&percent) {
        check.error(at, format!("percentage {percent} is not in the range 0 to 100"));
    }
}

fn header_name(name: &str, at: &FieldPath, check: &mut Check<'_>) {
    if name.is_empty() {
        check.error(at, "the header name cannot be empty");
    } else if !is_header_name(name.strip_prefix(':').unwrap_or(name)) {
        check.error(at, format!("`{name}` is not a valid header name"));
    }
}

/// Envoy's format: `%%`, or `%COMMAND%`, `%COMMAND(argument)%`, `%COMMAND(argument):10%`.
fn header_value(value: &str) -> Option<String> {
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let mut tail = &rest[name_end..];
        if let Some(arguments) = tail.strip_prefix('(') {
            let Some(close) = arguments.find(')') else {
                return Some(format!("`{value}` has a variable without `)`"));
            };
            tail = &arguments[close + 1..];
        }
        if let Some(length) = tail.strip_prefix(':') {
            tail = length.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        match tail.strip_prefix('%') {
            Some(after) if name_end > 0 => rest = after,
            _ => return Some(format!("`{value}` has an unescaped `%`; write `%%`")),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::header_value;

    #[test]
    fn header_values() {
        for good in ["", "foo", "100%%", "%HOSTNAME%", "a %START_TIME(%s)% b", "%REQ(X):10%", "%A(x y)%%B%"] {
            assert_eq!(header_value(good), None, "{good}");
        }
        for bad in ["%", "100%", "abc%123", "%START_TIME%%", "%A(x%", "a%b c%"] {
            assert!(header_value(bad).is_some(), "{bad}");
        }
    }
}
