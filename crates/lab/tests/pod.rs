//! Capture in a pod, in a real kernel: a namespace with one way out, a node behind it, and connections of program and proxy.
//!
//! As root the proxy is told by its user, as in Kubernetes; without privileges it runs in a lab, where there is one user only, and tells it
//! by mark. Nothing waits for time to pass but for what must not arrive.

#![allow(clippy::unwrap_used)] // A test: clippy knows only those of the standard harness.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fairlead_capture::verify::{NotInForce, verify};
use fairlead_capture::{CaptureSpec, DnsServers, LoopGuard, PASSTHROUGH, Ports, install};
use fairlead_lab::Role;
use fairlead_lab::links::{self, Route, RouteAction};
use fairlead_lab::netns::NetNs;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

const MARK: u32 = 1337;
const POD: [&str; 2] = ["10.9.0.2", "fd09::2"];
const NODE: [&str; 2] = ["10.9.0.1", "fd09::1"];
/// Addresses that nobody has.
const SERVICE: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let role = match fairlead_lab::role() {
        Ok(role) => role,
        Err(e) => panic!("{e}"),
    };
    if std::env::args().any(|argument| argument == "--list") {
        println!("capture_in_a_pod: test");
        return ExitCode::SUCCESS;
    }
    match role {
        Role::Inside(_) => scenario(LoopGuard::Mark(MARK)),
        _ if Uid::effective().is_root() => scenario(LoopGuard::Owner { uid: 1337, gid: 1337 }),
        _ => match fairlead_lab::enter_with(Vec::new(), Vec::new()) {
            Ok(code) => return ExitCode::from(code as u8),
            Err(e) => panic!("{e}"),
        },
    }
    println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
    ExitCode::SUCCESS
}

/// Who makes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Program,
    Proxy,
    /// Another user of the proxy's group.
    Group,
}

/// A pod and its node.
struct Pair {
    pod: NetNs,
    node: NetNs,
    guard: LoopGuard,
}

impl Pair {
    fn new(guard: LoopGuard) -> Self {
        let (pod, node) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let inside = pod.clone();
        node.run(move || {
            links::bridge("br0").unwrap();
            links::set_up("br0", true).unwrap();
            links::veth("v0", "br0", "eth0", inside.as_fd()).unwrap();
            links::add_addresses("br0", &addresses(NODE)).unwrap();
            links::add_routes(&neighbours(POD, "br0")).unwrap();
        })
        .unwrap();
        pod.run(|| {
            links::set_up("eth0", true).unwrap();
            links::add_addresses("eth0", &addresses(POD)).unwrap();
            links::add_routes(&neighbours(NODE, "eth0")).unwrap();
            let outside = NODE.map(|router| Route {
                to: if router.contains(':') { "::/0" } else { "0.0.0.0/0" }.parse().unwrap(),
                action: RouteAction::Via { device: "eth0".into(), router: router.parse().unwrap(), source: None },
            });
            links::add_routes(&outside).unwrap();
        })
        .unwrap();
        Self { pod, node, guard }
    }

