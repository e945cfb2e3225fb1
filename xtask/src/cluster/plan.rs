//! The address plan of a bed: which addresses lan, nodes, pods and services of each cluster have.
//!
//! Pure. Invariant: everything lies in the bed's own /16; in shape flat no two ranges overlap, in shape nonflat all clusters have the
//! same pod range and the same service range.

use clap::ValueEnum;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Most clusters of one bed: the plan gives each a decade of the third octet.
pub const MOST_CLUSTERS: u8 = 9;

/// How the pod networks of the clusters lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Distinct pod ranges, routed between nodes: pods reach pods of other clusters, with their own address.
    Flat,
    /// The same pod and service ranges everywhere: only nodes reach each other, pods leave as their node.
    Nonflat,
}

impl Shape {
    /// As written on the command line and in the state folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Nonflat => "nonflat",
        }
    }
}

/// Addresses of one bed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub block: [u8; 2],
    pub shape: Shape,
}

impl Plan {
    /// All that the bed uses; the machine itself refuses this range.
    pub fn all(self) -> Ipv4Net {
        self.net(0, 0, 16)
    }

    /// The network of the nodes, as `ADDRESS/24` of whoever runs programs beside the clusters.
    pub fn lan(self) -> Ipv4Net {
        self.net(0, 1, 24)
    }

    pub fn node(self, cluster: u8) -> Ipv4Addr {
        self.net(0, 10 + cluster, 24).addr()
    }

    pub fn pods(self, cluster: u8) -> Ipv4Net {
        match self.shape {
            Shape::Flat => self.net(10 * cluster, 0, 24),
            Shape::Nonflat => self.net(200, 0, 24),
        }
    }

    pub fn services(self, cluster: u8) -> Ipv4Net {
        match self.shape {
            Shape::Flat => self.net(100 + 10 * cluster, 0, 24),
            Shape::Nonflat => self.net(210, 0, 24),
        }
    }

    /// The Service `kubernetes`: always the first address of the range.
    pub fn api_service(self, cluster: u8) -> Ipv4Addr {
        self.service(cluster, 1)
    }

    /// The Service that kubelets name to pods as their resolver.
    pub fn dns_service(self, cluster: u8) -> Ipv4Addr {
        self.service(cluster, 10)
    }

    fn service(self, cluster: u8, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.services(cluster).addr().octets();
        Ipv4Addr::new(a, b, c, last)
    }

    fn net(self, third: u8, fourth: u8, length: u8) -> Ipv4Net {
        let [a, b] = self.block;
        Ipv4Net::new_assert(Ipv4Addr::new(a, b, third, fourth), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(plan: Plan) -> Vec<Ipv4Net> {
        let mut all = vec![plan.lan().trunc()];
        for cluster in 1..=MOST_CLUSTERS {
            all.extend([plan.pods(cluster), plan.services(cluster)]);
        }
        all
    }

    #[test]
    fn flat_ranges_are_apart_and_inside() {
        let plan = Plan { block: [10, 89], shape: Shape::Flat };
        let ranges = ranges(plan);
        for (index, one) in ranges.iter().enumerate() {
            assert!(plan.all().contains(one), "{one} is outside");
            for other in &ranges[index + 1..] {
                assert!(!one.contains(other) && !other.contains(one), "{one} and {other} overlap");
            }
        }
    }

    #[test]
    fn nonflat_clusters_share_their_ranges_and_nothing_else() {
        let plan = Plan { block: [10, 89], shape: Shape::Nonflat };
        assert_eq!(plan.pods(1), plan.pods(9));
        assert_eq!(plan.services(1), plan.services(9));
        assert_ne!(plan.pods(1), plan.services(1));
        assert_ne!(plan.node(1), plan.node(2));
        assert!(ranges(plan).iter().all(|range| plan.all().contains(range)));
    }

    #[test]
    fn fixed_addresses_lie_in_the_service_range() {
        for shape in [Shape::Flat, Shape::Nonflat] {
            let plan = Plan { block: [10, 90], shape };
            for cluster in 1..=MOST_CLUSTERS {
                assert!(plan.services(cluster).contains(&plan.api_service(cluster)));
                assert!(plan.services(cluster).contains(&plan.dns_service(cluster)));
                assert!(plan.lan().contains(&plan.node(cluster)));
                assert_ne!(plan.lan().addr(), plan.node(cluster));
            }
        }
    }
}
