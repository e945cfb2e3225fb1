//! The lan between nodes: a bridge in a network namespace without any uplink.
//!
//! Invariant: no packet of a bed leaves the machine. The lan and the nodes have no default route, and the machine itself refuses the bed's
//! addresses, so that a program started in the wrong place fails at once.

use super::bed::Bed;
use super::command::ip;
use super::plan::{Plan, Shape};
use ipnet::IpNet;
use std::path::Path;

pub fn make_lan(bed: &Bed, plan: Plan) -> anyhow::Result<()> {
    let lan = bed.lan_name();
    if !exists(&lan) {
        ip(&format!("netns add {lan}"))?;
        ip(&format!("-n {lan} link set lo up"))?;
        ip(&format!("-n {lan} link add lan type bridge"))?;
        ip(&format!("-n {lan} addr add {} dev lan", plan.lan()))?;
        ip(&format!("-n {lan} link set lan up"))?;
        if plan.has_v6() {
            ip(&format!("-n {lan} addr add {} dev lan nodad", plan.lan6()))?;
        }
    }
    ip(&format!("route replace unreachable {}", plan.all()))?;
    if plan.has_v6() {
        ip(&format!("-6 route replace unreachable {}", plan.all6()))?;
    }
    Ok(())
}

/// A namespace for a node, with one leg in the lan: `c1` there, `eth0` here.
pub fn make_node(bed: &Bed, plan: Plan, cluster: u8) -> anyhow::Result<()> {
    let (lan, node) = (bed.lan_name(), bed.node_name(cluster));
    if exists(&node) {
        remove(&node)?; // of a node that was killed
    }
    // The kernel takes its leg away in its own time.
    if ip(&format!("-n {lan} link show c{cluster}")).is_ok() {
        ip(&format!("-n {lan} link del c{cluster}"))?;
    }
    ip(&format!("netns add {node}"))?;
    ip(&format!("link add eth0 netns {node} type veth peer name c{cluster} netns {lan}"))?;
    ip(&format!("-n {lan} link set c{cluster} master lan up"))?;
    ip(&format!("-n {node} link set lo up"))?;
    ip(&format!("-n {node} link set eth0 up"))?;
    ip(&format!("-n {node} addr add {}/24 dev eth0", plan.node(cluster)))?;
    // What the node's own programs send to a Service (the API server to webhooks) needs some route before kube-proxy can turn it.
    ip(&format!("-n {node} route add {} dev eth0", plan.services(cluster)))?;
    if plan.has_v6() {
        // Nobody else has it: the kernel need not ask for a second whether it may be used.
        ip(&format!("-n {node} addr add {}/64 dev eth0 nodad", plan.node6(cluster)))?;
        ip(&format!("-n {node} -6 route add {} dev eth0", plan.services6(cluster)))?;
    }
    Ok(())
}

/// A namespace for a program beside the clusters, with an address of its own in the lan.
pub fn make_place(bed: &Bed, name: &str, address: &str) -> anyhow::Result<()> {
    let lan = bed.lan_name();
    remove(name)?; // of a run that was killed
    ip(&format!("netns add {name}"))?;
    ip(&format!("link add eth0 netns {name} type veth peer name {name} netns {lan}"))?;
    ip(&format!("-n {lan} link set {name} master lan up"))?;
    for line in ["link set lo up", "link set eth0 up"] {
        ip(&format!("-n {name} {line}"))?;
    }
    ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
    // What is captured must first have a route.
    ip(&format!("-n {name} route add default via {}", bed.plan(Shape::Flat).lan().addr())).map(drop)
}

/// Leads every node, and the lan, to the pods of each cluster. Nothing to do where pod ranges are the same.
pub fn route(bed: &Bed, plan: Plan, clusters: &[u8]) -> anyhow::Result<()> {
    if plan.shape != Shape::Flat {
        return Ok(());
    }
    for to in clusters {
        let others = clusters.iter().filter(|from| *from != to).map(|from| bed.node_name(*from));
        for from in others.chain([bed.lan_name()]) {
            ip(&format!("-n {from} route replace {} via {}", plan.pods(*to), plan.node(*to)))?;
            if plan.has_v6() {
                ip(&format!("-n {from} -6 route replace {} via {}", plan.pods6(*to), plan.node6(*to)))?;
            }
        }
    }
    Ok(())
}

pub fn remove(name: &str) -> anyhow::Result<()> {
    if exists(name) {
        ip(&format!("netns del {name}"))?;
    }
    Ok(())
}

pub fn remove_lan(bed: &Bed, plan: Plan) -> anyhow::Result<()> {
    remove(&bed.lan_name())?;
    for range in refused(plan)? {
        let family = if range.addr().is_ipv6() { "-6" } else { "-4" };
        ip(&format!("{family} route del unreachable {range}"))?;
    }
    Ok(())
}

/// Ranges of the bed that the machine's own routes refuse.
pub fn refused(plan: Plan) -> anyhow::Result<Vec<IpNet>> {
    let mut routes = ip("-4 route show")?;
    if Path::new("/proc/sys/net/ipv6").exists() {
        routes += &ip("-6 route show")?;
    }
    let stands = |range: &IpNet| routes.lines().any(|line| line.starts_with(&format!("unreachable {range} ")));
    Ok([plan.all().into(), plan.all6().into()].into_iter().filter(stands).collect())
}

/// Names of network namespaces that begin with `prefix`.
pub fn left(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}
