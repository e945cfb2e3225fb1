//! Socket options: what every listener, downstream and upstream socket is set to.
//!
//! The only place that talks to the kernel about sockets. Invariant: an option that guards correctness (the mark that
//! breaks capture loops) is an error when it cannot be set; one that only tunes is not.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Unacknowledged data after which the kernel gives a connection up (design: paths are judged dead in 3 s).
pub const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// ztunnel's keepalive figures: notice a vanished peer without chatter.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(180);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Binds a listener. `reuse_port` lets several workers own the same port.
///
/// # Errors
/// What the kernel says of bind and listen; the address is in the message.
pub fn listen(address: SocketAddr, backlog: i32, reuse_port: bool, mark: Option<u32>) -> io::Result<TcpListener> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if let Some(mark) = mark {
            // Answers of accepted sockets carry the mark too, so capture rules never see them as new traffic.
            let _ = socket.set_mark(mark);
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|e| io::Error::new(e.kind(), format!("listen on {address}: {e}")))
}

/// Binds a listener for a service of the proxy's own. The wildcard address means both families, as far as this machine has them.
///
/// # Errors
/// What the kernel says of bind and listen; the address is in the message. Of the wildcard, only if neither family can be had.
pub fn listen_on_all(address: SocketAddr, backlog: i32) -> io::Result<Vec<TcpListener>> {
    let first = listen(address, backlog, false, None);
    let Some(other) = other_wildcard(address) else { return first.map(|listener| vec![listener]) };
    let port =
        first.as_ref().ok().and_then(|listener| Some(listener.local_addr().ok()?.port())).unwrap_or(address.port());
    match (first, listen(SocketAddr::new(other, port), backlog, false, None)) {
        (Ok(first), Ok(second)) => Ok(vec![first, second]),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(vec![one]),
        (Err(error), Err(_)) => Err(error),
    }
}

/// The wildcard address of the other family, if this is one.
pub fn other_wildcard(address: SocketAddr) -> Option<IpAddr> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Some(Ipv6Addr::UNSPECIFIED.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv4Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

/// Options of an accepted downstream socket.
pub fn tune_downstream(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive());
}

/// Where the caller meant to go before capture redirected it: `SO_ORIGINAL_DST`, if conntrack knows one.
pub fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr().ok()?;
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    found.ok().and_then(|address| address.as_socket())
}

/// A socket ready to connect, marked when `mark` is given.
///
/// # Errors
/// The mark could not be set: without it the proxy would capture its own traffic for ever.
pub fn upstream(remote: SocketAddr, source: Option<SocketAddr>, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let options = SockRef::from(&socket);
    if let Some(mark) = mark {
        options.set_mark(mark).map_err(|e| io::Error::new(e.kind(), format!("SO_MARK {mark}: {e}")))?;
    }
    let _ = options.set_tcp_nodelay(true);
    let _ = options.set_tcp_keepalive(&keepalive());
    let _ = options.set_tcp_user_timeout(Some(USER_TIMEOUT));
    if let Some(source) = source {
        // Else the port is chosen before the destination is known, and one address has few of them.
        let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true);
        socket.bind(source)?;
    }
    Ok(socket)
}

/// Makes closing a socket send RST, for callers that were refused after the connection was accepted.
pub fn reset_on_close(socket: &impl AsFd) {
    let _ = SockRef::from(&socket.as_fd()).set_linger(Some(Duration::ZERO));
}

/// IPv4-mapped IPv6 addresses as IPv4, so that rules written for IPv4 match.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::V4(SocketAddrV4::new(ip, v6.port())),
            None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())),
        },
        v4 => v4,
    }
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL)
}

/// Marks a socket that someone else made.
///
/// # Errors
/// The kernel refused (`CAP_NET_ADMIN` is needed).
pub fn mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    SockRef::from(&socket.as_fd()).set_mark(mark)
}
