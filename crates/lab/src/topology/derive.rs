//! From the description to the plan. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_capture::rules::only;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::addresses::{Assigner, Pool};
use super::plan::{Leg, Namespace, Note, Plan, Role};
use super::spec::{ClusterSpec, Spec, WorkloadSpec};
use super::{NETWORK_DEVICE, WAN_DEVICE};
use crate::links::{Route, RouteAction};

/// Why a description cannot be built. All problems are reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the lab cannot be planned:\n{}", .0.join("\n"))]
pub struct PlanError(pub Vec<String>);

/// The name of the wide-area bridge.
pub(super) const WAN_BRIDGE: &str = "wan";

/// Virtual IPs that nobody has taken at a node: an answer at once, instead of a search on the wide-area bridge.
const VIRTUAL: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(240, 240, 0, 0), 16));

/// Plans a lab.
///
/// # Errors
/// Two namespaces with one wide-area address, names that cannot be used, more clusters or members than addresses.
pub fn plan(spec: &Spec) -> Result<Plan, PlanError> {
    let mut planner = Planner::default();
    planner.read(spec);
    for (number, (name, cluster)) in (1u16..).zip(&spec.clusters) {
        planner.cluster(name, cluster, number);
    }
    planner.outside(spec);
    planner.routes();
    planner.finish()
}

#[derive(Default)]
struct Planner {
    assigner: Assigner,
    plan: Plan,
    problems: Vec<String>,
}

impl Planner {
    /// Takes note of all that is written, before anything is assigned.
    fn read(&mut self, spec: &Spec) {
        let written = &mut self.assigner.written;
        for (name, cluster) in &spec.clusters {
            if name == "outside" || name.is_empty() || name.contains(['/', '@']) {
                self.problems.push(format!("cluster {name:?}: the name is reserved, empty, or contains / or @"));
            }
            for gateway in &cluster.gateways {
                gateway.addresses.iter().for_each(|a| written.add(*a, &format!("{name}/{}", gateway.name)));
            }
            for workload in &cluster.workloads {
                let wan = workload.wan.iter().flatten();
                workload
                    .addresses
                    .iter()
                    .chain(wan)
                    .for_each(|a| written.add(*a, &format!("{name}/{}", workload.name)));
            }
        }
        for external in &spec.externals {
            external.addresses.iter().for_each(|a| written.add(*a, &format!("outside/{}", external.name)));
        }
        let all = spec.clusters.values().flat_map(|c| {
            let gateways = c.gateways.iter().flat_map(|g| &g.addresses);
            gateways.chain(c.workloads.iter().flat_map(|w| w.addresses.iter().chain(w.wan.iter().flatten())))
        });
        self.assigner.dual = all.chain(spec.externals.iter().flat_map(|e| &e.addresses)).any(IpAddr::is_ipv6);
    }

    fn cluster(&mut self, name: &str, cluster: &ClusterSpec, number: u16) {
        let Ok(number) = u8::try_from(number) else {
            self.problems.push(format!("cluster {name}: a lab has at most 255 clusters"));
            return;
        };
        let base = |role, network: &str, locality: Option<&String>| Namespace {
            role,
            cluster: Some(name.to_owned()),
            network: Some(network.to_owned()),
            locality: locality.or(cluster.locality.as_ref()).cloned(),
            legs: Vec::new(),
            routes: Vec::new(),
            forwards: false,
            masquerade: None,
        };
        let others = cluster.workloads.iter().filter_map(|w| w.network.as_ref()).filter(|n| **n != cluster.network);
        let networks = std::iter::once(&cluster.network).chain(others.collect::<BTreeSet<_>>());
        for network in networks {
            let node = match *network == cluster.network {
                true => format!("{name}/node"),
                false => format!("{name}/node@{network}"),
            };
            let namespace =
                Namespace { forwards: true, masquerade: Some(WAN_DEVICE.into()), ..base(Role::Node, network, None) };
            self.infrastructure(&node, namespace, number, &[]);
        }
        if cluster.control {
            self.infrastructure(&format!("{name}/control"), base(Role::Control, &cluster.network, None), number, &[]);
        }
        for gateway in &cluster.gateways {
            let one = format!("{name}/{}", gateway.name);
            let namespace = base(Role::Gateway, &cluster.network, None);
            match gateway.addresses.as_slice() {
                [] => self.infrastructure(&one, namespace, number, &[]),
                [address] => self.infrastructure(&one, namespace, number, &[*address]),
                several => {
                    for address in several {
                        self.infrastructure(&format!("{one}@{address}"), namespace.clone(), number, &[*address]);
                    }
                }
            }
        }
        let mut workloads: Vec<&WorkloadSpec> = cluster.workloads.iter().collect();
        workloads.sort_by(|a, b| a.name.cmp(&b.name));
        for workload in workloads {
            let network = workload.network.as_ref().unwrap_or(&cluster.network);
            self.workload(
                &format!("{name}/{}", workload.name),
                base(Role::Workload, network, workload.locality.as_ref()),
                workload,
                number,
            );
        }
    }

