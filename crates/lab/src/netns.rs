//! Network namespaces held by file descriptor.
//!
//! A namespace lives as long as its descriptor, a socket or a process in it. Sockets stay in the namespace in which they were
//! opened, so opening them is all that must happen inside: [`NetNs::run`] does that on a thread of its own, never on a caller's
//! (a runtime's worker that changed namespaces would take every later task with it).

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::links;

/// Why a namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// No thread could be started, or it panicked.
    #[error("the thread for a network namespace failed: {0}")]
    Thread(String),
    /// The kernel refused.
    #[error("{what}: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The loopback interface could not be taken up.
    #[error("take up the loopback interface of a new network namespace: {0}")]
    Loopback(#[from] links::LinkError),
}

/// A network namespace. Clones share it.
#[derive(Debug, Clone)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
}

impl NetNs {
    /// A new, empty namespace with its loopback interface up.
    pub fn create() -> Result<Self, NetNsError> {
        let fd = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| NetNsError::Refused { what: "create a network namespace", source: e.into() })?;
            links::set_up("lo", true)?;
            // Where a proxy reaches its program from; a machine without IPv6 has no use for it.
            let _ = links::add_addresses("lo", &[fairlead_capture::PASSTHROUGH[1]]);
            own()
        })??;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetNsError> {
        Ok(Self { fd: Arc::new(own()?) })
    }

    /// Runs `work` on a thread that is in this namespace. Blocks; what it opens stays in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        on_thread(|| {
            setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|e| NetNsError::Refused { what: "enter a network namespace", source: e.into() })?;
            Ok(work())
        })?
    }

    /// A TCP socket of this namespace, to bind, connect or listen with from anywhere.
    pub fn tcp_socket(&self, v4: bool) -> io::Result<TcpSocket> {
        self.run(|| if v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() }).map_err(io::Error::other)?
    }

    /// Connects from this namespace.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.tcp_socket(address.is_ipv4())?.connect(address).await
    }

    /// Listens in this namespace.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.tcp_socket(address.is_ipv4())?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    }

    /// A UDP socket of this namespace, bound.
    pub fn udp_socket(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.run(|| std::net::UdpSocket::bind(address)).map_err(io::Error::other)??;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|e| NetNsError::Thread(e.to_string()))?;
        thread.join().map_err(|_| NetNsError::Thread("it panicked".into()))
    })
}

fn own() -> Result<OwnedFd, NetNsError> {
    File::open("/proc/thread-self/ns/net")
        .map(OwnedFd::from)
        .map_err(|source| NetNsError::Refused { what: "open /proc/thread-self/ns/net", source })
}
