//! What follows from the faults that hold: rules by namespace, processes that must not run. Pure.
//!
//! Rules are placed with the ones that are hit: in the namespaces of the target (for a pair: of both), against the addresses of
//! the others. A blackhole drops on the way in and out; a cut answers on the way out. Neither touches the loopback interface,
//! so a namespace can always talk to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_capture::rules::{Chain, Hook, Match, Rule, Table, Transport, Verdict, only};

use super::{Fault, Faults};
use crate::topology::{NETWORK_DEVICE, Namespace, Plan, Role, WAN_DEVICE};

/// The name of the table that carries faults.
pub const TABLE: &str = "fairlead_faults";

/// A pattern of processes that must not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The target as written.
    pub target: String,
    /// Only this process.
    pub process: Option<String>,
    /// The namespaces that the target means; empty when it means a workload that shares one.
    namespaces: BTreeSet<String>,
}

impl Down {
    /// Whether it covers the process `process` of `owner`.
    pub fn covers(&self, owner: &str, process: &str) -> bool {
        let meant = owner == self.target
            || self.namespaces.contains(owner)
            || owner.strip_prefix(&self.target).is_some_and(|rest| rest.starts_with('/'));
        meant && self.process.as_deref().is_none_or(|only| only == process)
    }
}

/// The processes that must not run.
pub fn down(plan: &Plan, faults: &Faults) -> Vec<Down> {
    let kills = faults.iter().filter_map(|fault| match fault {
        Fault::Kill { target, process } => {
            let namespaces = if plan.aliases.contains_key(target) { BTreeSet::new() } else { resolve(plan, target) };
            Some(Down { target: target.clone(), process: process.clone(), namespaces })
        }
        _ => None,
    });
    kills.collect()
}

/// The table of each namespace that has one.
///
/// # Errors
/// The first target that this plan does not have.
pub fn tables(plan: &Plan, faults: &Faults) -> Result<BTreeMap<String, Table>, String> {
    let mut effects: BTreeMap<String, Effects> = BTreeMap::new();
    for fault in faults.iter() {
        if let Some(unknown) = fault.targets().into_iter().find(|t| resolve(plan, t).is_empty()) {
            return Err(unknown.to_owned());
        }
        match fault {
            Fault::Kill { .. } => {}
            Fault::Blackhole(target) if plan.clusters().contains(target.as_str()) => {
                for (name, namespace) in plan.of_cluster(target) {
                    let effects = effects.entry(name.to_owned()).or_default();
                    if namespace.leg(WAN_DEVICE).is_some() {
                        effects.lost_by.insert(WAN_DEVICE);
                    }
                    let others = plan.namespaces.values().filter(|n| n.cluster.as_ref() != Some(target));
                    effects.lost.extend(others.flat_map(|other| neighbours(namespace, other)));
                }
            }
            Fault::Blackhole(target) => {
                for name in resolve(plan, target) {
                    effects.entry(name).or_default().lost_by.extend([NETWORK_DEVICE, WAN_DEVICE]);
                }
            }
            Fault::Cut(a, b) => {
                for (name, addresses) in between(plan, a, b) {
                    effects.entry(name).or_default().refused.extend(addresses);
                }
            }
            Fault::BlackholeBetween(a, b) => {
                for (name, addresses) in between(plan, a, b) {
                    effects.entry(name).or_default().lost.extend(addresses);
                }
            }
            Fault::Freeze(target) => {
                let cluster = target.split('/').next().unwrap_or(target);
                let control = |(_, n): &(&String, &Namespace)| n.role == Role::Control;
                let (own, others): (Vec<_>, Vec<_>) =
                    plan.namespaces.iter().filter(control).partition(|(_, n)| n.cluster.as_deref() == Some(cluster));
                for (name, namespace) in own {
                    let effects = effects.entry(name.clone()).or_default();
                    effects.lost.extend(others.iter().flat_map(|(_, other)| reachable(namespace, other)));
                }
            }
        }
    }
    let table = |(name, effects): (String, Effects)| {
        let forwards = plan.namespaces.get(&name).is_some_and(|n| n.forwards);
        (name, effects.table(forwards))
    };
    Ok(effects.into_iter().map(table).filter(|(_, table)| !table.chains.is_empty()).collect())
}

