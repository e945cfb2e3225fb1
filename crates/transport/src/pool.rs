//! Connections to one upstream, kept for the next request.
//!
//! One pool belongs to one worker and one key (source identity, destination identity, endpoint, protocol), which the proxy
//! chooses; a connection never serves another key. Invariant: a connection is either idle here or held by exactly one
//! request (HTTP/1), or shared up to its stream limit (HTTP/2).

use crate::upstream::Protocol;
use hyper::client::conn::{http1, http2};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Idle HTTP/1 connections kept for one key.
const MAX_IDLE: usize = 256;
/// Streams on one HTTP/2 connection before another is opened (ztunnel's figure: limits head-of-line blocking).
const MAX_STREAMS: u32 = 100;

/// A connection ready for a request.
#[derive(Debug)]
pub enum Sender<B> {
    Http1(http1::SendRequest<B>),
    Http2(http2::SendRequest<B>),
}

/// A taken connection. It must go back with [`Pool::give_back`]; an HTTP/1 connection that is dropped instead is closed.
#[derive(Debug)]
pub struct Lease<B> {
    pub sender: Sender<B>,
    /// It has served a request before: a reset may mean that the peer closed it while idle.
    pub reused: bool,
    connection: Rc<Connection>,
}

/// One upstream connection, for accounting and for closing it from outside.
#[derive(Debug, Default)]
pub struct Connection {
    streams: Cell<u32>,
    served: Cell<u64>,
    /// No new requests: draining, revoked or its endpoint is gone.
    retired: Cell<bool>,
    info: Cell<ConnectionInfo>,
    close: Rc<Notify>,
}

/// What is known of a connection, for records and for finding it again.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionInfo {
    /// What was dialled.
    pub address: Option<SocketAddr>,
    /// The gateway address, when the endpoint is behind one.
    pub gateway: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub tls: bool,
    /// The peer is an authenticated mesh workload.
    pub mesh: bool,
    /// The peer is in another cluster.
    pub far: bool,
}

/// The pool of one key on one worker.
#[derive(Debug)]
pub struct Pool<B> {
    idle: RefCell<VecDeque<Idle<B>>>,
    shared: RefCell<Vec<Shared<B>>>,
    /// An HTTP/2 connection is being made: others wait for it instead of opening their own.
    connecting: Cell<bool>,
    connected: Notify,
    known: Cell<Option<Protocol>>,
}

#[derive(Debug)]
struct Idle<B> {
    sender: http1::SendRequest<B>,
    connection: Rc<Connection>,
    since: Instant,
}

#[derive(Debug)]
struct Shared<B> {
    sender: http2::SendRequest<B>,
    connection: Rc<Connection>,
    since: Instant,
}

impl Connection {
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Handle for the connection task: notified when the connection must end.
    pub fn closer(&self) -> Rc<Notify> {
        self.close.clone()
    }

    /// Ends the connection now, whatever it carries.
    pub fn close(&self) {
        self.retired.set(true);
        self.close.notify_one();
    }

    /// Lets running requests finish and takes no new ones.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    pub fn describe(&self, info: ConnectionInfo) {
        self.info.set(info);
    }

    pub fn info(&self) -> ConnectionInfo {
        self.info.get()
    }

    /// Whether it goes through `address`.
    pub fn is_via(&self, address: SocketAddr) -> bool {
        let info = self.info.get();
        info.gateway == Some(address) || (info.gateway.is_none() && info.address == Some(address))
    }

    pub fn is_retired(&self) -> bool {
        self.retired.get()
    }

    pub fn streams(&self) -> u32 {
        self.streams.get()
    }
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self {
            idle: RefCell::default(),
            shared: RefCell::default(),
            connecting: Cell::new(false),
            connected: Notify::new(),
            known: Cell::new(None),
        }
    }
}

impl<B> Pool<B> {
    /// A connection that can take a request now, if there is one.
    pub fn take(&self) -> Option<Lease<B>> {
        self.take_shared().or_else(|| self.take_idle())
    }

    /// The protocol the last connection spoke, once known.
    pub fn known(&self) -> Option<Protocol> {
        self.known.get()
    }

