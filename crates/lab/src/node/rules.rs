//! Rules of a cluster's node: its way to the wide-area network, and the stand-in for kube-proxy.

use fairlead_capture::rules::{Chain, Hook, Match, Rule, Table, Transport, Verdict};
use ipnet::IpNet;

/// Connections that leave by `device` carry its address: pod addresses mean nothing outside their network.
pub fn masquerade(device: &str) -> Table {
    Table {
        name: "fairlead_masquerade".into(),
        chains: vec![Chain {
            name: "leaving".into(),
            hook: Hook::NatPostrouting,
            rules: vec![Rule::new([Match::By(device.into())], Verdict::Masquerade)],
        }],
    }
}

/// TCP connections that pods make to service addresses arrive at `port` of the node, where the original destination tells
/// which service was meant.
pub fn services(device: &str, ranges: &[IpNet], port: u16) -> Table {
    let rule = |range: &IpNet| {
        Rule::new(
            [Match::From(device.into()), Match::Destination(*range), Match::Transport(Transport::Tcp)],
            Verdict::Redirect(port),
        )
    };
    Table {
        name: "fairlead_services".into(),
        chains: vec![Chain {
            name: "arriving".into(),
            hook: Hook::NatPrerouting,
            rules: ranges.iter().map(rule).collect(),
        }],
    }
}
