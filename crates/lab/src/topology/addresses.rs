//! Infrastructure addresses: those nobody has written down.
//!
//! Wide-area ones come from 198.18.0.0/15 (RFC 2544, set aside for tests between networks), the network legs of nodes, control
//! planes and gateways from 100.64.0.0/10 (RFC 6598, which neither a user's pods nor public services use). Invariant: an
//! address that is written anywhere in the mesh is never assigned; stepping over one is noted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::Note;

/// The addresses that are written, and by whom.
#[derive(Debug, Default)]
pub(super) struct Written {
    by: BTreeMap<IpAddr, String>,
}

impl Written {
    pub(super) fn add(&mut self, address: IpAddr, by: &str) {
        self.by.entry(address).or_insert_with(|| by.to_owned());
    }
}

/// A place where addresses are assigned from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pool {
    /// 198.18.n.0/24 and fd00:198:18:n::/64.
    Wan(u8),
    /// 100.64.n.0/24 and fd00:100:64:n::/64.
    Network(u8),
    /// 10.0.0.0/16: workloads without an address.
    Pods,
}

impl Pool {
    fn nth(self, n: u16) -> Ipv4Addr {
        let [high, low] = n.to_be_bytes();
        match self {
            Pool::Wan(cluster) => Ipv4Addr::new(198, 18, cluster, low),
            Pool::Network(cluster) => Ipv4Addr::new(100, 64, cluster, low),
            Pool::Pods => Ipv4Addr::new(10, 0, high, low),
        }
    }

    fn size(self) -> u16 {
        if matches!(self, Pool::Pods) { u16::MAX } else { 255 }
    }

    /// The IPv6 address that goes with an assigned IPv4 one.
    fn v6(address: Ipv4Addr) -> Ipv6Addr {
        let [a, b, c, d] = address.octets();
        let decimal = |n: u8| u16::from_str_radix(&n.to_string(), 16).unwrap_or(0);
        Ipv6Addr::new(0xfd00, decimal(a), decimal(b), decimal(c), 0, 0, 0, decimal(d))
    }
}

/// Hands out addresses.
#[derive(Debug, Default)]
pub(super) struct Assigner {
    pub(super) written: Written,
    /// By place: the addresses in use there, and the next number to try.
    next: BTreeMap<String, u16>,
    /// Also give an IPv6 address: some written address is one.
    pub(super) dual: bool,
    pub(super) notes: Vec<Note>,
}

impl Assigner {
    /// The next address of a pool that nobody has written; None when there is no more. `place` separates pools of one range
    /// that are used in several networks.
    pub(super) fn assign(&mut self, pool: Pool, place: &str, namespace: &str) -> Option<Vec<IpAddr>> {
        let next = self.next.entry(format!("{pool:?} {place}")).or_insert(1);
        while *next < pool.size() {
            let address = pool.nth(*next);
            *next += 1;
            if matches!(address.octets()[3], 0 | 255) {
                continue;
            }
            match self.written.by.get(&IpAddr::V4(address)) {
                None => {
                    let mut addresses = vec![IpAddr::V4(address)];
                    if self.dual {
                        addresses.push(IpAddr::V6(Pool::v6(address)));
                    }
                    return Some(addresses);
                }
                // Pods without an address simply take what is left; infrastructure that moves away is worth a word.
                Some(_) if matches!(pool, Pool::Pods) => {}
                Some(by) => self.notes.push(Note {
                    namespace: namespace.to_owned(),
                    message: format!("{address} is written for {by}, so another address was assigned"),
                }),
            }
        }
        None
    }
}
