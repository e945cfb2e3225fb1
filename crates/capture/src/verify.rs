//! Whether rules are in force, found out by connections and not by reading rules back.
//!
//! A listener takes the proxy's place, a connection is made to an address that nobody has, and it must arrive at the listener with that
//! address as its original destination. Must never send a packet out: a destination is used only where the rules redirect it, and where
//! they are not in force it is one of the documentation ranges. Invariant: "captured" is said only of what a connection has shown.
//!
//! Incoming connections cannot be tried from inside; their rules are in the same transaction as the ones tried here.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{getegid, geteuid};

use crate::evaluate::{Packet, Way, redirected};
use crate::rules::{Table, Transport};
use crate::spec::{CaptureSpec, DnsServers, LoopGuard, Ranges};

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A connection to this address arrived at the proxy's place.
    Captured(Transport, SocketAddr),
    /// The proxy runs already, and something took a connection to this address.
    Answered(SocketAddr),
    /// Could not be tried, and why.
    Untried(Transport, SocketAddr, String),
    /// A connection to this address was not captured.
    Missing(Transport, SocketAddr, String),
}

impl Finding {
    /// Whether it shows that rules are in force.
    pub fn is_proof(&self) -> bool {
        matches!(self, Self::Captured(..) | Self::Answered(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Captured(transport, to) => write!(f, "{transport} to {to} is captured"),
            Self::Answered(to) => write!(f, "tcp to {to} is taken by the proxy that runs"),
            Self::Untried(transport, to, why) => write!(f, "{transport} to {to} not tried: {why}"),
            Self::Missing(transport, to, why) => write!(f, "{transport} to {to} is NOT captured: {why}"),
        }
    }
}

/// Why it is not known that rules are in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInForce {
    /// Made as the proxy's user, whose connections are never captured.
    #[error("user {uid}, group {gid} is the proxy's, whose connections are not captured: run as another user")]
    AsTheProxy {
        /// Effective user.
        uid: u32,
        /// Effective group.
        gid: u32,
    },
    /// Something was tried and not captured.
    #[error("{}; the pod's traffic would go past its proxy: is the init container or the CNI plugin in place (`fairlead cni installed` on the node)?", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Missing(Vec<Finding>),
    /// Nothing could be tried.
    #[error("nothing could be tried ({}): the pod needs a route to somewhere", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Untried(Vec<Finding>),
    /// What is captured leaves no connection from inside that would show it.
    #[error(
        "something is captured, and no connection from inside the pod is, so that nothing shows whether the rules are in force: annotations traffic.sidecar.istio.io/excludeOutboundIPRanges or excludeOutboundPorts leave nothing; write includeOutboundIPRanges: \"\" to capture incoming connections alone, or sidecar.istio.io/inject: \"false\""
    )]
    Unprovable,
}

/// Nothing leaves the machine: an answer is a matter of milliseconds, also on a node that is busy starting pods.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tries what `spec` says should be captured. An empty list: it captures nothing at all.
///
/// # Errors
/// Something is not captured, or nothing could be tried.
pub fn verify(spec: &CaptureSpec) -> Result<Vec<Finding>, NotInForce> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if matches!(spec.guard, LoopGuard::Owner { uid: u, gid: g } if u == uid || g == gid)
        || spec.exclude_uids.contains(&uid)
    {
        return Err(NotInForce::AsTheProxy { uid, gid });
    }
    let table = spec.table();
    let mut findings = Vec::new();
    for v6 in [false, true] {
        let to =
            destinations(spec, v6).into_iter().find(|to| goes_to(&table, Transport::Tcp, *to) == Some(spec.outbound));
        if let Some(to) = to {
            findings.push(tcp(to, spec.outbound));
        }
    }
    if let Some(dns) = &spec.dns {
        let server = match &dns.servers {
            DnsServers::Any => Some(IpAddr::V4(DOCUMENTATION_V4[0])),
            DnsServers::Only(servers) => servers.first().copied(),
        };
        let to = server.map(|server| SocketAddr::new(server, 53));
        if let Some(to) = to.filter(|to| goes_to(&table, Transport::Udp, *to) == Some(dns.port)) {
            findings.push(udp(to, dns.port, !dns.zones));
        }
    }
    if findings.iter().any(|finding| matches!(finding, Finding::Missing(..))) {
        return Err(NotInForce::Missing(findings));
    }
    if findings.is_empty() {
        return if spec.is_off() { Ok(findings) } else { Err(NotInForce::Unprovable) };
    }
    if !findings.iter().any(Finding::is_proof) {
        return Err(NotInForce::Untried(findings));
    }
    Ok(findings)
}

