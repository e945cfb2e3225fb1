//! The address plan of a bed: which addresses lan, nodes, pods and services of each cluster have.
//!
//! Pure. Invariant: everything lies in the bed's own /16, and /32 of IPv6; in shape flat no two ranges overlap, in shape nonflat all
//! clusters have the same pod ranges and the same service ranges. Addresses of both families are read alike: 10.89.0.11 is fd10:89::11.

use clap::ValueEnum;
use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Address families of clusters; the first is that of Services that ask for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Families {
    #[value(name = "ipv4")]
    V4,
    #[value(name = "ipv4-ipv6")]
    V4V6,
    #[value(name = "ipv6-ipv4")]
    V6V4,
}

impl Families {
    /// As written on the command line and in the state folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V4V6 => "ipv4-ipv6",
            Self::V6V4 => "ipv6-ipv4",
        }
    }
}

/// Addresses of one bed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub block: [u8; 2],
    pub shape: Shape,
    pub families: Families,
}

impl Plan {
    /// All that the bed uses; the machine itself refuses this range.
    pub fn all(self) -> Ipv4Net {
        self.net(0, 0, 16)
    }

    /// The same of IPv6.
    pub fn all6(self) -> Ipv6Net {
        self.net6(0, 0, 32)
    }

    /// The network of the nodes, as `ADDRESS/24` of whoever runs programs beside the clusters.
    pub fn lan(self) -> Ipv4Net {
        self.net(0, 1, 24)
    }

    pub fn lan6(self) -> Ipv6Net {
        self.net6(0, 1, 64)
    }

    pub fn node(self, cluster: u8) -> Ipv4Addr {
        self.net(0, 10 + cluster, 24).addr()
    }

    pub fn node6(self, cluster: u8) -> Ipv6Addr {
        self.net6(0, 10 + cluster, 64).addr()
    }

    /// The addresses of a node, one of each family that clusters have.
    pub fn node_addresses(self, cluster: u8) -> Vec<IpAddr> {
        self.in_order(self.node(cluster).into(), self.node6(cluster).into())
    }

    pub fn has_v6(self) -> bool {
        self.families != Families::V4
    }

    /// Where IPv6 stands in lists of one address for each family.
    pub fn place_of_v6(self) -> usize {
        usize::from(self.families == Families::V4V6)
    }

    /// What clusters have of two things, one for each family.
    fn in_order<T>(self, v4: T, v6: T) -> Vec<T> {
        match self.families {
            Families::V4 => vec![v4],
            Families::V4V6 => vec![v4, v6],
            Families::V6V4 => vec![v6, v4],
        }
    }

    pub fn pods(self, cluster: u8) -> Ipv4Net {
        match self.shape {
            Shape::Flat => self.net(10 * cluster, 0, 24),
            Shape::Nonflat => self.net(200, 0, 24),
        }
    }

    pub fn pods6(self, cluster: u8) -> Ipv6Net {
        match self.shape {
            Shape::Flat => self.net6(10 * cluster, 0, 64),
            Shape::Nonflat => self.net6(200, 0, 64),
        }
    }

    /// As programs take ranges of one family or of both.
    pub fn all_pods(self, cluster: u8) -> String {
        self.in_order(self.pods(cluster).to_string(), self.pods6(cluster).to_string()).join(",")
    }

    pub fn services(self, cluster: u8) -> Ipv4Net {
        match self.shape {
            Shape::Flat => self.net(100 + 10 * cluster, 0, 24),
            Shape::Nonflat => self.net(210, 0, 24),
        }
    }

    pub fn services6(self, cluster: u8) -> Ipv6Net {
        match self.shape {
            Shape::Flat => self.net6(100 + 10 * cluster, 0, 112),
            Shape::Nonflat => self.net6(210, 0, 112),
        }
    }

    pub fn all_services(self, cluster: u8) -> String {
        self.in_order(self.services(cluster).to_string(), self.services6(cluster).to_string()).join(",")
    }

    /// The Service `kubernetes`: always the first address of the range.
    pub fn api_service(self, cluster: u8) -> IpAddr {
        self.service(cluster, 1)
    }

    /// The Service that kubelets name to pods as their resolver.
    pub fn dns_service(self, cluster: u8) -> IpAddr {
        self.service(cluster, 10)
    }

    /// By its number in the range of the first family.
    fn service(self, cluster: u8, last: u8) -> IpAddr {
        let [a, b, c, _] = self.services(cluster).addr().octets();
        let v6 = self.services6(cluster).addr().to_bits() | u128::from(last);
        match self.families {
            Families::V4 | Families::V4V6 => Ipv4Addr::new(a, b, c, last).into(),
            Families::V6V4 => Ipv6Addr::from_bits(v6).into(),
        }
    }

