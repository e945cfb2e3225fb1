//! Where a control plane listens: a wildcard address means both address families, as for a proxy.
//!
//! One socket takes both, so that what is bounded for a listener stays so. Invariant: nobody is told of an IPv4 caller as `::ffff:…`
//! ([`caller`]): bounds are by source, and all of IPv4 would be one IPv6 prefix.

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

const BACKLOG: i32 = 1024;

/// Opens a socket that listens.
///
/// # Errors
/// What the kernel says; the address is in the message.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    if address.ip().is_unspecified()
        && let Ok(listener) = both(address.port())
    {
        return Ok(listener);
    }
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Fails where the machine has no IPv6.
fn both(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
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
