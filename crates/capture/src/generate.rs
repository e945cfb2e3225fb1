//! From options to rules. The one place that decides which connection goes through a proxy.
//!
//! Pure. Shape: Istio's `ISTIO_OUTPUT`, `ISTIO_INBOUND` and `ISTIO_OUTPUT_DNS` chains; where the two differ is in docs/capture.md.
//!
//! Invariant: a connection of the proxy is never captured on its way out. The one connection of the proxy that does meet its
//! own inbound listener is the one to its own workload's address, made for a program that called itself through its service:
//! it carries mutual TLS, which only the inbound listener understands. The inbound listener's own connection to the program
//! therefore must be told from that one: it comes from 127.0.0.6 (or ::6), as Istio's does, or goes to a loopback address.
//!
//! Where the proxy must listen: a redirected outgoing packet arrives at 127.0.0.1 (::1), an incoming one at the first address of
//! its interface. The DNS listener (UDP) must be bound to 127.0.0.1 itself: an answer from a wildcard socket would leave under
//! the address that routing prefers, and not be recognised as the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::rules::{Chain, Family, Hook, Match, Rule, Table, Transport, Verdict, only};
use crate::spec::{CaptureSpec, Dns, DnsServers, Families, LoopGuard, Ports, Ranges, TUNNEL_PORT};

/// The name of the table; installing it again replaces it.
pub const TABLE: &str = "fairlead_capture";

/// Where the proxy's connections to its program come from.
pub const PASSTHROUGH: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))];

const LOOPBACKS: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// Conntrack zones, Istio's numbers: the proxy's questions to real servers, and the program's to the proxy.
const ZONE_OF_PROXY: u16 = 1;
const ZONE_OF_PROGRAM: u16 = 2;

impl CaptureSpec {
    /// The rules.
    pub fn table(&self) -> Table {
        let chain = |name: &str, hook, mut rules: Vec<Rule>| {
            if !rules.is_empty() {
                rules.splice(0..0, self.other_family());
            }
            Chain { name: name.into(), hook, rules }
        };
        let mut chains = vec![
            chain("output", Hook::NatOutput, self.outgoing()),
            chain("prerouting", Hook::NatPrerouting, self.incoming()),
        ];
        if let Some(dns) = self.dns.as_ref().filter(|dns| dns.zones) {
            chains.push(chain("raw_output", Hook::FilterOutput, self.questions_leaving(dns)));
            chains.push(chain("raw_prerouting", Hook::FilterPrerouting, answers_arriving(dns)));
        }
        Table { name: TABLE.into(), chains }
    }

    fn other_family(&self) -> Option<Rule> {
        let other = match self.families {
            Families::Both => return None,
            Families::V4 => Family::V6,
            Families::V6 => Family::V4,
        };
        Some(Rule::new([Match::Family(other)], Verdict::Accept))
    }

    fn guards(&self) -> Vec<Match> {
        match self.guard {
            LoopGuard::Mark(mark) => vec![Match::Mark(mark)],
            LoopGuard::Owner { uid, gid } => vec![Match::Owner(uid), Match::Group(gid)],
        }
    }

    /// Whether the loopback interface is to be captured: Istio asks whether a loopback range is included.
    fn includes_loopback(&self) -> bool {
        match &self.outbound_ranges {
            Ranges::All => false,
            Ranges::Only(ranges) => ranges.iter().any(|range| range.addr().is_loopback()),
        }
    }