    fn net(self, third: u8, fourth: u8, length: u8) -> Ipv4Net {
        let [a, b] = self.block;
        Ipv4Net::new_assert(Ipv4Addr::new(a, b, third, fourth), length)
    }

    fn net6(self, third: u8, fourth: u8, length: u8) -> Ipv6Net {
        let [a, b] = self.block.map(digits);
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00 | a, b, 0, digits(third), 0, 0, 0, digits(fourth)), length)
    }
}

/// The number whose hexadecimal digits are the decimal ones of `number`.
fn digits(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 << 8 | number / 10 % 10 << 4 | number % 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    fn plan(block: [u8; 2], shape: Shape) -> Plan {
        Plan { block, shape, families: Families::V4V6 }
    }

    fn ranges(plan: Plan) -> Vec<IpNet> {
        let mut all = vec![plan.lan().trunc().into(), plan.lan6().trunc().into()];
        for cluster in 1..=MOST_CLUSTERS {
            all.extend([IpNet::from(plan.pods(cluster)), plan.services(cluster).into()]);
            all.extend([IpNet::from(plan.pods6(cluster)), plan.services6(cluster).into()]);
        }
        all
    }

    fn is_inside(plan: Plan, range: &IpNet) -> bool {
        [IpNet::from(plan.all()), plan.all6().into()].iter().any(|all| all.contains(range))
    }

    #[test]
    fn flat_ranges_are_apart_and_inside() {
        let plan = plan([10, 89], Shape::Flat);
        let ranges = ranges(plan);
        for (index, one) in ranges.iter().enumerate() {
            assert!(is_inside(plan, one), "{one} is outside");
            for other in &ranges[index + 1..] {
                assert!(!one.contains(other) && !other.contains(one), "{one} and {other} overlap");
            }
        }
    }

    #[test]
    fn nonflat_clusters_share_their_ranges_and_nothing_else() {
        let plan = plan([10, 89], Shape::Nonflat);
        assert_eq!(plan.all_pods(1), plan.all_pods(9));
        assert_eq!(plan.all_services(1), plan.all_services(9));
        assert_ne!(plan.all_pods(1), plan.all_services(1));
        assert_ne!(plan.node(1), plan.node(2));
        assert_ne!(plan.node6(1), plan.node6(2));
        assert!(ranges(plan).iter().all(|range| is_inside(plan, range)));
    }

    #[test]
    fn fixed_addresses_lie_in_their_ranges() {
        for shape in [Shape::Flat, Shape::Nonflat] {
            let plan = plan([10, 90], shape);
            for cluster in 1..=MOST_CLUSTERS {
                for families in [Families::V4, Families::V4V6, Families::V6V4] {
                    let plan = Plan { families, ..plan };
                    let ranges = [IpNet::from(plan.services(cluster)), plan.services6(cluster).into()];
                    let first = ranges[usize::from(families == Families::V6V4)];
                    assert!(first.contains(&plan.api_service(cluster)) && first.contains(&plan.dns_service(cluster)));
                }
                assert!(plan.lan().contains(&plan.node(cluster)) && plan.lan6().contains(&plan.node6(cluster)));
                assert!(plan.lan().addr() != plan.node(cluster) && plan.lan6().addr() != plan.node6(cluster));
            }
        }
    }

    #[test]
    fn both_families_read_alike_and_the_second_may_be_missing() {
        let dual = plan([10, 89], Shape::Flat);
        assert_eq!(dual.lan6().to_string(), "fd10:89::1/64");
        assert_eq!(dual.all_pods(3), "10.89.30.0/24,fd10:89:0:30::/64");
        assert_eq!(dual.all_services(3), "10.89.130.0/24,fd10:89:0:130::/112");
        let addresses: Vec<_> = dual.node_addresses(3).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.89.0.13", "fd10:89::13"]);
        let turned = Plan { families: Families::V6V4, ..dual };
        assert_eq!(turned.all_pods(3), "fd10:89:0:30::/64,10.89.30.0/24");
        assert_eq!(turned.api_service(3).to_string(), "fd10:89:0:130::1");
        let single = Plan { families: Families::V4, ..dual };
        assert_eq!((single.all_pods(3), single.all_services(3)), ("10.89.30.0/24".into(), "10.89.130.0/24".into()));
        assert_eq!(single.node_addresses(3), [IpAddr::from([10, 89, 0, 13])]);
    }
}
