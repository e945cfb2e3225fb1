//! Addresses of workloads and gateways that have none written: a pure function of the mesh, the same offline and live.
//!
//! Never hands out an address that is written anywhere in the cluster. Invariant: two clusters that reach each other
//! directly draw from different blocks; clusters on separate networks may (and do) use the same block.

use fairlead_model::ids::{ClusterId, NetworkId};
use fairlead_model::settings::MeshSettings;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Separates this use of the hash from every other.
const GATEWAY_KEY: &[u8] = b"fairlead gateway address v1\0";
const BLOCK_KEY: &[u8] = b"fairlead workload block v1\0";

/// The /16 from which a cluster's workloads get addresses: `10.<block>.0.0/16`.
///
/// The first block that no earlier cluster (by name) has taken among those whose network it reaches. On a network of its
/// own name a cluster starts at 0, so separate networks use one pod range. On the empty network, which equals every other
/// and needs no line in the `Mesh`, it starts at a hash of its name: a cluster that knows only itself then comes to the
/// same block, unless two names collide.
pub fn workload_block(settings: &MeshSettings, cluster: &ClusterId) -> u8 {
    let mut blocks: Vec<(&NetworkId, u8)> = Vec::new();
    for (name, member) in &settings.clusters {
        let used: BTreeSet<u8> =
            blocks.iter().filter(|(network, _)| network.reaches(&member.network)).map(|(_, block)| *block).collect();
        let start = if member.network.as_str().is_empty() { hash(BLOCK_KEY, name) % 255 + 1 } else { 0 };
        let candidates = (0..256).map(|step| ((start + step) % 256) as u8);
        let block = candidates.into_iter().find(|block| !used.contains(block)).unwrap_or(u8::MAX);
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

/// The wide-area address of a cluster's built-in east-west gateway: `198.19.<a>.<b>` (RFC 2544 range), a keyed hash of the
/// cluster's name, with probing among the members that are known by name order. A cluster that knows only itself comes
/// to the same address, unless two names collide.
pub fn gateway_address(settings: &MeshSettings, cluster: &ClusterId) -> IpAddr {
    let mut used: BTreeSet<u16> = BTreeSet::new();
    for name in settings.clusters.keys().filter(|name| *name < cluster) {
        used.insert(gateway_number(name, &used));
    }
    let number = gateway_number(cluster, &used);
    let (third, fourth) = (number / 254, number % 254 + 1);
    IpAddr::V4(Ipv4Addr::new(198, 19, third as u8, fourth as u8))
}

/// 0 to 65,023: 256 times the 254 host numbers of a /24.
fn gateway_number(cluster: &ClusterId, used: &BTreeSet<u16>) -> u16 {
    const SIZE: u32 = 256 * 254;
    let start = hash(GATEWAY_KEY, cluster) % SIZE;
    let free = (0..SIZE).map(|step| ((start + step) % SIZE) as u16).find(|number| !used.contains(number));
    free.unwrap_or_default()
}

fn hash(key: &[u8], cluster: &ClusterId) -> u32 {
    let digest = Sha256::new().chain_update(key).chain_update(cluster.as_str().as_bytes()).finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
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
        let settings = settings_of(&[("a", "x"), ("b", ""), ("c", "y"), ("d", "")]);
        let block = |name: &str| workload_block(&settings, &ClusterId::from(name));
        assert_eq!((block("a"), block("c")), (0, 0));
        assert_eq!(BTreeSet::from([block("a"), block("b"), block("d")]).len(), 3);
        assert_eq!(block("d"), workload_block(&settings_of(&[("d", "")]), &ClusterId::from("d")));
    }

    #[test]
    fn written_addresses_are_skipped_and_order_is_by_name() {
        let taken = BTreeSet::from([IpAddr::from([10, 0, 0, 10])]);
        let given = workload_addresses(0, &BTreeSet::from(["b", "a"]), &taken, &BTreeMap::new());
        assert_eq!(given["a"], IpAddr::from([10, 0, 0, 11]));
        assert_eq!(given["b"], IpAddr::from([10, 0, 0, 12]));
    }

    #[test]
    fn gateways_have_different_addresses_that_do_not_depend_on_who_is_known() {
        let settings = settings_of(&[("a", "x"), ("b", "y"), ("c", "z")]);
        let of = |name: &str| gateway_address(&settings, &ClusterId::from(name));
        assert_eq!(BTreeSet::from([of("a"), of("b"), of("c")]).len(), 3);
        assert_eq!(of("b"), gateway_address(&settings_of(&[("b", "y")]), &ClusterId::from("b")));
    }
}
