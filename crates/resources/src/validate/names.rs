//! Host names, wildcards, DNS labels and addresses.
//!
//! Never resolves a name. Invariant: every function returns the problem as a sentence, or `None` if there is none.

use std::net::IpAddr;

/// Longest host name, RFC 1035.
const HOST_CHARS: usize = 255;
/// Longest label, RFC 1035.
const LABEL_CHARS: usize = 63;

/// Whether two hosts with leading wildcards overlap (Istio's `Matches`): either covers the other.
pub fn matches_host(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (None, None) => a == b,
        (Some(suffix), None) => b.ends_with(suffix),
        (None, Some(suffix)) => a.ends_with(suffix),
        (Some(x), Some(y)) => x.ends_with(y) || y.ends_with(x),
    }
}

/// A DNS label as Kubernetes names namespaces (RFC 1123, lower case).
pub(super) fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=LABEL_CHARS).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A fully qualified or short host name without wildcard.
pub(super) fn fqdn(host: &str) -> Option<String> {
    if host.is_empty() {
        return Some("empty domain name not allowed".to_owned());
    }
    if host.len() > HOST_CHARS {
        return Some(format!("domain name of {} characters is longer than {HOST_CHARS}", host.len()));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels: Vec<&str> = name.split('.').collect();
    for label in &labels {
        let good = (1..=LABEL_CHARS).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !good {
            return Some(format!("domain name `{host}` is invalid (label `{label}`)"));
        }
    }
    match labels.last() {
        Some(last) if labels.len() > 1 && last.bytes().all(|b| b.is_ascii_digit()) => {
            Some(format!("domain name `{host}` is invalid (its top-level label is a number)"))
        }
        _ => None,
    }
}

/// A host name with an optional leading `*.`, or `*` alone; `*foo.com` and `*-foo.com` have a partial wildcard. The SNI
/// form of a service (`outbound_.80_.v1_.reviews.shop.svc.cluster.local`) counts by its host.
pub(super) fn wildcard(host: &str) -> Option<String> {
    match host.strip_prefix('*') {
        None => fqdn(behind_sni_prefix(host).unwrap_or(host)),
        Some("") => None,
        Some(rest) => fqdn(rest.strip_prefix(['.', '-']).unwrap_or(rest)),
    }
}

/// The host of `outbound_.PORT_.SUBSET_.HOST`.
fn behind_sni_prefix(host: &str) -> Option<&str> {
    let (port, rest) = host.strip_prefix("outbound_.")?.split_once("_.")?;
    let (subset, host) = rest.split_once("_.").or_else(|| Some(("", rest.strip_prefix("_.")?)))?;
    let good = port.parse::<u16>().is_ok() && (subset.is_empty() || fqdn(subset).is_none());
    good.then_some(host)
}

/// Whether a `*` stands beside other characters of its label (`*foo.com`), which matches nothing in Envoy.
pub(super) fn is_partial_wildcard(host: &str) -> bool {
    host.split('.').any(|label| label.contains('*') && label != "*")
}

/// Whether the text is an IP address.
pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An IP address or CIDR.
pub(super) fn address_or_cidr(text: &str) -> Option<String> {
    if is_ip(text) || text.parse::<ipnet::IpNet>().is_ok() {
        None
    } else {
        Some(format!("`{text}` is no IP address or CIDR"))
    }
}

/// A `unix://` path: absolute, or abstract (`@name`), no directory.
pub(super) fn unix_path(address: &str) -> Option<String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if path.starts_with('@') && path.len() > 1 {
        return None;
    }
    if !path.starts_with('/') {
        return Some(format!("`{address}` is no absolute path to a file"));
    }
    if path.ends_with('/') {
        return Some(format!("`{address}` is a directory"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["reviews", "reviews.shop.svc.cluster.local", "Foo.com", "a.b.", "1.2.3.example"] {
            assert_eq!(fqdn(good), None, "{good}");
        }
        for bad in ["", "a..b", "-a", "a-", "ba!r", "*", "a_b", "1.2.3.4", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(fqdn(bad).is_some(), "{bad}");
        }
        assert_eq!(wildcard("*"), None);
        assert_eq!(wildcard("*.foo.com"), None);
        assert_eq!(wildcard("*-foo.com"), None);
        assert_eq!(wildcard("outbound_.80_._.reviews.shop.svc.cluster.local"), None);
        assert_eq!(wildcard("outbound_.80_.v1_.reviews.shop.svc.cluster.local"), None);
        assert!(wildcard("foo.*.com").is_some());
        assert!(is_partial_wildcard("*foo.com"));
        assert!(!is_partial_wildcard("*.foo.com"));
    }

    #[test]
    fn overlaps() {
        assert!(matches_host("*.foo.bar", "*.bar"));
        assert!(matches_host("a.bar", "*.bar"));
        assert!(matches_host("*", "x"));
        assert!(!matches_host("bar", "*.bar"));
    }

    #[test]
    fn unix_paths() {
        assert_eq!(unix_path("unix:///a/b"), None);
        assert_eq!(unix_path("unix://@abstract"), None);
        assert!(unix_path("unix://relative").is_some());
        assert!(unix_path("unix:///dir/").is_some());
    }
}
