//! The plan: namespaces with their legs, routes and settings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::links::Route;

/// What is to be built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Bridges in the lab's root namespace: name of the interface, by network; the wide-area bridge is not among them.
    pub bridges: BTreeMap<String, String>,
    /// Namespaces by name: `outside`, `outside@<network>`, `outside/<external>`, `<cluster>/node`, `<cluster>/control`,
    /// `<cluster>/<gateway>` (`<cluster>/<gateway>@<address>` when it has several), `<cluster>/<namespace>/<workload>`.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Other names for namespaces: workloads that share an address.
    pub aliases: BTreeMap<String, String>,
    /// What was decided because of what is written.
    pub notes: Vec<Note>,
}

/// One network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// What it is.
    pub role: Role,
    /// Its cluster; None outside.
    pub cluster: Option<String>,
    /// Its network; None when it is only on the wide-area bridge.
    pub network: Option<String>,
    /// As described.
    pub locality: Option<String>,
    /// Its interfaces.
    pub legs: Vec<Leg>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// It passes packets on.
    pub forwards: bool,
    /// The interface by which connections leave under its address.
    pub masquerade: Option<String>,
}

/// What a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A cluster's router.
    Node,
    /// A control plane.
    Control,
    /// A built-in gateway.
    Gateway,
    /// A workload.
    Workload,
    /// A client's place outside the mesh.
    Outside,
    /// A server outside the mesh.
    External,
}

/// An interface of a namespace, joined to a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leg {
    /// Its name in the namespace.
    pub device: String,
    /// The bridge it is joined to.
    pub bridge: String,
    /// Its other end, in the lab's root namespace.
    pub host: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Something a reader of the plan should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The namespace it is about.
    pub namespace: String,
    /// What was done, and why.
    pub message: String,
}

impl Plan {
    /// The name under which a namespace is planned: of an alias, of `<cluster>/fairlead-system/<gateway>`.
    pub fn find(&self, name: &str) -> Option<&str> {
        if let Some((found, _)) = self.namespaces.get_key_value(name) {
            return Some(found);
        }
        if let Some(found) = self.aliases.get(name) {
            return Some(found);
        }
        let (cluster, gateway) = name.split_once("/fairlead-system/")?;
        self.namespaces.get_key_value(&format!("{cluster}/{gateway}")).map(|(found, _)| found.as_str())
    }

    /// A namespace by any of its names.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(self.find(name)?)
    }

    /// The names of a cluster's namespaces.
    pub fn of_cluster<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = (&'a str, &'a Namespace)> {
        self.namespaces
            .iter()
            .filter(move |(_, n)| n.cluster.as_deref() == Some(cluster))
            .map(|(name, n)| (name.as_str(), n))
    }

    /// The names of a cluster's instances of one gateway (`east-west`).
    pub fn gateways(&self, cluster: &str, gateway: &str) -> Vec<&str> {
        let one = format!("{cluster}/{gateway}");
        let many = format!("{one}@");
        self.namespaces.keys().map(String::as_str).filter(|name| *name == one || name.starts_with(&many)).collect()
    }

    /// All clusters.
    pub fn clusters(&self) -> BTreeSet<&str> {
        self.namespaces.values().filter_map(|n| n.cluster.as_deref()).collect()
    }

    /// The address at which `from` reaches `to`: the one on their common network, else the wide-area one.
    pub fn address(&self, from: &str, to: &str) -> Option<IpAddr> {
        let (from, to) = (self.namespace(from)?, self.namespace(to)?);
        let shared = from.network.is_some() && from.network == to.network;
        let leg = if shared { to.leg(super::NETWORK_DEVICE) } else { None };
        leg.or_else(|| to.leg(super::WAN_DEVICE)).and_then(|leg| leg.addresses.first().copied())
    }
}

impl Namespace {
    /// The interface of this name.
    pub fn leg(&self, device: &str) -> Option<&Leg> {
        self.legs.iter().find(|leg| leg.device == device)
    }

    /// Its addresses on its network.
    pub fn network_addresses(&self) -> &[IpAddr] {
        self.leg(super::NETWORK_DEVICE).map_or(&[], |leg| &leg.addresses)
    }

    /// Its wide-area addresses.
    pub fn wan_addresses(&self) -> &[IpAddr] {
        self.leg(super::WAN_DEVICE).map_or(&[], |leg| &leg.addresses)
    }
}