    fn take_idle(&self) -> Option<Lease<B>> {
        let mut idle = self.idle.borrow_mut();
        // Newest first: the warm ones keep serving and the rest age out.
        while let Some(Idle { sender, connection, .. }) = idle.pop_back() {
            if !sender.is_closed() && !connection.retired.get() {
                return Some(Lease::new(Sender::Http1(sender), connection));
            }
        }
        None
    }

    fn take_shared(&self) -> Option<Lease<B>> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        shared.retain(|s| !s.sender.is_closed() && !s.connection.retired.get());
        let free = shared.iter_mut().find(|s| s.connection.streams.get() < MAX_STREAMS)?;
        free.since = Instant::now();
        Some(Lease::new(Sender::Http2(free.sender.clone()), free.connection.clone()))
    }

    /// Registers a new connection and takes it.
    pub fn adopt(&self, sender: Sender<B>, connection: Rc<Connection>) -> Lease<B> {
        if let Sender::Http2(sender) = &sender {
            self.known.set(Some(Protocol::Http2));
            let entry = Shared { sender: sender.clone(), connection: connection.clone(), since: Instant::now() };
            self.shared.borrow_mut().push(entry);
        } else {
            self.known.set(Some(Protocol::Http1));
        }
        Lease::new(sender, connection)
    }

    /// Whether the caller should connect; when another request is already making a shared connection, waits for it.
    /// Only meaningful where HTTP/2 is expected.
    pub async fn turn_to_connect(&self) -> Option<ConnectTurn<'_, B>> {
        if self.connecting.get() {
            self.connected.notified().await;
            return None;
        }
        self.connecting.set(true);
        Some(ConnectTurn { pool: self })
    }

    /// Drops connections idle for longer than `limit`. `true`: nothing is left.
    pub fn sweep(&self, limit: Duration) -> bool {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|i| !i.sender.is_closed() && !i.connection.retired.get() && now - i.since < limit);
        let mut shared = self.shared.borrow_mut();
        shared.retain(|s| {
            let used = s.connection.streams.get() > 0 || now - s.since < limit;
            !s.sender.is_closed() && !s.connection.retired.get() && used
        });
        idle.is_empty() && shared.is_empty() && !self.connecting.get()
    }

    /// Takes every connection out: running requests finish on theirs.
    pub fn retire_all(&self) {
        self.idle.borrow_mut().clear();
        for shared in self.shared.borrow_mut().drain(..) {
            shared.connection.retire();
        }
    }

    /// Takes the connections through `address` out: running requests finish on theirs.
    pub fn retire_via(&self, address: SocketAddr) {
        self.idle.borrow_mut().retain(|idle| !idle.connection.is_via(address));
        self.shared.borrow_mut().retain(|shared| {
            let via = shared.connection.is_via(address);
            if via {
                shared.connection.retire();
            }
            !via
        });
    }

    /// Idle HTTP/1 and open HTTP/2 connections.
    pub fn sizes(&self) -> (usize, usize) {
        (self.idle.borrow().len(), self.shared.borrow().len())
    }

    /// Keeps an HTTP/1 connection for the next request. hyper may still be finishing the last exchange; a taker waits for
    /// `ready`, which by then has happened.
    pub fn give_back(&self, lease: Lease<B>) {
        let Lease { sender, connection, .. } = lease;
        connection.streams.set(connection.streams.get().saturating_sub(1));
        let Sender::Http1(sender) = sender else { return };
        if sender.is_closed() || connection.retired.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back(Idle { sender, connection, since: Instant::now() });
    }
}

impl<B> Lease<B> {
    fn new(sender: Sender<B>, connection: Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        let served = connection.served.replace(connection.served.get() + 1);
        Self { sender, reused: served > 0, connection }
    }

    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    pub fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        }
    }
}

/// The right to make a shared connection; wakes the waiting requests when it ends, whatever came of it.
#[derive(Debug)]
pub struct ConnectTurn<'a, B> {
    pool: &'a Pool<B>,
}

impl<B> Drop for ConnectTurn<'_, B> {
    fn drop(&mut self) {
        self.pool.connecting.set(false);
        self.pool.connected.notify_waiters();
    }
}