/// Addresses that nobody has (RFC 5737, RFC 3849): where rules are not in force, a packet to them goes nowhere. Those that are
/// captured where nothing else that leaves is ([`crate::spec::NOBODYS`]) come last: they prove nothing of the rest.
const DOCUMENTATION_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(192, 0, 2, 1)];
const DOCUMENTATION_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)];

/// Ports that are tried; a pod may leave some of them alone.
const USUAL: [u16; 8] = [80, 8080, 9080, 443, 9, 2000, 20_000, 40_000];

fn destinations(spec: &CaptureSpec, v6: bool) -> Vec<SocketAddr> {
    let mut addresses: Vec<IpAddr> = match v6 {
        true => DOCUMENTATION_V6.map(IpAddr::from).to_vec(),
        false => DOCUMENTATION_V4.map(IpAddr::from).to_vec(),
    };
    if let Ranges::Only(ranges) = &spec.outbound_ranges {
        addresses.extend(ranges.iter().map(|range| range.hosts().next().unwrap_or(range.addr())));
    }
    addresses.retain(|address| address.is_ipv6() == v6 && !address.is_loopback());
    let ports: Vec<u16> = spec.include_outbound_ports.iter().copied().chain(USUAL).collect();
    addresses.iter().flat_map(|address| ports.iter().map(|port| SocketAddr::new(*address, *port))).collect()
}

/// Whether the rules, were they in force, would redirect a connection of this process.
fn goes_to(table: &Table, transport: Transport, destination: SocketAddr) -> Option<u16> {
    let way = Way::Leaving { uid: geteuid().as_raw(), gid: getegid().as_raw(), mark: 0, by: "eth0".into() };
    let source = match destination {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::new(192, 0, 2, 200), 40000)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 200), 40000)),
    };
    redirected(table, &Packet { way, transport, source, destination })
}

fn own(to: SocketAddr, port: u16) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

fn tcp(to: SocketAddr, port: u16) -> Finding {
    let untried = |why: String| Finding::Untried(Transport::Tcp, to, why);
    let missing = |why: String| Finding::Missing(Transport::Tcp, to, why);
    if let Err(error) = way(to) {
        return untried(format!("no way there ({error})"));
    }
    let listener = match TcpListener::bind(own(to, port)) {
        Ok(listener) => Some(listener),
        // The proxy runs: whoever takes a connection to an address that nobody has is the proxy.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(error) => return untried(format!("port {port}: {error}")),
    };
    let stream = match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(stream) => stream,
        // Also "unreachable": there is a way, so it is somebody outside who says so.
        Err(error) => return missing(error.to_string()),
    };
    let Some(listener) = listener else { return Finding::Answered(to) };
    match accepted(&listener, &stream) {
        Ok(original) if original == to => Finding::Captured(Transport::Tcp, to),
        Ok(original) => missing(format!("it arrived as one to {original}")),
        Err(error) => missing(format!("somebody else took it ({error})")),
    }
}

