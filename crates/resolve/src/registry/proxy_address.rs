//! Addresses that no endpoint may have: whoever connects to them reaches itself.
//!
//! A proxy that is led to a loopback address reaches its own admin port, and whatever else trusts its pod. Kubernetes refuses such
//! addresses, and link-local ones, in EndpointSlices. Link-local ones stand in ServiceEntries for a reason (a cloud's metadata server),
//! so there they are endpoints. Invariant: an address that is refused here is no endpoint's, whatever object it comes from.

use std::net::IpAddr;

/// Whether no endpoint may have it.
pub(crate) fn is_refused(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0 || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_multicast(),
    }
}

/// Whether an endpoint of a Service may not have it.
pub(crate) fn is_refused_in_slices(address: IpAddr) -> bool {
    let link_local = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || is_refused(address)
}

/// Whether a name stands for such an address everywhere (RFC 6761).
pub(crate) fn is_refused_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_back_is_refused() {
        for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "0.1.2.3"] {
            assert!(is_refused(text.parse().unwrap()), "{text}");
        }
        for text in ["169.254.169.254", "fe80::1"] {
            let address = text.parse().unwrap();
            assert!(!is_refused(address) && is_refused_in_slices(address), "{text}");
        }
        for text in ["10.0.0.1", "198.51.100.1", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(!is_refused(text.parse().unwrap()), "{text}");
        }
        assert!(
            is_refused_name("localhost") && is_refused_name("a.LocalHost.") && !is_refused_name("localhost.example")
        );
    }
}