    /// A namespace with both legs; written wide-area addresses, or an assigned one.
    fn infrastructure(&mut self, name: &str, namespace: Namespace, number: u8, wan: &[IpAddr]) {
        let network = namespace.network.clone().unwrap_or_default();
        let inner = self.assign(Pool::Network(number), "", name);
        let outer = if wan.is_empty() { self.assign(Pool::Wan(number), "", name) } else { wan.to_vec() };
        let legs = vec![self.leg(name, Some(&network), inner), self.leg(name, None, outer)];
        self.insert(name, Namespace { legs, ..namespace });
    }

    fn workload(&mut self, name: &str, namespace: Namespace, workload: &WorkloadSpec, number: u8) {
        let network = namespace.network.clone().unwrap_or_default();
        let (mut addresses, unusable): (Vec<_>, Vec<_>) = workload.addresses.iter().copied().partition(usable);
        for address in unusable {
            self.note(name, format!("{address} cannot be given to an interface and is left out"));
        }
        let shared = self.plan.namespaces.iter().find(|(_, n)| {
            n.network.as_ref() == Some(&network) && n.network_addresses().iter().any(|a| addresses.contains(a))
        });
        if let Some((other, _)) = shared {
            let other = other.clone();
            self.note(name, format!("shares an address, and so its namespace, with {other}"));
            self.plan.aliases.insert(name.to_owned(), other);
            return;
        }
        if addresses.is_empty() {
            addresses = self.assign(Pool::Pods, &network, name);
        }
        let mut legs = vec![self.leg(name, Some(&network), addresses)];
        if let Some(wan) = &workload.wan {
            let wan = if wan.is_empty() { self.assign(Pool::Wan(number), "", name) } else { wan.clone() };
            legs.push(self.leg(name, None, wan));
        }
        self.insert(name, Namespace { legs, ..namespace });
    }

    /// Places for clients outside the mesh: on the wide-area bridge, and on each network; and servers outside.
    fn outside(&mut self, spec: &Spec) {
        let base = |role, network: Option<&String>| Namespace {
            role,
            cluster: None,
            network: network.cloned(),
            locality: None,
            legs: Vec::new(),
            routes: Vec::new(),
            forwards: false,
            masquerade: None,
        };
        let wan = self.assign(Pool::Wan(0), "", "outside");
        let leg = self.leg("outside", None, wan);
        self.insert("outside", Namespace { legs: vec![leg], ..base(Role::Outside, None) });
        let networks: Vec<String> = self.plan.bridges.keys().cloned().collect();
        for network in networks {
            let name = format!("outside@{network}");
            self.infrastructure(&name, base(Role::Outside, Some(&network)), 0, &[]);
        }
        for external in &spec.externals {
            let name = format!("outside/{}", external.name);
            let leg = self.leg(&name, None, external.addresses.clone());
            self.insert(&name, Namespace { legs: vec![leg], ..base(Role::External, None) });
        }
    }

