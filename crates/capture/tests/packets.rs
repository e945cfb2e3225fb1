//! The rules against packets: a table of the cases that matter, and every packet of a grid against a model of Istio's chains.
//!
//! The model is written from the published shape of `ISTIO_OUTPUT`, `ISTIO_INBOUND` and the rules for names, rule by rule in their
//! order. Where ours decide otherwise is listed here with its reason; anything else that differs fails.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use fairlead_capture::evaluate::{Packet, Way, redirected};
use fairlead_capture::rules::Transport;
use fairlead_capture::{CaptureSpec, DnsServers, LoopGuard, Ports, Ranges};
use std::net::{IpAddr, SocketAddr};

const POD: &str = "10.0.0.7";
const POD_V6: &str = "fd00::7";
const SERVER: &str = "10.96.0.10";
const PROGRAM: (u32, u32) = (1000, 1000);
const PROXY: (u32, u32) = (1337, 1337);

fn pod() -> CaptureSpec {
    let mut spec = CaptureSpec::pod();
    spec.dns.as_mut().unwrap().servers = DnsServers::Only(vec![SERVER.parse().unwrap(), "fd00:96::a".parse().unwrap()]);
    spec
}

fn packet(way: Way, transport: Transport, source: &str, to: &str) -> Packet {
    let source = SocketAddr::new(source.parse().unwrap(), 40000);
    Packet { way, transport, source, destination: to.parse().unwrap() }
}

/// A connection made in the pod: by `lo` where it goes to an own address.
fn leaving(owner: (u32, u32), transport: Transport, to: &str) -> Packet {
    let destination: SocketAddr = to.parse().unwrap();
    let own = |ip: IpAddr| ip.is_loopback() || [POD, POD_V6].iter().any(|own| own.parse() == Ok(ip));
    let by = if own(destination.ip()) { "lo" } else { "eth0" };
    let source = match destination.ip() {
        ip if ip.is_loopback() => ip.to_string(),
        IpAddr::V4(_) => POD.to_owned(),
        IpAddr::V6(_) => POD_V6.to_owned(),
    };
    let way = Way::Leaving { uid: owner.0, gid: owner.1, mark: 0, by: by.into() };
    packet(way, transport, &source, to)
}

fn arriving(by: &str, transport: Transport, to: &str) -> Packet {
    let source = if to.starts_with('[') { "fd00::99" } else { "10.0.0.1" };
    packet(Way::Arriving(by.into()), transport, source, to)
}

#[test]
fn who_is_redirected_where() {
    use Transport::{Tcp, Udp};
    let mut passthrough = leaving(PROXY, Tcp, "10.0.0.7:8080");
    passthrough.source = "127.0.0.6:40000".parse().unwrap();
    let mut passthrough_v6 = leaving(PROXY, Tcp, "[fd00::7]:8080");
    passthrough_v6.source = "[::6]:40000".parse().unwrap();
    let cases = [
        ("a program calls a service", leaving(PROGRAM, Tcp, "10.96.7.7:80"), Some(15001)),
        ("over IPv6", leaving(PROGRAM, Tcp, "[fd00:96::7]:80"), Some(15001)),
        ("as root", leaving((0, 0), Tcp, "10.96.7.7:80"), Some(15001)),
        ("a program calls itself by its address", leaving(PROGRAM, Tcp, "10.0.0.7:8080"), None),
        ("by loopback", leaving(PROGRAM, Tcp, "127.0.0.1:8080"), None),
        ("by IPv6 loopback", leaving(PROGRAM, Tcp, "[::1]:8080"), None),
        ("a program asks for the proxy's administration", leaving(PROGRAM, Tcp, "127.0.0.1:15000"), None),
        ("the proxy calls another pod", leaving(PROXY, Tcp, "10.0.0.9:15006"), None),
        ("the proxy's group alone is enough", leaving((2000, 1337), Tcp, "10.0.0.9:80"), None),
        ("the proxy reaches its program", passthrough, None),
        ("over IPv6", passthrough_v6, None),
        ("the proxy reaches its program by loopback", leaving(PROXY, Tcp, "127.0.0.1:8080"), None),
        ("a program called itself through its service", leaving(PROXY, Tcp, "10.0.0.7:8080"), Some(15006)),
        ("a program asks for a name", leaving(PROGRAM, Udp, "10.96.0.10:53"), Some(15053)),
        ("over TCP", leaving(PROGRAM, Tcp, "10.96.0.10:53"), Some(15053)),
        ("over IPv6", leaving(PROGRAM, Udp, "[fd00:96::a]:53"), Some(15053)),
        ("another server is none of ours", leaving(PROGRAM, Udp, "192.0.2.53:53"), None),
        ("over TCP it is a connection", leaving(PROGRAM, Tcp, "192.0.2.53:53"), Some(15001)),
        ("the proxy asks the real server", leaving(PROXY, Udp, "10.96.0.10:53"), None),
        ("over TCP", leaving(PROXY, Tcp, "10.96.0.10:53"), None),
        ("other UDP goes by", leaving(PROGRAM, Udp, "10.96.7.7:443"), None),
        ("somebody calls the program", arriving("eth0", Tcp, "10.0.0.7:8080"), Some(15006)),
        ("over IPv6", arriving("eth0", Tcp, "[fd00::7]:8080"), Some(15006)),
        ("the kubelet asks the proxy", arriving("eth0", Tcp, "10.0.0.7:15021"), None),
        ("the kubelet asks the program through the proxy", arriving("eth0", Tcp, "10.0.0.7:15020"), None),
        ("a scraper", arriving("eth0", Tcp, "10.0.0.7:15090"), None),
        ("a tunnel", arriving("eth0", Tcp, "10.0.0.7:15008"), None),
        ("the kubelet asks the program itself", arriving("eth0", Tcp, "10.0.0.7:9090"), Some(15006)),
        ("UDP goes by", arriving("eth0", Udp, "10.0.0.7:8080"), None),
    ];
    let table = pod().table();
    for (why, packet, expected) in cases {
        assert_eq!(redirected(&table, &packet), expected, "{why}: {packet:?}");
    }
}