    fn outgoing(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut pass = |matches: Vec<Match>| rules.push(Rule::new(matches, Verdict::Accept));
        for name in &self.exclude_interfaces {
            pass(vec![Match::By(name.clone())]);
        }
        for port in &self.exclude_outbound_ports {
            pass(vec![Match::Port(Transport::Tcp, *port)]);
        }
        // The inbound listener's connections to the program.
        for source in PASSTHROUGH {
            pass(vec![loopback(), Match::Source(only(source))]);
        }
        for guard in self.guards() {
            rules.extend(self.of_the_proxy(&guard));
        }
        // From here on only the programs' traffic.
        rules.extend(self.exclude_uids.iter().map(|uid| Rule::new([Match::Owner(*uid)], Verdict::Accept)));
        // DNS before loopback: a stub resolver on 127.0.0.53 is captured too.
        if let Some(dns) = &self.dns {
            rules.extend(questions(dns, Verdict::Redirect(dns.port), &[Transport::Udp, Transport::Tcp]));
        }
        if self.includes_loopback() {
            for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                rules.push(Rule::new([Match::Destination(only(address))], Verdict::Accept));
            }
        } else {
            rules.extend(LOOPBACKS.map(|range| Rule::new([Match::Destination(range)], Verdict::Accept)));
            // A program that calls its own address means itself.
            rules.push(Rule::new([loopback()], Verdict::Accept));
        }
        rules.extend(excluded(&self.exclude_outbound_ranges));
        let redirect = Verdict::Redirect(self.outbound);
        for port in &self.include_outbound_ports {
            rules.push(Rule::new([Match::Port(Transport::Tcp, *port)], redirect));
        }
        rules.extend(self.captured_ranges(None));
        rules
    }

    fn of_the_proxy(&self, guard: &Match) -> Vec<Rule> {
        let mut rules: Vec<Rule> = LOOPBACKS
            .map(|range| Rule::new([guard.clone(), Match::Destination(range)], Verdict::Accept))
            .into_iter()
            .collect();
        if let Some(inbound) = self.inbound {
            // Not a program's call to itself: the tunnel, and a name server that runs in this very pod.
            for port in [Some(TUNNEL_PORT), self.dns.as_ref().map(|_| 53)].into_iter().flatten() {
                let matches = [guard.clone(), loopback(), Match::Port(Transport::Tcp, port)];
                rules.push(Rule::new(matches, Verdict::Accept));
            }
            let matches = [guard.clone(), loopback(), Match::Transport(Transport::Tcp)];
            rules.push(Rule::new(matches, Verdict::Redirect(inbound)));
        }
        rules.push(Rule::new([guard.clone()], Verdict::Accept));
        rules
    }

    /// Redirects what goes to the ranges that are included, for packets that also arrive by an interface if one is given.
    fn captured_ranges(&self, from: Option<&str>) -> Vec<Rule> {
        let from = from.map(|name| Match::From(name.to_owned()));
        let rule = |range: Option<&IpNet>| {
            let to = range.map(|range| Match::Destination(*range));
            let matches: Vec<Match> =
                from.clone().into_iter().chain(to).chain([Match::Transport(Transport::Tcp)]).collect();
            Rule::new(matches, Verdict::Redirect(self.outbound))
        };
        match &self.outbound_ranges {
            Ranges::All => vec![rule(None)],
            Ranges::Only(ranges) => ranges.iter().map(|range| rule(Some(range))).collect(),
        }
    }

    fn incoming(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for name in &self.exclude_interfaces {
            rules.push(Rule::new([Match::From(name.clone())], Verdict::Accept));
        }
        for name in &self.virtual_interfaces {
            rules.extend(self.captured_ranges(Some(name)));
            rules.push(Rule::new([Match::From(name.clone())], Verdict::Accept));
        }
        let Some(inbound) = self.inbound else { return rules };
        let redirect = Verdict::Redirect(inbound);
        let port = |port: &u16, verdict| Rule::new([Match::Port(Transport::Tcp, *port)], verdict);
        rules.push(Rule::new([Match::From("lo".into())], Verdict::Accept));
        rules.push(port(&TUNNEL_PORT, Verdict::Accept));
        match &self.inbound_ports {
            Ports::AllBut(ports) => {
                rules.extend(ports.iter().map(|p| port(p, Verdict::Accept)));
                rules.push(Rule::new([Match::Transport(Transport::Tcp)], redirect));
            }
            Ports::Only(ports) => rules.extend(ports.iter().map(|p| port(p, redirect))),
        }
        rules
    }

    fn questions_leaving(&self, dns: &Dns) -> Vec<Rule> {
        let mut rules = Vec::new();
        for guard in self.guards() {
            let question = Match::Port(Transport::Udp, 53);
            let answer = Match::SourcePort(Transport::Udp, dns.port);
            rules.push(Rule::new([guard.clone(), question], Verdict::Zone(ZONE_OF_PROXY)));
            rules.push(Rule::new([guard, answer], Verdict::Zone(ZONE_OF_PROGRAM)));
        }
        rules.extend(questions(dns, Verdict::Zone(ZONE_OF_PROGRAM), &[Transport::Udp]));
        rules
    }
}

