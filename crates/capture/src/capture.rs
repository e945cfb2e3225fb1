//! Capture: which of a workload's connections go through its proxy. The one place that decides it.
//!
//! Pure: options in, rules out. The lab tells the proxy's own traffic by its socket mark, Kubernetes by its user id; everything
//! else is the same, which is why there is one generator with the loop guard as a parameter. Shape: Istio's `ISTIO_OUTPUT`,
//! `ISTIO_INBOUND` and `ISTIO_OUTPUT_DNS` chains.
//!
//! Invariant: a connection of the proxy is never captured on its way out. The one connection of the proxy that does meet its
//! own inbound listener is the one to its own workload's address, made for a program that called itself through its service:
//! it carries mutual TLS, which only the inbound listener understands. The inbound listener's own connection to the program
//! therefore must be told from that one: it comes from 127.0.0.6 (or ::6), as Istio's does, or carries `inbound_mark`, or goes
//! to a loopback address.
//!
//! Where the proxy must listen: a redirected outgoing packet arrives at 127.0.0.1 (::1), an incoming one at the first address of
//! its interface. The DNS listener (UDP) must be bound to 127.0.0.1 itself: an answer from a wildcard socket would leave under
//! the address that routing prefers, and not be recognised as the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use crate::rules::{Chain, Hook, Match, Rule, Table, Transport, Verdict, only};

/// The proxies' socket mark: 1337, the number Istio gives its proxy's user.
pub const PROXY_MARK: u32 = 0x539;

/// The mark of a proxy's connections to the program it stands before.
pub const INBOUND_MARK: u32 = 0x53a;

/// How the proxy's own traffic is told from the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopGuard {
    /// By `SO_MARK`: the lab, where everything runs as one user.
    Mark(u32),
    /// By user id: Kubernetes, where the proxy may not set marks.
    Owner(u32),
}

/// Which incoming ports are captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InboundPorts {
    /// All but these.
    AllBut(Vec<u16>),
    /// These only (`traffic.sidecar.istio.io/includeInboundPorts`).
    Only(Vec<u16>),
}

/// What is captured, and to where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capture {
    /// How the proxy's own traffic is told.
    pub guard: LoopGuard,
    /// Mark of the inbound listener's connections to the program.
    pub inbound_mark: Option<u32>,
    /// Where outgoing TCP connections go.
    pub outbound: u16,
    /// Where incoming TCP connections go; None: they are not captured.
    pub inbound: Option<u16>,
    /// Where questions to any DNS server go; None: they are not captured.
    pub dns: Option<u16>,
    /// Which incoming ports are captured.
    pub inbound_ports: InboundPorts,
    /// Outgoing ports that are not captured (`excludeOutboundPorts`).
    pub exclude_outbound_ports: Vec<u16>,
    /// Destinations that are not captured (`excludeOutboundIPRanges`).
    pub exclude_outbound: Vec<IpNet>,
}

impl Capture {
    /// Everything, to Istio's ports, but the proxy's own ports 15008, 15020, 15021 and 15090.
    pub fn new(guard: LoopGuard) -> Self {
        Self {
            guard,
            inbound_mark: Some(INBOUND_MARK),
            outbound: 15001,
            inbound: Some(15006),
            dns: Some(15053),
            inbound_ports: InboundPorts::AllBut(vec![15008, 15020, 15021, 15090]),
            exclude_outbound_ports: Vec::new(),
            exclude_outbound: Vec::new(),
        }
    }

    /// The rules.
    pub fn table(&self) -> Table {
        Table {
            name: "fairlead_capture".into(),
            chains: vec![
                Chain { name: "output".into(), hook: Hook::NatOutput, rules: self.outgoing() },
                Chain { name: "prerouting".into(), hook: Hook::NatPrerouting, rules: self.incoming() },
            ],
        }
    }