/// The namespaces that a target means: all of a cluster, all instances of a gateway, one instance, one workload.
pub(crate) fn resolve(plan: &Plan, target: &str) -> BTreeSet<String> {
    if plan.clusters().contains(target) {
        return plan.of_cluster(target).map(|(name, _)| name.to_owned()).collect();
    }
    if let Some(name) = plan.find(target) {
        return BTreeSet::from([name.to_owned()]);
    }
    let written = target.replacen("/fairlead-system/", "/", 1);
    let (gateway, address) = match written.split_once('@') {
        Some((gateway, address)) => (gateway, address.parse::<IpAddr>().ok()),
        None => (written.as_str(), None),
    };
    let Some((cluster, name)) = gateway.split_once('/') else { return BTreeSet::new() };
    let instances = plan.gateways(cluster, name).into_iter().filter(|instance| match address {
        Some(address) => plan.namespaces[*instance].wan_addresses().contains(&address),
        None => !written.contains('@'),
    });
    instances.map(str::to_owned).collect()
}

/// For each namespace of either side, the addresses of the other.
fn between(plan: &Plan, a: &str, b: &str) -> Vec<(String, BTreeSet<IpAddr>)> {
    let (a, b) = (resolve(plan, a), resolve(plan, b));
    let side = |own: &BTreeSet<String>, others: &BTreeSet<String>| -> Vec<(String, BTreeSet<IpAddr>)> {
        let others: Vec<&Namespace> = others.iter().filter_map(|name| plan.namespaces.get(name)).collect();
        let of = |name: &String| {
            let namespace = plan.namespaces.get(name)?;
            Some((name.clone(), others.iter().flat_map(|other| reachable(namespace, other)).collect()))
        };
        own.iter().filter_map(of).collect()
    };
    let mut pairs = side(&a, &b);
    pairs.extend(side(&b, &a));
    pairs
}

/// The addresses of `other` that can stand on packets seen by `namespace`.
fn reachable(namespace: &Namespace, other: &Namespace) -> Vec<IpAddr> {
    let mut addresses = neighbours(namespace, other);
    addresses.extend_from_slice(other.wan_addresses());
    addresses
}

/// The addresses of `other` on a common network.
fn neighbours(namespace: &Namespace, other: &Namespace) -> Vec<IpAddr> {
    let common = namespace.network.is_some() && namespace.network == other.network;
    if common { other.network_addresses().to_vec() } else { Vec::new() }
}

/// What happens to one namespace.
#[derive(Default)]
struct Effects {
    lost_by: BTreeSet<&'static str>,
    lost: BTreeSet<IpAddr>,
    refused: BTreeSet<IpAddr>,
}

impl Effects {
    fn table(&self, forwards: bool) -> Table {
        let arriving = self
            .lost_by
            .iter()
            .map(|d| Match::From((*d).into()))
            .chain(self.lost.iter().map(|a| Match::Source(only(*a))));
        let leaving = self
            .lost_by
            .iter()
            .map(|d| Match::By((*d).into()))
            .chain(self.lost.iter().map(|a| Match::Destination(only(*a))));
        let drop = |condition| Rule::new([condition], Verdict::Drop);
        let refuse = || -> Vec<Rule> {
            let rules = self.refused.iter().flat_map(|address| {
                let to = Match::Destination(only(*address));
                [
                    Rule::new([to.clone(), Match::Transport(Transport::Tcp)], Verdict::Reset),
                    Rule::new([to], Verdict::NoRoute),
                ]
            });
            rules.collect()
        };
        let chain = |name: &str, hook, rules: Vec<Rule>| Chain { name: name.into(), hook, rules };
        let chains = [
            chain("arriving", Hook::FilterPrerouting, arriving.map(drop).collect()),
            chain("leaving", Hook::FilterPostrouting, leaving.map(drop).collect()),
            chain("made_here", Hook::FilterOutput, refuse()),
            chain("passed_on", Hook::FilterForward, if forwards { refuse() } else { Vec::new() }),
        ];
        Table { name: TABLE.into(), chains: chains.into_iter().filter(|c| !c.rules.is_empty()).collect() }
    }
}
