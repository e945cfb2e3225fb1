//! Addresses of workloads and gateways that have none written: a pure function of the mesh, the same offline and live.
//!
//! Never hands out an address that is written anywhere in the cluster. Invariant: two clusters that reach each other
//! directly draw from different blocks; clusters on separate networks may (and do) use the same block.

use fairlead_model::ids::{ClusterId, NetworkId};
use fairlead_model::settings::MeshSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// The /16 from which a cluster's workloads get addresses: `10.<block>.0.0/16`.
///
/// The smallest block that no earlier cluster (by name) has taken among those whose network it reaches.
pub fn workload_block(settings: &MeshSettings, cluster: &ClusterId) -> u8 {
    let mut blocks: Vec<(&NetworkId, u8)> = Vec::new();
    for (name, member) in &settings.clusters {
        let used: BTreeSet<u8> =
            blocks.iter().filter(|(network, _)| network.reaches(&member.network)).map(|(_, block)| *block).collect();
        let block = (0..=u8::MAX).find(|block| !used.contains(block)).unwrap_or(u8::MAX);
        if name == cluster {
            return block;
        }
        blocks.push((&member.network, block));
    }
    0
}

/// Gives each of `names` (in sorted order) the next address of the block that is not in `taken`, starting at
/// `10.<block>.0.10`; one in `kept` keeps its address.
pub fn workload_addresses<K: Ord + Clone>(
    block: u8,
    names: &BTreeSet<K>,
    taken: &BTreeSet<IpAddr>,
    kept: &BTreeMap<K, IpAddr>,
) -> BTreeMap<K, IpAddr> {
    let mut used: BTreeSet<IpAddr> = taken.clone();
    used.extend(kept.values().copied());
    let mut given = BTreeMap::new();
    let mut next = 10_u32;
    for name in names {
        if let Some(address) = kept.get(name) {
            given.insert(name.clone(), *address);
            continue;
        }
        while next < 65_535 {
            let [_, _, high, low] = next.to_be_bytes();
            let address = IpAddr::V4(Ipv4Addr::new(10, block, high, low));
            next += 1;
            if used.insert(address) {
                given.insert(name.clone(), address);
                break;
            }
        }
    }
    given
}

/// The wide-area address of a cluster's built-in east-west gateway: `198.19.<n>.1` (RFC 2544 range), n being the cluster's
/// place among the members by name, from 1.
pub fn gateway_address(settings: &MeshSettings, cluster: &ClusterId) -> IpAddr {
    let place = settings.clusters.keys().position(|name| name == cluster).unwrap_or(settings.clusters.len());
    let [.., high, low] = (place % 0xfffe + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(198, 19, low, high.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings_of;

    #[test]
    fn clusters_on_separate_networks_share_a_block() {
        let settings = settings_of(&[("east", "e"), ("north", "n"), ("west", "e")]);
        let block = |name: &str| workload_block(&settings, &ClusterId::from(name));
        assert_eq!((block("east"), block("north"), block("west")), (0, 0, 1));
    }

    #[test]
    fn the_empty_network_shares_with_nobody() {
        let settings = settings_of(&[("a", "x"), ("b", ""), ("c", "y")]);
        let block = |name: &str| workload_block(&settings, &ClusterId::from(name));
        assert_eq!((block("a"), block("b"), block("c")), (0, 1, 0));
    }

    #[test]
    fn written_addresses_are_skipped_and_order_is_by_name() {
        let taken = BTreeSet::from([IpAddr::from([10, 0, 0, 10])]);
        let given = workload_addresses(0, &BTreeSet::from(["b", "a"]), &taken, &BTreeMap::new());
        assert_eq!(given["a"], IpAddr::from([10, 0, 0, 11]));
        assert_eq!(given["b"], IpAddr::from([10, 0, 0, 12]));
    }

    #[test]
    fn gateways_have_different_addresses() {
        let settings = settings_of(&[("a", "x"), ("b", "y")]);
        let of = |name: &str| gateway_address(&settings, &ClusterId::from(name)).to_string();
        assert_eq!((of("a"), of("b")), ("198.19.1.1".to_owned(), "198.19.2.1".to_owned()));
    }
}
