//! Where a control plane listens: a wildcard address means both address families, as for a proxy.
//!
//! One socket takes both, so that what is bounded for a listener stays so. Invariant: nobody is told of an IPv4 caller as `::ffff:…`
//! ([`caller`]): bounds are by source, and all of IPv4 would be one IPv6 prefix.

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

/// Whoever is not in it is heard seconds later, when its kernel says again what it said; after a restart thousands come at once. The
/// kernel takes less where it is told so (`net.core.somaxconn`).
const BACKLOG: i32 = 16_384;

/// Opens a socket that listens.
///
/// # Errors
/// What the kernel says; the address is in the message.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let address = caller(address);
    if address.ip().is_unspecified()
        && let Ok(listener) = open((Ipv6Addr::UNSPECIFIED, address.port()).into())
    {
        return Ok(listener);
    }
    open(address).with_context(|| format!("cannot listen on {address}"))
}

/// An IPv6 socket takes both families where its address is the wildcard; fails where the machine has no IPv6.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A caller's address in its own family.
pub fn caller(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn the_wildcard_is_both_families_and_an_address_is_itself() {
        for wildcard in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            let listener = listen((wildcard, 0).into()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                let _calling = TcpStream::connect((ip, port)).await.unwrap();
                assert_eq!(caller(listener.accept().await.unwrap().1).ip(), ip, "{wildcard}");
            }
            let taken = listen((wildcard, port).into()).await.unwrap_err();
            assert!(format!("{taken:#}").contains(&port.to_string()), "{taken:#}");
        }
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
