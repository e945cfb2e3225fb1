//! Broken links between two clusters, as packet rules in both nodes.
//!
//! Whoever works in the lan reaches both API servers all the while. Invariant: rules stand in tables of their own, so that healing is
//! taking those away; nothing else of a node's rules is read or written.

use super::bed::Bed;
use super::command::{ip, output, output_of};
use super::plan::{Plan, Shape};
use super::{cgroup, enter};
use ipnet::IpNet;
use std::net::IpAddr;

/// How a link is broken; the words are the lab's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connections are reset and refused.
    Cut,
    /// Packets are lost and nobody is told.
    Blackhole,
}

/// Breaks the link between two clusters, in both directions.
pub fn break_link(bed: &Bed, one: u8, other: u8, fault: Fault) -> anyhow::Result<()> {
    anyhow::ensure!(one != other, "a link has two ends: name two clusters");
    let plan = bed.plan(enter::shape(bed)?);
    heal_link(bed, one, other)?;
    for (at, peer) in [(one, other), (other, one)] {
        output_of(enter::node(bed, at)?.args(["nft", "--file", "-"]), &rules(plan, peer, fault))?;
    }
    Ok(())
}

/// Takes away what was broken between two clusters.
pub fn heal_link(bed: &Bed, one: u8, other: u8) -> anyhow::Result<()> {
    for (at, peer) in [(one, other), (other, one)] {
        let tables = output(enter::node(bed, at)?.args(["nft", "list", "tables", "inet"]))?;
        if tables.lines().any(|line| line.trim() == format!("table inet {}", table(peer))) {
            output(enter::node(bed, at)?.args(["nft", "delete", "table", "inet", &table(peer)]))?;
        }
    }
    Ok(())
}

/// Takes away whatever was broken between running clusters.
pub fn heal(bed: &Bed) -> anyhow::Result<()> {
    let running = bed.running();
    for one in &running {
        for other in running.iter().filter(|other| *other > one) {
            heal_link(bed, *one, *other)?;
        }
    }
    Ok(())
}

/// Takes a node from the lan: nobody is told, and its programs run on.
pub fn unplug(bed: &Bed, cluster: u8) -> anyhow::Result<()> {
    ip(&format!("-n {} link set c{cluster} down", bed.lan_name())).map(drop)
}

/// Puts it back.
pub fn plug(bed: &Bed, cluster: u8) -> anyhow::Result<()> {
    ip(&format!("-n {} link set c{cluster} up", bed.lan_name())).map(drop)
}

/// A node that hangs: unplugged, and none of its programs and pods gets any processor time.
pub fn hang(bed: &Bed, cluster: u8) -> anyhow::Result<()> {
    unplug(bed, cluster)?;
    cgroup::freeze(&bed.node_name(cluster), true)
}

/// Lets it go on.
pub fn resume(bed: &Bed, cluster: u8) -> anyhow::Result<()> {
    cgroup::freeze(&bed.node_name(cluster), false)?;
    plug(bed, cluster)
}

fn table(peer: u8) -> String {
    format!("fault-c{peer}")
}

/// What a node does with packets from and to a peer: its node, and its pods where they come with their own addresses.
fn rules(plan: Plan, peer: u8, fault: Fault) -> String {
    let peers = |node: IpAddr, pods: IpNet| match plan.shape {
        Shape::Flat => format!("{{ {node}, {pods} }}"),
        Shape::Nonflat => format!("{{ {node} }}"),
    };
    let mut families = vec![("ip", peers(plan.node(peer).into(), plan.pods(peer).into()))];
    if plan.has_v6() {
        families.push(("ip6", peers(plan.node6(peer).into(), plan.pods6(peer).into())));
    }
    // Who sends is told; what still arrives from the peer's side is lost, its sender was told there.
    let to: String = families
        .iter()
        .map(|(family, peers)| match fault {
            Fault::Cut => {
                format!(
                    "{family} daddr {peers} meta l4proto tcp reject with tcp reset; {family} daddr {peers} reject; "
                )
            }
            Fault::Blackhole => format!("{family} daddr {peers} drop; "),
        })
        .collect();
    let chain = |hook: &str, rules: &str| {
        format!("  chain {hook} {{ type filter hook {hook} priority -10; policy accept; {rules} }}\n")
    };
    let from: String = families.iter().map(|(family, peers)| format!("{family} saddr {peers} drop; ")).collect();
    let all = [chain("input", &from), chain("output", &to), chain("forward", &format!("{to} {from}"))].concat();
    format!("table inet {} {{\n{all}}}\n", table(peer))
}

#[cfg(test)]
mod tests {
    use super::super::plan::Families;
    use super::*;

    #[test]
    fn pods_are_named_where_they_keep_their_addresses() {
        let plan = |shape, families| Plan { block: [10, 89], shape, families };
        let flat = rules(plan(Shape::Flat, Families::V4V6), 2, Fault::Blackhole);
        assert!(flat.contains("ip daddr { 10.89.0.12, 10.89.20.0/24 } drop;"), "{flat}");
        assert!(flat.contains("ip6 saddr { fd10:89::12, fd10:89:0:20::/64 } drop;"), "{flat}");
        assert!(flat.starts_with("table inet fault-c2 {"), "{flat}");
        let nonflat = rules(plan(Shape::Nonflat, Families::V4), 1, Fault::Cut);
        assert!(!nonflat.contains("ip6"), "{nonflat}");
        assert!(nonflat.contains("ip daddr { 10.89.0.11 } meta l4proto tcp reject with tcp reset;"), "{nonflat}");
        assert!(!nonflat.contains("10.89.200"), "pods of the own cluster have these addresses: {nonflat}");
    }
}
