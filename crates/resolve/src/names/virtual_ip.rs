//! Virtual IPs: one stable address in 240.240.0.0/16 for every name that has none of its own, and where pods have IPv6 one that follows from
//! it in 2001:2::/48, as Istio's.
//!
//! Never looks at who asks or at the order of input. Invariant: a name keeps its address as long as it is in `kept`;
//! without `kept` the address is a function of the set of names alone, and a name of a lower tier (the cluster's own)
//! never moves because of one of a higher tier (somebody else's).

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First two octets of the range Istio allocates from, too.
const RANGE: [u8; 2] = [240, 240];

/// Host numbers 1 to 65,534: neither the network's own nor its broadcast address.
const SIZE: u32 = 65_534;

/// Separates this use of the hash from every other.
const KEY: &[u8] = b"fairlead virtual ip v1\0";

/// Names that need an address, in the order in which collisions are settled.
#[derive(Debug, Default)]
pub struct Wanted {
    names: BTreeSet<(u8, String)>,
}

impl Wanted {
    /// Tier 0: the cluster's own names; 1: names that others bring.
    pub fn add(&mut self, tier: u8, host: &str) {
        self.names.insert((tier, host.to_owned()));
    }

    /// An address for each name. Past 65,534 names the rest get none. `taken` are addresses written in the range.
    pub fn allocate(&self, kept: &BTreeMap<String, Ipv4Addr>, taken: &BTreeSet<IpAddr>) -> BTreeMap<String, Ipv4Addr> {
        let mut used: BTreeSet<Ipv4Addr> = kept.values().copied().collect();
        used.extend(taken.iter().filter_map(|ip| match ip {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        }));
        let mut given = BTreeMap::new();
        for (_, host) in &self.names {
            if let Some(address) = kept.get(host) {
                given.insert(host.clone(), *address);
                continue;
            }
            if given.contains_key(host) {
                continue;
            }
            if let Some(address) = probe(host, &used) {
                used.insert(address);
                given.insert(host.clone(), address);
            }
        }
        given
    }
}

/// The IPv6 address of a name that has this one.
pub fn second(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Whether an address is one that was handed out, of either family.
pub fn is_virtual(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..2] == RANGE,
        IpAddr::V6(v6) => v6.octets()[..14] == second(Ipv4Addr::new(RANGE[0], RANGE[1], 0, 0)).octets()[..14],
    }
}

fn probe(host: &str, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let digest = Sha256::new().chain_update(KEY).chain_update(host.as_bytes()).finalize();
    let start = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % SIZE;
    (0..SIZE).map(|step| address((start + step) % SIZE)).find(|address| !used.contains(address))
}

fn address(index: u32) -> Ipv4Addr {
    let [_, _, high, low] = (index + 1).to_be_bytes();
    Ipv4Addr::new(RANGE[0], RANGE[1], high, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[(u8, &str)]) -> Wanted {
        let mut wanted = Wanted::default();
        for (tier, name) in names {
            wanted.add(*tier, name);
        }
        wanted
    }

    #[test]
    fn an_address_is_a_function_of_the_name() {
        let alone = wanted(&[(0, "a.shop")]).allocate(&BTreeMap::new(), &BTreeSet::new());
        let among = wanted(&[(1, "z.shop"), (0, "b.shop"), (0, "a.shop")]).allocate(&BTreeMap::new(), &BTreeSet::new());
        assert_eq!(alone["a.shop"], among["a.shop"]);
        assert_eq!(among.len(), 3);
    }

    #[test]
    fn a_collision_moves_the_later_tier() {
        let first = wanted(&[(0, "a.shop")]).allocate(&BTreeMap::new(), &BTreeSet::new())["a.shop"];
        let taken = BTreeSet::from([IpAddr::V4(first)]);
        let moved = wanted(&[(0, "a.shop")]).allocate(&BTreeMap::new(), &taken)["a.shop"];
        assert_ne!(first, moved);
    }

    #[test]
    fn what_was_kept_stays() {
        let kept = BTreeMap::from([("a.shop".to_owned(), Ipv4Addr::new(240, 240, 9, 9))]);
        let given = wanted(&[(0, "a.shop"), (0, "b.shop")]).allocate(&kept, &BTreeSet::new());
        assert_eq!(given["a.shop"], Ipv4Addr::new(240, 240, 9, 9));
    }

    #[test]
    fn the_second_address_follows_from_the_first() {
        let first = wanted(&[(0, "a.shop")]).allocate(&BTreeMap::new(), &BTreeSet::new())["a.shop"];
        assert!(is_virtual(first.into()) && is_virtual(second(first).into()));
        assert_eq!(second(Ipv4Addr::new(240, 240, 1, 254)).to_string(), "2001:2::f0f0:1fe");
        for other in ["240.241.0.1", "2001:2::f0f1:1", "2001:2:0:1::f0f0:1", "10.0.0.1"] {
            assert!(!is_virtual(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_full_range_leaves_the_rest_without() {
        // All but two addresses are kept for names that are gone.
        let kept: BTreeMap<String, Ipv4Addr> = (2..SIZE).map(|n| (format!("gone{n}"), address(n))).collect();
        let given = wanted(&[(0, "a"), (0, "b"), (1, "c")]).allocate(&kept, &BTreeSet::new());
        assert_eq!(given.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(given.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([address(0), address(1)]));
    }
}
