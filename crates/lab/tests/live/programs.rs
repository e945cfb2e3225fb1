//! What runs in the lab: an echo, a minimal proxy, and programs that end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;

use nix::sys::socket::{getsockopt, sockopt};

pub fn main(words: &[&str]) -> ExitCode {
    match words {
        ["echo", name, port] => echo(name, port.parse().unwrap()),
        ["proxy", virtuals @ ..] => proxy(virtuals),
        ["copy", from, to] => {
            std::fs::copy(from, format!("{to}.part")).unwrap();
            std::fs::rename(format!("{to}.part"), to).unwrap();
            loop {
                thread::park();
            }
        }
        ["crash"] => {
            println!("the last words");
            ExitCode::from(3)
        }
        other => panic!("no such program: {other:?}"),
    }
}

/// Says who it is and who called, then repeats lines.
fn echo(name: &str, port: u16) -> ExitCode {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    for stream in listener.incoming() {
        let (mut stream, name) = (stream.unwrap(), name.to_owned());
        thread::spawn(move || -> std::io::Result<()> {
            writeln!(stream, "{name} {}", stream.peer_addr()?.ip().to_canonical())?;
            for line in BufReader::new(stream.try_clone()?).lines() {
                writeln!(stream, "{}", line?)?;
            }
            Ok(())
        });
    }
    ExitCode::SUCCESS
}

/// Passes captured connections on, saying so first. `virtuals`: `240.240.0.1:80=10.0.0.2:9000`.
fn proxy(virtuals: &[&str]) -> ExitCode {
    let virtuals: Vec<(SocketAddr, SocketAddr)> = virtuals
        .iter()
        .map(|v| v.split_once('=').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap())
        .collect();
    let inbound = TcpListener::bind("0.0.0.0:15006").unwrap();
    let dns = UdpSocket::bind("127.0.0.1:15053").unwrap();
    let outbound = TcpListener::bind("0.0.0.0:15001").unwrap();
    thread::spawn(move || {
        for stream in inbound.incoming() {
            let stream = stream.unwrap();
            thread::spawn(|| pass("inbound", stream, Some(Ipv4Addr::new(127, 0, 0, 6)), |original| original));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = dns.recv_from(&mut buffer).unwrap();
            dns.send_to(&[b"answer to ", &buffer[..length]].concat(), from).unwrap();
        }
    });
    for stream in outbound.incoming() {
        let (stream, virtuals) = (stream.unwrap(), virtuals.clone());
        thread::spawn(move || {
            let target = |original| virtuals.iter().find(|(v, _)| *v == original).map_or(original, |(_, real)| *real);
            pass("outbound", stream, None, target)
        });
    }
    ExitCode::SUCCESS
}

fn pass(direction: &str, mut down: TcpStream, source: Option<Ipv4Addr>, target: impl FnOnce(SocketAddr) -> SocketAddr) {
    let original = original_destination(&down);
    writeln!(down, "{direction} {original}").unwrap();
    let up = connect_marked(target(original), source);
    let (mut down_in, mut up_out) = (down.try_clone().unwrap(), up.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut down_in, &mut up_out));
    let mut up = up;
    let _ = std::io::copy(&mut up, &mut down);
}

pub fn original_destination(stream: &impl std::os::fd::AsFd) -> SocketAddr {
    let raw = getsockopt(stream, sockopt::OriginalDst).unwrap();
    SocketAddrV4::new(Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)), u16::from_be(raw.sin_port)).into()
}

fn connect_marked(target: SocketAddr, source: Option<Ipv4Addr>) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket};
    use std::os::fd::AsRawFd;
    let SocketAddr::V4(target) = target else { panic!("{target}") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::Mark, &fairlead_capture::PROXY_MARK).unwrap();
    if let Some(source) = source {
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0))).unwrap();
    }
    connect(socket.as_raw_fd(), &SockaddrIn::from(target)).unwrap();
    TcpStream::from(socket)
}

/// Reads to the end, for those who only listen.
pub fn drain(mut from: impl Read) {
    let mut buffer = [0; 256];
    while matches!(from.read(&mut buffer), Ok(n) if n > 0) {}
}