/// Istio's chains for these options (tools/istio-iptables, REDIRECT mode).
fn istio(spec: &CaptureSpec, packet: &Packet) -> Option<u16> {
    let to = packet.destination;
    let tcp = packet.transport == Transport::Tcp;
    let in_ranges = |ranges: &Ranges| match ranges {
        Ranges::All => true,
        Ranges::Only(some) => some.iter().any(|range| range.contains(&to.ip())),
    };
    let (owner, by) = match &packet.way {
        Way::Arriving(by) => {
            // PREROUTING
            if !tcp || spec.exclude_interfaces.contains(by) {
                return None;
            }
            if spec.virtual_interfaces.contains(by) {
                return in_ranges(&spec.outbound_ranges).then_some(15001);
            }
            // ISTIO_INBOUND
            let captured = to.port() != 15008
                && match &spec.inbound_ports {
                    Ports::AllBut(ports) => !ports.contains(&to.port()),
                    Ports::Only(ports) => ports.contains(&to.port()),
                };
            return captured.then_some(15006);
        }
        Way::Leaving { uid, gid, by, .. } => ((*uid, *gid), by),
    };
    let LoopGuard::Owner { uid, gid } = spec.guard else { unreachable!() };
    if spec.exclude_interfaces.contains(by) {
        return None;
    }
    let servers = match spec.dns.as_ref().map(|dns| &dns.servers) {
        Some(DnsServers::Only(servers)) => servers.clone(),
        _ => Vec::new(),
    };
    let asks = to.port() == 53 && servers.contains(&to.ip());
    if !tcp {
        let proxy = owner.0 == uid || owner.1 == gid;
        return (!proxy && asks).then_some(15053);
    }
    // ISTIO_OUTPUT
    if spec.exclude_outbound_ports.contains(&to.port()) {
        return None;
    }
    let lo = by == "lo";
    let passthrough: [IpAddr; 2] = ["127.0.0.6".parse().unwrap(), "::6".parse().unwrap()];
    if lo && passthrough.contains(&packet.source.ip()) {
        return None;
    }
    let one: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let to_one = one.contains(&to.ip());
    let includes_loopback = match &spec.outbound_ranges {
        Ranges::All => false,
        Ranges::Only(ranges) => ranges.iter().any(|range| range.addr().is_loopback()),
    };
    let without = if spec.dns.is_some() { vec![53, 15008] } else { vec![15008] };
    for owned in [owner.0 == uid, owner.1 == gid] {
        if lo && !to_one && owned && !without.contains(&to.port()) {
            return Some(15006);
        }
        let asks_over_tcp = spec.dns.is_some() && to.port() == 53;
        if !includes_loopback && lo && !owned && !asks_over_tcp {
            return None;
        }
        if owned {
            return None;
        }
    }
    if asks {
        return Some(15053);
    }
    if to_one || spec.exclude_outbound_ranges.iter().any(|range| range.contains(&to.ip())) {
        return None;
    }
    if spec.include_outbound_ports.contains(&to.port()) || in_ranges(&spec.outbound_ranges) {
        return Some(15001);
    }
    None
}

/// Why ours may decide otherwise, if it may.
fn difference(packet: &Packet, spec: &CaptureSpec) -> Option<&'static str> {
    let Way::Leaving { uid, gid, by, .. } = &packet.way else { return None };
    let to = packet.destination;
    if by != "lo" {
        return None;
    }
    if (*uid == 1337 || *gid == 1337) && to.ip().is_loopback() {
        return Some("the proxy to 127.0.0.2: Istio takes every loopback address but 127.0.0.1 for the workload's own");
    }
    if *gid == 1337 && *uid != 1337 {
        return Some("the proxy's group under another user: Istio's rule for the user lets its calls to itself go by");
    }
    if to.port() == 53 && packet.transport == Transport::Tcp && *uid != 1337 {
        let included = spec.include_outbound_ports.contains(&53);
        return (!included).then_some("a name server in the pod itself, over TCP: Istio sends its callers to 15001");
    }
    None
}

