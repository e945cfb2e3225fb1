//! The stand-in for kube-proxy: a connection to a service address goes to one of its ready local endpoints.
//!
//! Invariant: bytes are relayed as they are, half-closes included; without an endpoint the connection is reset.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Known, now};

/// An endpoint that does not take the connection within this has failed it.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) async fn serve(listener: TcpListener, known: Known) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let known = known.clone();
        tokio::spawn(async move {
            if let Err(e) = relay(stream, &known).await {
                tracing::debug!("relay: {e}");
            }
        });
    }
}

async fn relay(mut stream: TcpStream, known: &Known) -> io::Result<()> {
    let service = original_destination(&stream)?;
    let table = now(known);
    let endpoints = table.endpoints(service);
    if endpoints.is_empty() {
        return refuse(&stream);
    }
    let chosen = endpoints[fastrand::usize(..endpoints.len())];
    match timeout(CONNECT, TcpStream::connect(chosen)).await {
        Ok(Ok(mut upstream)) => {
            let _ = stream.set_nodelay(true);
            let _ = upstream.set_nodelay(true);
            tokio::io::copy_bidirectional(&mut stream, &mut upstream).await?;
            Ok(())
        }
        _ => refuse(&stream),
    }
}

/// Closing with linger 0 sends a reset: what a caller would see of a refused connection as near as a relay can show it.
fn refuse(stream: &TcpStream) -> io::Result<()> {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &now).map_err(io::Error::from)
}

/// Where the caller meant to go, before the redirect.
fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let found = getsockopt(stream, sockopt::OriginalDst).map_err(io::Error::from)?;
    let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
    Ok(SocketAddrV4::new(ip, u16::from_be(found.sin_port)).into())
}