fn answers_arriving(dns: &Dns) -> Vec<Rule> {
    let from = |server: Option<&IpAddr>| {
        let source = server.map(|server| Match::Source(only(*server)));
        let matches: Vec<Match> = [Match::SourcePort(Transport::Udp, 53)].into_iter().chain(source).collect();
        Rule::new(matches, Verdict::Zone(ZONE_OF_PROXY))
    };
    match &dns.servers {
        DnsServers::Any => vec![from(None)],
        DnsServers::Only(servers) => servers.iter().map(|server| from(Some(server))).collect(),
    }
}

fn questions(dns: &Dns, verdict: Verdict, transports: &[Transport]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for transport in transports {
        let port = Match::Port(*transport, 53);
        match &dns.servers {
            DnsServers::Any => rules.push(Rule::new([port], verdict)),
            DnsServers::Only(servers) => {
                let to = servers.iter().map(|server| Match::Destination(only(*server)));
                rules.extend(to.map(|to| Rule::new([to, port.clone()], verdict)));
            }
        }
    }
    rules
}

fn excluded(ranges: &[IpNet]) -> impl Iterator<Item = Rule> {
    ranges.iter().map(|range| Rule::new([Match::Destination(*range)], Verdict::Accept))
}

fn loopback() -> Match {
    Match::By("lo".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::PROXY_MARK;

    #[test]
    fn the_lab_captures_everything_but_the_proxy() {
        let expected = r#"table inet fairlead_capture {
	chain output {
		type nat hook output priority -100; policy accept;
		oifname "lo" ip saddr 127.0.0.6 accept
		oifname "lo" ip6 saddr ::6 accept
		meta mark 0x539 ip daddr 127.0.0.0/8 accept
		meta mark 0x539 ip6 daddr ::1 accept
		meta mark 0x539 oifname "lo" tcp dport 15008 accept
		meta mark 0x539 oifname "lo" tcp dport 53 accept
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
        assert_eq!(CaptureSpec::new(LoopGuard::Mark(PROXY_MARK)).table().to_string(), expected);
    }

    #[test]
    fn kubernetes_differs_only_in_the_guard() {
        let nat = |guard| {
            let mut chains = CaptureSpec::new(guard).table().chains;
            for chain in &mut chains {
                chain.rules.retain(|rule| !rule.matches.contains(&Match::Group(1337)));
            }
            Table { name: TABLE.into(), chains }.to_string()
        };
        let lab = nat(LoopGuard::Mark(PROXY_MARK));
        let kubernetes = nat(LoopGuard::Owner { uid: 1337, gid: 1337 });
        assert_eq!(lab.replace("meta mark 0x539", "meta skuid 1337"), kubernetes);
    }

    #[test]
    fn the_proxys_questions_are_tracked_apart() {
        let text = CaptureSpec::pod().table().to_string();
        for line in [
            "type filter hook output priority raw; policy accept;",
            "meta skuid 1337 udp dport 53 ct zone set 1 accept",
            "meta skgid 1337 udp sport 15053 ct zone set 2 accept",
            "\t\tudp dport 53 ct zone set 2 accept",
            "\t\tudp sport 53 ct zone set 1 accept",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn one_family_leaves_the_other_alone() {
        let table = CaptureSpec { families: Families::V6, ..CaptureSpec::pod() }.table();
        for chain in &table.chains {
            assert_eq!(chain.rules[0].to_string(), "meta nfproto ipv4 accept", "{}", chain.name);
        }
    }
}
