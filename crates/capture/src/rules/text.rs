//! Tables in nft's syntax: `nft -f` takes this text, and `nft list table` prints nearly the same.

use std::fmt::{self, Display, Formatter};

use ipnet::IpNet;

use super::{Chain, Family, Hook, Match, Rule, Table, Transport, Verdict};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{\n\t\t{}; policy accept;", self.name, self.hook)?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::NatPrerouting => "type nat hook prerouting priority dstnat",
            // nft has no name for it at this hook.
            Hook::NatOutput => "type nat hook output priority -100",
            Hook::NatPostrouting => "type nat hook postrouting priority srcnat",
            Hook::FilterPrerouting => "type filter hook prerouting priority raw",
            Hook::FilterForward => "type filter hook forward priority raw",
            Hook::FilterOutput => "type filter hook output priority raw",
            Hook::FilterPostrouting => "type filter hook postrouting priority raw",
        })
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        write!(f, "{}", self.verdict)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ip = |net: &IpNet| if matches!(net, IpNet::V4(_)) { "ip" } else { "ip6" };
        let prefix = |net: &IpNet| match net.prefix_len() == net.max_prefix_len() {
            true => net.addr().to_string(),
            false => net.to_string(),
        };
        match self {
            Match::Mark(mark) => write!(f, "meta mark {mark:#x}"),
            Match::Owner(uid) => write!(f, "meta skuid {uid}"),
            Match::Group(gid) => write!(f, "meta skgid {gid}"),
            Match::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Match::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Match::From(name) => write!(f, "iifname \"{name}\""),
            Match::NotFrom(name) => write!(f, "iifname != \"{name}\""),
            Match::By(name) => write!(f, "oifname \"{name}\""),
            Match::NotBy(name) => write!(f, "oifname != \"{name}\""),
            Match::Transport(transport) => write!(f, "meta l4proto {transport}"),
            Match::Port(transport, port) => write!(f, "{transport} dport {port}"),
            Match::SourcePort(transport, port) => write!(f, "{transport} sport {port}"),
            Match::Source(net) => write!(f, "{} saddr {}", ip(net), prefix(net)),
            Match::Destination(net) => write!(f, "{} daddr {}", ip(net), prefix(net)),
        }
    }
}

impl Display for Transport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Redirect(port) => write!(f, "redirect to :{port}"),
            Verdict::Masquerade => f.write_str("masquerade"),
            Verdict::Reset => f.write_str("reject with tcp reset"),
            Verdict::Zone(zone) => write!(f, "ct zone set {zone} accept"),
            Verdict::NoRoute => f.write_str("reject with icmpx type no-route"),
        }
    }
}
