//! A worker's upstream connections, by what they may carry.
//!
//! Invariant: the key holds everything a connection was made for, so a connection never serves a request of another
//! destination identity, server name, address or protocol. The source identity is the proxy's own and only one.

use crate::http::RequestBody;
use ahash::AHashMap;
use fairlead_transport::pool::Pool;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// One pool's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// See [`crate::upstream::MemberState::slot`].
    pub slot: u64,
    /// The gateway address that leads there, chosen anew for each request: a pool that held connections through all of them would
    /// go on with the first.
    pub via: Option<SocketAddr>,
    /// HTTP/1 only, for upgrades and for callers whose version is kept.
    pub kind: PoolKind,
}

/// What a pool's connections may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Whatever ALPN gives.
    Negotiated,
    Http1,
    Http2,
}

/// All pools of a worker.
#[derive(Default)]
pub struct Pools {
    pools: RefCell<AHashMap<PoolKey, Rc<Pool<RequestBody>>>>,
}

impl Pools {
    pub fn of(&self, key: PoolKey) -> Rc<Pool<RequestBody>> {
        if let Some(pool) = self.pools.borrow().get(&key) {
            return pool.clone();
        }
        self.pools.borrow_mut().entry(key).or_default().clone()
    }

    /// The endpoint is gone or changed: its connections finish what they carry and take no more.
    pub fn retire(&self, slot: u64) {
        self.pools.borrow_mut().retain(|key, pool| {
            if key.slot == slot {
                pool.retire_all();
            }
            key.slot != slot
        });
    }

    /// The path through `address` is dead: nothing new goes over it.
    pub fn retire_via(&self, address: SocketAddr) {
        for pool in self.pools.borrow().values() {
            pool.retire_via(address);
        }
    }

    /// Drops connections idle for longer than `limit`, and empty pools.
    pub fn sweep(&self, limit: Duration) {
        self.pools.borrow_mut().retain(|_, pool| !pool.sweep(limit) || Rc::strong_count(pool) > 1);
    }
}