    /// Neighbours and default routes, when all members of all networks are known.
    fn routes(&mut self) {
        let mut members: BTreeMap<String, Vec<(String, IpAddr)>> = BTreeMap::new();
        let mut nodes: BTreeMap<(String, String), Vec<IpAddr>> = BTreeMap::new();
        for (name, namespace) in &self.plan.namespaces {
            let Some(network) = &namespace.network else { continue };
            let addresses = namespace.network_addresses();
            members.entry(network.clone()).or_default().extend(addresses.iter().map(|a| (name.clone(), *a)));
            if let (Role::Node, Some(cluster)) = (namespace.role, &namespace.cluster) {
                nodes.insert((cluster.clone(), network.clone()), addresses.to_vec());
            }
        }
        for (name, namespace) in &mut self.plan.namespaces {
            let mut routes = Vec::new();
            let wan = namespace.leg(WAN_DEVICE).is_some();
            if let Some(network) = &namespace.network {
                let neighbours = members.get(network).into_iter().flatten().filter(|(member, _)| member != name);
                routes.extend(neighbours.map(|(_, address)| neighbour(only(*address), NETWORK_DEVICE)));
                let node = namespace.cluster.as_ref().and_then(|c| nodes.get(&(c.clone(), network.clone())));
                for router in node.into_iter().flatten().filter(|_| !wan) {
                    let action = RouteAction::Via { device: NETWORK_DEVICE.into(), router: *router, source: None };
                    routes.push(Route { to: everything(router.is_ipv4()), action });
                }
            }
            if wan {
                routes.push(neighbour(everything(true), WAN_DEVICE));
                if self.assigner.dual {
                    routes.push(neighbour(everything(false), WAN_DEVICE));
                }
                routes.push(Route { to: VIRTUAL, action: RouteAction::Unreachable });
            }
            namespace.routes = routes;
        }
    }

    fn finish(mut self) -> Result<Plan, PlanError> {
        let mut taken: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, namespace) in &self.plan.namespaces {
            for address in namespace.wan_addresses() {
                if let Some(other) = taken.insert(*address, name) {
                    self.problems.push(format!("{address} is the wide-area address of both {other} and {name}"));
                }
            }
        }
        // A pod's neighbour is nearer than a gateway of the same address.
        for (name, namespace) in &self.plan.namespaces {
            for address in namespace.network_addresses() {
                if let Some(other) = taken.get(address).filter(|other| **other != name) {
                    let network = namespace.network.as_deref().unwrap_or_default();
                    let message = format!(
                        "{address} is also the wide-area address of {other}, which network {network} cannot reach"
                    );
                    self.assigner.notes.push(Note { namespace: name.clone(), message });
                }
            }
        }
        self.plan.notes.append(&mut self.assigner.notes);
        if self.problems.is_empty() { Ok(self.plan) } else { Err(PlanError(self.problems)) }
    }

    fn assign(&mut self, pool: Pool, place: &str, name: &str) -> Vec<IpAddr> {
        self.assigner.assign(pool, place, name).unwrap_or_else(|| {
            self.problems.push(format!("{name}: no address is left in {pool:?}"));
            Vec::new()
        })
    }

    fn leg(&mut self, namespace: &str, network: Option<&String>, addresses: Vec<IpAddr>) -> Leg {
        let (device, bridge) = match network {
            Some(network) => {
                let bridge = format!("n{:08x}", digest(network));
                self.plan.bridges.insert(network.clone(), bridge.clone());
                (NETWORK_DEVICE, bridge)
            }
            None => (WAN_DEVICE, WAN_BRIDGE.to_owned()),
        };
        let host = format!("v{:08x}{}", digest(namespace), if network.is_some() { "n" } else { "w" });
        Leg { device: device.into(), bridge, host, addresses }
    }

    fn insert(&mut self, name: &str, namespace: Namespace) {
        if let Some(leg) = namespace.legs.first()
            && let Some((other, _)) =
                self.plan.namespaces.iter().find(|(_, n)| n.legs.iter().any(|l| l.host == leg.host))
            && other != name
        {
            self.problems.push(format!("{name} and {other}: their interface names clash; rename one"));
        }
        if self.plan.namespaces.insert(name.to_owned(), namespace).is_some() {
            self.problems.push(format!("{name} is described twice"));
        }
    }

    fn note(&mut self, namespace: &str, message: String) {
        self.assigner.notes.push(Note { namespace: namespace.to_owned(), message });
    }
}

fn neighbour(to: IpNet, device: &str) -> Route {
    Route { to, action: RouteAction::Link { device: device.to_owned(), source: None } }
}

fn everything(v4: bool) -> IpNet {
    if v4 {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
    } else {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))
    }
}

fn usable(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// FNV-1a, 32 bits: interface names have 15 characters, and must not depend on what else there is.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
