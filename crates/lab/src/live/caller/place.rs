//! Where a call leaves: a network namespace, or here; through its proxy or past it.
//!
//! Invariant: sockets are opened inside that namespace and nowhere else.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;

use fairlead_capture::PROXY_MARK;
use nix::sys::socket::{SockaddrStorage, getsockname, setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::netns::NetNs;

/// A place in the network.
#[derive(Debug, Clone)]
pub struct Place {
    /// None: where this process is.
    namespace: Option<NetNs>,
    /// Connections pass the capture rules as the proxy's own would.
    past_proxy: bool,
}

impl Place {
    /// In this namespace; `past_proxy`: not through its sidecar.
    pub fn new(namespace: NetNs, past_proxy: bool) -> Self {
        Self { namespace: Some(namespace), past_proxy }
    }

    /// Where this process is: it needs no right to enter any namespace, and names resolve as for every program here.
    pub fn here() -> Self {
        Self { namespace: None, past_proxy: false }
    }

    pub(super) fn is_here(&self) -> bool {
        self.namespace.is_none()
    }

    /// Connects. `local` is told the own address as soon as there is one: a connection that is reset at once has none any more.
    pub async fn tcp(&self, address: SocketAddr, local: &mut Option<SocketAddr>) -> io::Result<TcpStream> {
        let socket = match &self.namespace {
            Some(namespace) => namespace.tcp_socket(address.is_ipv4())?,
            None if address.is_ipv4() => TcpSocket::new_v4()?,
            None => TcpSocket::new_v6()?,
        };
        self.mark(&socket)?;
        let again = socket.as_fd().try_clone_to_owned()?;
        let mut connecting = pin!(socket.connect(address));
        *local = None;
        poll_fn(|context| {
            let done = connecting.as_mut().poll(context);
            if local.is_none() {
                let own = getsockname::<SockaddrStorage>(again.as_raw_fd()).ok();
                *local = own.and_then(|own| match (own.as_sockaddr_in(), own.as_sockaddr_in6()) {
                    (Some(own), _) => Some(SocketAddr::V4((*own).into())),
                    (None, own) => own.map(|own| SocketAddr::V6((*own).into())),
                });
            }
            done
        })
        .await
    }

    /// A bound UDP socket.
    pub fn udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = match &self.namespace {
            Some(namespace) => namespace.udp_socket(address)?,
            None => {
                let socket = std::net::UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                UdpSocket::from_std(socket)?
            }
        };
        self.mark(&socket)?;
        Ok(socket)
    }

    fn mark(&self, socket: &impl AsFd) -> io::Result<()> {
        if self.past_proxy { setsockopt(socket, sockopt::Mark, &PROXY_MARK).map_err(io::Error::from) } else { Ok(()) }
    }
}