#[test]
fn every_packet_of_a_grid_as_istio_decides() {
    let net = |text: &str| text.parse().unwrap();
    let specs = [
        pod(),
        CaptureSpec { dns: None, ..pod() },
        CaptureSpec {
            inbound_ports: Ports::Only(vec![8080]),
            exclude_outbound_ports: vec![3306],
            exclude_interfaces: vec!["eth1".into()],
            exclude_outbound_ranges: vec![net("192.0.2.0/24"), net("2001:db8::/32")],
            ..pod()
        },
        CaptureSpec {
            outbound_ranges: Ranges::Only(vec![net("10.96.0.0/12"), net("fd00:96::/64")]),
            include_outbound_ports: vec![443],
            exclude_outbound_ranges: vec![net("10.96.9.0/24")],
            virtual_interfaces: vec!["k6t-eth0".into()],
            ..pod()
        },
        CaptureSpec { outbound_ranges: Ranges::Only(vec![]), inbound_ports: Ports::Only(vec![]), ..pod() },
        CaptureSpec { outbound_ranges: Ranges::Only(vec![net("127.0.0.0/8"), net("10.96.0.0/12")]), ..pod() },
        CaptureSpec { virtual_interfaces: vec!["k6t-eth0".into()], ..pod() },
    ];
    let addresses = [
        "10.96.7.7",
        "10.96.9.9",
        "192.0.2.9",
        SERVER,
        POD,
        "127.0.0.1",
        "127.0.0.2",
        "[fd00:96::7]",
        "[fd00:96::a]",
        "[2001:db8::9]",
        "[fd00::7]",
        "[::1]",
    ];
    let ports = [53, 80, 443, 3306, 8080, 15000, 15008, 15020, 15021];
    let (mut seen, mut different) = (0, 0);
    for spec in &specs {
        let table = spec.table();
        for address in addresses {
            for port in ports {
                for transport in [Transport::Tcp, Transport::Udp] {
                    let to = format!("{address}:{port}");
                    let mut packets: Vec<Packet> = [(0, 0), PROGRAM, PROXY, (1337, 1000), (2000, 1337)]
                        .map(|owner| leaving(owner, transport, &to))
                        .into();
                    let mut by_another = leaving(PROGRAM, transport, &to);
                    if let Way::Leaving { by, .. } = &mut by_another.way
                        && by == "eth0"
                    {
                        *by = "eth1".into();
                    }
                    packets.push(by_another);
                    let from_the_listener = |mut packet: Packet| {
                        packet
                            .source
                            .set_ip(if packet.destination.is_ipv4() { "127.0.0.6" } else { "::6" }.parse().unwrap());
                        packet
                    };
                    packets.push(from_the_listener(leaving(PROXY, transport, &to)));
                    if !to.parse::<SocketAddr>().unwrap().ip().is_loopback() {
                        packets.extend(["eth0", "eth1", "k6t-eth0"].map(|by| arriving(by, transport, &to)));
                    }
                    for packet in packets {
                        seen += 1;
                        let (ours, theirs) = (redirected(&table, &packet), istio(spec, &packet));
                        if ours != theirs {
                            different += 1;
                            let why = difference(&packet, spec);
                            assert!(why.is_some(), "ours {ours:?}, Istio's {theirs:?}: {packet:?} under {spec:?}");
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 10_000 && different > 0, "{seen} packets, {different} decided otherwise");
}

#[test]
fn users_that_are_excluded_go_by() {
    let spec = CaptureSpec { exclude_uids: vec![2000], ..pod() };
    let table = spec.table();
    for (transport, to) in [(Transport::Tcp, "10.96.7.7:80"), (Transport::Udp, "10.96.0.10:53")] {
        assert_eq!(redirected(&table, &leaving((2000, 2000), transport, to)), None);
        assert!(redirected(&table, &leaving(PROGRAM, transport, to)).is_some());
    }
}

#[test]
fn the_lab_decides_by_mark_what_a_pod_decides_by_user() {
    let lab = CaptureSpec::new(LoopGuard::Mark(1337)).table();
    let mut spec = CaptureSpec::pod();
    spec.dns.as_mut().unwrap().servers = DnsServers::Any;
    let pods = spec.table();
    for address in ["10.96.7.7:80", "10.96.0.10:53", "10.0.0.7:8080", "127.0.0.1:80", "[fd00::7]:8080"] {
        for transport in [Transport::Tcp, Transport::Udp] {
            for proxy in [true, false] {
                let by_user = leaving(if proxy { PROXY } else { PROGRAM }, transport, address);
                let mut by_mark = by_user.clone();
                if let Way::Leaving { uid, gid, mark, .. } = &mut by_mark.way {
                    (*uid, *gid, *mark) = (0, 0, if proxy { 1337 } else { 0 });
                }
                assert_eq!(redirected(&lab, &by_mark), redirected(&pods, &by_user), "{by_user:?}");
            }
        }
    }
}
