//! Who is the client, behind how many trusted proxies.

use crate::listener::HttpManager;
use http::HeaderMap;
use std::net::IpAddr;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Address of the client as Envoy's connection manager settles it: the socket's other end when it is to be believed
/// (`use_remote_address`), else the `x-forwarded-for` entry that `xff_num_trusted_hops` trusted proxies have written.
pub fn client_address(manager: &HttpManager, headers: &HeaderMap, direct_remote: IpAddr) -> IpAddr {
    let hops = manager.xff_num_trusted_hops as usize;
    let told = match (manager.use_remote_address, hops) {
        (true, 0) => None,
        // The last hop is the socket itself.
        (true, hops) => forwarded_hop(headers, hops - 1),
        (false, hops) => forwarded_hop(headers, hops),
    };
    told.unwrap_or(direct_remote)
}

/// The `x-forwarded-for` entry `back` places before the last; `None` when there are fewer, or it is no address.
pub fn forwarded_hop(headers: &HeaderMap, back: usize) -> Option<IpAddr> {
    let values: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let entry = values.iter().rev().flat_map(|value| value.rsplit(',')).nth(back)?.trim();
    entry.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn hops_count_from_the_end() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("192.0.2.1, 192.0.2.2"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("192.0.2.3"));
        let at = |back| forwarded_hop(&headers, back).map(|ip| ip.to_string());
        assert_eq!(at(0).as_deref(), Some("192.0.2.3"));
        assert_eq!(at(1).as_deref(), Some("192.0.2.2"));
        assert_eq!(at(2).as_deref(), Some("192.0.2.1"));
        assert_eq!(at(3), None);
    }
}
