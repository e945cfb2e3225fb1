//! Where a call leaves: a network namespace, through its proxy or past it.
//!
//! Invariant: sockets are opened inside the namespace and nowhere else.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpStream, UdpSocket};

use crate::capture::PROXY_MARK;
use crate::netns::NetNs;

/// A place in the network.
#[derive(Debug, Clone)]
pub struct Place {
    namespace: NetNs,
    /// Connections pass the capture rules as the proxy's own would.
    past_proxy: bool,
}

impl Place {
    /// In this namespace; `past_proxy`: not through its sidecar.
    pub fn new(namespace: NetNs, past_proxy: bool) -> Self {
        Self { namespace, past_proxy }
    }

    /// Connects.
    pub async fn tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.namespace.tcp_socket(address.is_ipv4())?;
        self.mark(&socket)?;
        socket.connect(address).await
    }

    /// A bound UDP socket.
    pub fn udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.namespace.udp_socket(address)?;
        self.mark(&socket)?;
        Ok(socket)
    }

    fn mark(&self, socket: &impl AsFd) -> io::Result<()> {
        if self.past_proxy { setsockopt(socket, sockopt::Mark, &PROXY_MARK).map_err(io::Error::from) } else { Ok(()) }
    }
}
