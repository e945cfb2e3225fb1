//! Accepting connections.
//!
//! It must never stop because of one bad accept: errors of the peer are skipped, errors of the machine (no descriptors)
//! wait a moment. Invariant: an `Accepted` carries both ends and the destination the caller meant.

use crate::socket;
use crate::stream::{Raw, Socket};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// Connections waiting in the kernel; the kernel clamps it to `somaxconn`.
const BACKLOG: i32 = 4096;

/// One downstream connection and its addresses.
#[derive(Debug)]
pub struct Accepted {
    pub io: Raw,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Where the caller meant to go; equals `local` when nothing was redirected.
    pub original: SocketAddr,
}

/// A bound TCP listener.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    local: SocketAddr,
    captured: bool,
}

impl Listener {
    /// Binds `address`. `captured` asks the kernel for the original destination of every connection.
    ///
    /// # Errors
    /// The address could not be bound.
    pub fn bind(address: SocketAddr, captured: bool, mark: Option<u32>) -> io::Result<Self> {
        let inner = socket::listen(address, BACKLOG, true, mark)?;
        let local = inner.local_addr()?;
        Ok(Self { inner, local, captured })
    }

    /// Takes over a listener bound by someone else (tests, handed-in descriptors).
    ///
    /// # Errors
    /// The descriptor is no usable TCP listener.
    pub fn adopt(listener: std::net::TcpListener, captured: bool) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let inner = TcpListener::from_std(listener)?;
        let local = inner.local_addr()?;
        Ok(Self { inner, local, captured })
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection. Never fails: what cannot be accepted is skipped.
    pub async fn accept(&self) -> Accepted {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    socket::tune_downstream(&stream);
                    let local = stream.local_addr().unwrap_or(self.local);
                    let original =
                        if self.captured { socket::original_destination(&stream).unwrap_or(local) } else { local };
                    return Accepted {
                        io: Raw::new(Socket::Tcp(stream)),
                        peer: socket::unmapped(peer),
                        local: socket::unmapped(local),
                        original: socket::unmapped(original),
                    };
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    tracing::warn!(listener = %self.local, %error, "cannot accept, waiting");
                    // Out of descriptors or memory: looping at once would burn the CPU that others need to finish.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
