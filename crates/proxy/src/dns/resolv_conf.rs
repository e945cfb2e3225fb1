//! The name servers of a `resolv.conf` (resolv.conf(5)): whom a pod's own programs would ask.
//!
//! Never reads a file. Invariant: a line that is not understood costs itself.

use std::net::{IpAddr, SocketAddr};

/// As many as a stub resolver asks (`MAXNS`).
const MOST: usize = 3;
const PORT: u16 = 53;

/// The servers named, in order. A zone (`fe80::1%eth0`) is not understood.
pub fn name_servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).filter(|rest| {
        // `nameserversomething` is no such line.
        rest.starts_with(char::is_whitespace)
    });
    lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, PORT)).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::name_servers;

    #[test]
    fn servers_in_order_and_no_more_than_three() {
        let text = "# a comment\nsearch shop.svc.cluster.local svc.cluster.local\nnameserver 192.0.2.53\nnameserver\t2001:db8::53 \n\
                    nameserverx 192.0.2.1\nnameserver fe80::1%eth0\noptions ndots:5\nnameserver 192.0.2.54\nnameserver 192.0.2.55\n";
        let told: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["192.0.2.53:53", "[2001:db8::53]:53", "192.0.2.54:53"]);
        assert!(name_servers("").is_empty());
    }
}