    /// A socket of `who` in the pod, bound if need be.
    fn socket(&self, who: Who, kind: SockType, from: Option<SocketAddr>, v6: bool) -> OwnedFd {
        let guard = self.guard;
        self.pod
            .run(move || {
                if let (LoopGuard::Owner { uid, gid }, Who::Proxy | Who::Group) = (guard, who) {
                    // Of this thread alone, which ends with the work.
                    setfsgid(Gid::from_raw(gid));
                    setfsuid(Uid::from_raw(if who == Who::Proxy { uid } else { 2000 }));
                } else if let LoopGuard::Owner { .. } = guard {
                    setfsgid(Gid::from_raw(1000));
                    setfsuid(Uid::from_raw(1000));
                }
                let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
                let made = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
                if let (LoopGuard::Mark(mark), Who::Proxy | Who::Group) = (guard, who) {
                    setsockopt(&made, sockopt::Mark, &mark).unwrap();
                }
                if let Some(from) = from {
                    setsockopt(&made, sockopt::ReuseAddr, &true).unwrap();
                    bind(made.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
                }
                made
            })
            .unwrap()
    }

    /// What is read from a connection of `who`.
    fn call(&self, who: Who, from: Option<IpAddr>, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().unwrap();
        let from = from.map(|ip| SocketAddr::new(ip, 0));
        let made = self.socket(who, SockType::Stream, from, to.is_ipv6());
        setsockopt(&made, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(5, 0)).unwrap();
        connect(made.as_raw_fd(), &SockaddrStorage::from(to))?;
        read(TcpStream::from(made))
    }

    fn call_from_node(&self, to: &str) -> io::Result<String> {
        let to: SocketAddr = to.parse().unwrap();
        self.node.run(move || TcpStream::connect_timeout(&to, PATIENCE).and_then(read)).unwrap()
    }

    /// Asks by UDP and gives the answer and whom it is from.
    fn ask(&self, who: Who, port: u16, to: &str) -> io::Result<(String, SocketAddr)> {
        let to: SocketAddr = to.parse().unwrap();
        let any = if to.is_ipv6() { "::" } else { "0.0.0.0" };
        let made =
            self.socket(who, SockType::Datagram, Some(SocketAddr::new(any.parse().unwrap(), port)), to.is_ipv6());
        let asker = UdpSocket::from(made);
        asker.set_read_timeout(Some(PATIENCE))?;
        asker.send_to(b"?", to)?;
        let mut buffer = [0; 128];
        let (length, from) = asker.recv_from(&mut buffer)?;
        Ok((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
    }
}

fn scenario(guard: LoopGuard) {
    let pair = Pair::new(guard);
    let mut spec = CaptureSpec { guard, ..CaptureSpec::pod() };
    spec.inbound_ports = Ports::AllBut(vec![15021]);
    spec.dns.as_mut().unwrap().servers = DnsServers::Only(addresses(NODE));
    // Before: nothing holds, and that is noticed.
    let checked = spec.clone();
    let before = pair.pod.run(move || verify(&checked)).unwrap();
    assert!(matches!(before, Err(NotInForce::Missing(_))), "{before:?}");
    let mut backends = vec!["nftables"];
    if Uid::effective().is_root() && ["iptables-restore", "ip6tables-restore"].iter().all(|p| is_installed(p)) {
        backends.push("iptables");
    } else {
        println!("iptables: not tried, it needs root and its programs");
    }
    for backend in backends {
        let (installed, checked) = (spec.clone(), spec.clone());
        let put = move |spec: &CaptureSpec| match backend {
            "nftables" => install::nftables(spec).unwrap(),
            _ => install::iptables(spec).unwrap(),
        };
        // Twice is once.
        let notes = pair.pod.run(move || [put(&installed), put(&installed)].concat()).unwrap();
        assert_eq!(notes, Vec::<String>::new(), "{backend}");
        let proofs = pair.pod.run(move || verify(&checked)).unwrap().unwrap();
        assert!(proofs.len() == 3 && proofs.iter().all(|proof| proof.is_proof()), "{backend}: {proofs:?}");
        connections(&pair, backend);
        let (undone, checked) = (spec.clone(), spec.clone());
        pair.pod
            .run(move || match backend {
                "nftables" => install::undo_nftables().unwrap(),
                _ => install::undo_iptables(&undone).unwrap(),
            })
            .unwrap();
        let after = pair.pod.run(move || verify(&checked)).unwrap();
        assert!(matches!(after, Err(NotInForce::Missing(_))), "{backend}: {after:?}");
        println!("test capture_in_a_pod ({backend}, {guard:?}) ... ok");
    }
}

fn connections(pair: &Pair, backend: &str) {
    // Both families: the standard library leaves IPV6_V6ONLY off.
    let ports = [15001, 15006, 15053, 15021];
    let mut servers: Vec<_> = ports.iter().map(|p| serve(&pair.pod, &at("::", *p), &p.to_string())).collect();
    for (pod, node) in POD.iter().zip(NODE) {
        servers.push(serve(&pair.pod, &at(pod, 8080), "program"));
        servers.push(serve(&pair.node, &at(node, 9000), "node"));
        servers.push(serve(&pair.node, &at(node, 53), "names"));
        servers.push(answer(&pair.pod, &at(if pod.contains(':') { "::1" } else { "127.0.0.1" }, 15053), "proxy"));
        servers.push(answer(&pair.node, &at(node, 53), "names"));
    }
    for (family, ((pod, node), service)) in POD.iter().zip(NODE).zip(SERVICE).enumerate() {
        let passthrough = PASSTHROUGH[family];
        let cases = [
            ("a program calls a service", Who::Program, None, at(service, 80), "15001"),
            ("a program calls the node", Who::Program, None, at(node, 9000), "15001"),
            ("the proxy calls the node", Who::Proxy, None, at(node, 9000), "node"),
            ("the proxy's group", Who::Group, None, at(node, 9000), "node"),
            ("a program calls itself by its address", Who::Program, None, at(pod, 8080), "program"),
            ("the proxy calls its own workload", Who::Proxy, None, at(pod, 8080), "15006"),
            ("the proxy reaches its program", Who::Proxy, Some(passthrough), at(pod, 8080), "program"),
            ("a program asks for a name over TCP", Who::Program, None, at(node, 53), "15053"),
            ("the proxy asks for a name over TCP", Who::Proxy, None, at(node, 53), "names"),
        ];
        for (why, who, from, to, expected) in cases {
            assert_eq!(pair.call(who, from, &to).unwrap(), expected, "{backend}: {why} ({to})");
        }
        for (port, expected) in [(8080, "15006"), (9999, "15006"), (15021, "15021")] {
            assert_eq!(
                pair.call_from_node(&at(pod, port)).unwrap(),
                expected,
                "{backend}: from the node to {port} of {pod}"
            );
        }
        // The same source port, one after the other: the proxy's question is not taken for the program's.
        let server: SocketAddr = at(node, 53).parse().unwrap();
        for round in 0..2 {
            let who_asks = [(Who::Program, "proxy"), (Who::Proxy, "names")];
            for (who, expected) in who_asks {
                // The stand-in for the proxy's name server is told by mark or user as the proxy is.
                let (text, from) = pair.ask(who, 40053, &at(node, 53)).unwrap();
                assert_eq!((text.as_str(), from), (expected, server), "{backend}: {who:?} asks {node}, round {round}");
            }
        }
    }
    drop(servers);
}

/// A TCP server that tells each caller `name`; ends with what is returned.
fn serve(namespace: &NetNs, address: &str, name: &str) -> Sender<()> {
    let address: SocketAddr = address.parse().unwrap();
    let listener = namespace.run(move || TcpListener::bind(address)).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (end, ended) = channel();
    let name = name.to_owned();
    std::thread::spawn(move || {
        until(&ended, || {
            if let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(name.as_bytes());
            }
        });
    });
    end
}

/// A UDP server that tells each asker `name`, as the user that the proxy is told by.
fn answer(namespace: &NetNs, address: &str, name: &'static str) -> Sender<()> {
    let address: SocketAddr = address.parse().unwrap();
    let server = namespace
        .run(move || {
            if Uid::effective().is_root() && address.port() == 15053 {
                setfsgid(Gid::from_raw(1337));
                setfsuid(Uid::from_raw(1337));
            }
            let server = UdpSocket::bind(address).unwrap();
            if address.port() == 15053 {
                let _ = setsockopt(&server, sockopt::Mark, &MARK);
            }
            server
        })
        .unwrap();
    server.set_nonblocking(true).unwrap();
    let (end, ended) = channel();
    std::thread::spawn(move || {
        until(&ended, || {
            let mut buffer = [0; 128];
            if let Ok((_, peer)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(name.as_bytes(), peer);
            }
        });
    });
    end
}

fn until(ended: &Receiver<()>, mut work: impl FnMut()) {
    while ended.recv_timeout(Duration::from_millis(2)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        work();
    }
}

fn read(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn addresses(texts: [&str; 2]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn neighbours(texts: [&str; 2], device: &str) -> Vec<Route> {
    let route = |address: IpAddr| Route {
        to: address.into(),
        action: RouteAction::Link { device: device.to_owned(), source: None },
    };
    addresses(texts).into_iter().map(route).collect()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}