    fn outgoing(&self) -> Vec<Rule> {
        let tcp = || Match::Transport(Transport::Tcp);
        let loopback = || Match::By("lo".into());
        let guard = match self.guard {
            LoopGuard::Mark(mark) => Match::Mark(mark),
            LoopGuard::Owner(uid) => Match::Owner(uid),
        };
        let mut rules = Vec::new();
        if let Some(mark) = self.inbound_mark {
            rules.push(Rule::new([Match::Mark(mark)], Verdict::Accept));
        }
        // The inbound listener's connections to the program.
        for source in [IpAddr::from(Ipv4Addr::new(127, 0, 0, 6)), IpAddr::from(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))] {
            rules.push(Rule::new([loopback(), Match::Source(only(source))], Verdict::Accept));
        }
        let loopbacks =
            [IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)), only(Ipv6Addr::LOCALHOST.into())];
        for range in loopbacks {
            rules.push(Rule::new([guard.clone(), Match::Destination(range)], Verdict::Accept));
        }
        if let Some(inbound) = self.inbound {
            rules.push(Rule::new([guard.clone(), loopback(), tcp()], Verdict::Redirect(inbound)));
        }
        rules.push(Rule::new([guard], Verdict::Accept));
        // From here on only the program's traffic. DNS before loopback: a stub resolver on 127.0.0.53 is captured too.
        if let Some(dns) = self.dns {
            for transport in [Transport::Udp, Transport::Tcp] {
                rules.push(Rule::new([Match::Port(transport, 53)], Verdict::Redirect(dns)));
            }
        }
        rules.extend(loopbacks.map(|range| Rule::new([Match::Destination(range)], Verdict::Accept)));
        // A program that calls its own address means itself.
        rules.push(Rule::new([loopback()], Verdict::Accept));
        for port in &self.exclude_outbound_ports {
            rules.push(Rule::new([Match::Port(Transport::Tcp, *port)], Verdict::Accept));
        }
        for range in &self.exclude_outbound {
            rules.push(Rule::new([Match::Destination(*range)], Verdict::Accept));
        }
        rules.push(Rule::new([tcp()], Verdict::Redirect(self.outbound)));
        rules
    }

    fn incoming(&self) -> Vec<Rule> {
        let Some(inbound) = self.inbound else { return Vec::new() };
        let redirect = Verdict::Redirect(inbound);
        let port = |port: &u16, verdict| Rule::new([Match::Port(Transport::Tcp, *port)], verdict);
        let mut rules = vec![Rule::new([Match::From("lo".into())], Verdict::Accept)];
        match &self.inbound_ports {
            InboundPorts::AllBut(ports) => {
                rules.extend(ports.iter().map(|p| port(p, Verdict::Accept)));
                rules.push(Rule::new([Match::Transport(Transport::Tcp)], redirect));
            }
            InboundPorts::Only(ports) => rules.extend(ports.iter().map(|p| port(p, redirect))),
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_captures_everything_but_the_proxy() {
        let expected = r#"table inet fairlead_capture {
	chain output {
		type nat hook output priority -100; policy accept;
		meta mark 0x53a accept
		oifname "lo" ip saddr 127.0.0.6 accept
		oifname "lo" ip6 saddr ::6 accept
		meta mark 0x539 ip daddr 127.0.0.0/8 accept
		meta mark 0x539 ip6 daddr ::1 accept
		meta mark 0x539 oifname "lo" meta l4proto tcp redirect to :15006
		meta mark 0x539 accept
		udp dport 53 redirect to :15053
		tcp dport 53 redirect to :15053
		ip daddr 127.0.0.0/8 accept
		ip6 daddr ::1 accept
		oifname "lo" accept
		meta l4proto tcp redirect to :15001
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "lo" accept
		tcp dport 15008 accept
		tcp dport 15020 accept
		tcp dport 15021 accept
		tcp dport 15090 accept
		meta l4proto tcp redirect to :15006
	}
}
"#;
        assert_eq!(Capture::new(LoopGuard::Mark(PROXY_MARK)).table().to_string(), expected);
    }

    #[test]
    fn kubernetes_differs_only_in_the_guard() {
        let lab = Capture::new(LoopGuard::Mark(PROXY_MARK)).table().to_string();
        let kubernetes = Capture::new(LoopGuard::Owner(1337)).table().to_string();
        assert_eq!(lab.replace("meta mark 0x539", "meta skuid 1337"), kubernetes);
    }

    #[test]
    fn options_narrow_what_is_captured() {
        let capture = Capture {
            inbound_mark: None,
            dns: None,
            inbound_ports: InboundPorts::Only(vec![9080]),
            exclude_outbound_ports: vec![3306],
            exclude_outbound: vec!["192.0.2.0/24".parse().unwrap()],
            ..Capture::new(LoopGuard::Mark(PROXY_MARK))
        };
        let text = capture.table().to_string();
        for line in ["tcp dport 3306 accept", "ip daddr 192.0.2.0/24 accept", "tcp dport 9080 redirect to :15006"] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        for line in ["dport 53", "15053", "tcp dport 15090", "meta mark 0x53a"] {
            assert!(!text.contains(line), "{line} is in\n{text}");
        }
        assert!(Capture { inbound: None, ..capture }.table().chains[1].rules.is_empty());
    }
}
