//! Port numbers, names and protocols.

use super::check::Check;
use super::names;
use crate::field::FieldPath;

/// The protocol words of Gateways, ServiceEntries and Sidecars, lower case.
const PROTOCOLS: [&str; 12] =
    ["http", "http2", "https", "grpc", "grpc-web", "mongo", "redis", "mysql", "tcp", "tls", "udp", "hbone"];

/// 1 to 65535.
pub(super) fn number(number: u32, at: &FieldPath, check: &mut Check<'_>) {
    if !(1..=65535).contains(&number) {
        check.error(at, format!("port number {number} must be in the range 1..65535"));
    }
}

/// A word that is a protocol, or nothing where that is allowed.
pub(super) fn protocol(word: &str, may_be_empty: bool, at: &FieldPath, check: &mut Check<'_>) {
    if (word.is_empty() && may_be_empty) || PROTOCOLS.contains(&word.to_ascii_lowercase().as_str()) {
        return;
    }
    check.error(
        at,
        format!("`{word}` is not a protocol; use HTTP, HTTP2, HTTPS, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TCP or TLS"),
    );
}

/// A port name: a DNS label.
pub(super) fn name(name: &str, at: &FieldPath, check: &mut Check<'_>) {
    if !names::is_dns_label(&name.to_ascii_lowercase()) {
        check.error(at, format!("invalid port name `{name}`"));
    }
}

/// Whether the protocol is HTTP in the clear.
pub(super) fn is_http(protocol: &str) -> bool {
    ["http", "http2", "grpc", "grpc-web"].contains(&protocol.to_ascii_lowercase().as_str())
}

/// Whether the protocol is TLS.
pub(super) fn is_tls(protocol: &str) -> bool {
    ["https", "tls"].contains(&protocol.to_ascii_lowercase().as_str())
}

/// Whether the protocol is TCP, or not said.
pub(super) fn is_tcp_or_unset(protocol: &str) -> bool {
    ["", "tcp", "mongo", "redis", "mysql"].contains(&protocol.to_ascii_lowercase().as_str())
}