/// Takes the connection that `stream` is the other end of, and tells where it was meant to go.
fn accepted(listener: &TcpListener, stream: &TcpStream) -> io::Result<SocketAddr> {
    listener.set_nonblocking(true)?;
    let caller = stream.local_addr()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((arrived, peer)) if peer == caller => {
                return match caller {
                    SocketAddr::V4(_) => {
                        let original = getsockopt(&arrived, sockopt::OriginalDst)?;
                        let address = Ipv4Addr::from(u32::from_be(original.sin_addr.s_addr));
                        Ok(SocketAddrV4::new(address, u16::from_be(original.sin_port)).into())
                    }
                    SocketAddr::V6(_) => {
                        let original = getsockopt(&arrived, sockopt::Ip6tOriginalDst)?;
                        let address = Ipv6Addr::from(original.sin6_addr.s6_addr);
                        Ok(SocketAddrV6::new(address, u16::from_be(original.sin6_port), 0, 0).into())
                    }
                };
            }
            // A program's connection, made in this moment.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

/// `answers`: whether an answer of this process would be taken for the proxy's; tracked apart, only the proxy's own find back.
fn udp(to: SocketAddr, port: u16, answers: bool) -> Finding {
    let untried = |why: String| Finding::Untried(Transport::Udp, to, why);
    if let Err(error) = way(to) {
        return untried(format!("no way there ({error})"));
    }
    let server = match UdpSocket::bind(own(to, port)) {
        Ok(server) => server,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return untried("the proxy runs already".into()),
        Err(error) => return untried(format!("port {port}: {error}")),
    };
    let ask = || -> io::Result<bool> {
        let asker = UdpSocket::bind(any(to))?;
        asker.send_to(QUESTION, to)?;
        server.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = [0; 64];
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (length, peer) = match server.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(false),
                Err(e) => return Err(e),
            };
            if &buffer[..length] == QUESTION && !answers {
                return Ok(true);
            }
            if &buffer[..length] == QUESTION {
                // The way back: an answer is believed only from whom was asked.
                server.send_to(QUESTION, peer)?;
                asker.set_read_timeout(Some(PATIENCE))?;
                return Ok(asker.recv_from(&mut buffer).is_ok_and(|(_, from)| from == to));
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
        }
    };
    match ask() {
        Ok(true) => Finding::Captured(Transport::Udp, to),
        Ok(false) => Finding::Missing(Transport::Udp, to, format!("nothing arrived at port {port}")),
        Err(error) => Finding::Missing(Transport::Udp, to, error.to_string()),
    }
}

/// No name server would take this for a question.
const QUESTION: &[u8] = b"fairlead-verify";

/// Whether this machine has a route there, without sending anything.
fn way(to: SocketAddr) -> io::Result<()> {
    UdpSocket::bind(any(to))?.connect(to)
}

fn any(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Ports;

    #[test]
    fn nothing_to_try_is_no_proof() {
        let mut spec = CaptureSpec::pod();
        spec.guard = LoopGuard::Mark(1);
        spec.dns = None;
        spec.exclude_outbound_ranges = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let error = verify(&spec).unwrap_err();
        assert_eq!(error, NotInForce::Unprovable);
        assert!(error.to_string().contains("traffic.sidecar.istio.io/excludeOutboundIPRanges"));
        spec.outbound_ranges = Ranges::Only(Vec::new());
        assert_eq!(verify(&spec), Err(NotInForce::Unprovable), "what arrives is captured, and is not tried");
        spec.inbound_ports = Ports::Only(Vec::new());
        assert_eq!(verify(&spec), Ok(Vec::new()), "switched off");
    }

    #[test]
    fn ports_that_are_left_alone_are_not_tried() {
        let mut spec = CaptureSpec::pod();
        spec.exclude_outbound_ports = vec![80, 8080, 9080];
        let table = spec.table();
        let found = destinations(&spec, false);
        let taken = found.iter().find(|to| goes_to(&table, Transport::Tcp, **to) == Some(spec.outbound));
        assert_eq!(taken.map(SocketAddr::port), Some(443));
    }
}
