//! Building a plan, and changing what is built into another plan.
//!
//! Invariant: a namespace whose plan has not changed is not touched, so its connections live on.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use fairlead_capture::netlink::NetlinkError;
use fairlead_capture::rules;

use super::derive::WAN_BRIDGE;
use super::plan::{Namespace, Plan};
use crate::links::{self, LinkError};
use crate::netns::{NetNs, NetNsError};
use crate::node;

/// Why a plan could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A namespace could not be made or entered.
    #[error("namespace {namespace}: {source}")]
    Namespace {
        /// Its name.
        namespace: String,
        /// Why.
        source: NetNsError,
    },
    /// A link, address, route or setting was refused.
    #[error("namespace {namespace}: {source}")]
    Link {
        /// Its name.
        namespace: String,
        /// Why.
        source: LinkError,
    },
    /// A rule was refused.
    #[error("namespace {namespace}: {source}")]
    Rule {
        /// Its name.
        namespace: String,
        /// Why.
        source: NetlinkError,
    },
    /// There is no such namespace.
    #[error("there is no namespace {0} in this lab")]
    Unknown(String),
}

/// A plan that has been built. Dropping it lets the namespaces go as soon as no process or socket is in them.
#[derive(Debug)]
pub struct Topology {
    plan: Plan,
    root: NetNs,
    namespaces: BTreeMap<String, NetNs>,
}

impl Topology {
    /// Builds a plan in the calling thread's network namespace, which becomes the lab's root.
    pub fn apply(plan: Plan) -> Result<Self, ApplyError> {
        let root = NetNs::current().map_err(|source| ApplyError::Namespace { namespace: "the root".into(), source })?;
        let mut topology = Self { plan: Plan::default(), root, namespaces: BTreeMap::new() };
        topology.in_root(|| {
            // The bridges have no addresses: nothing of the root's own may answer on them.
            links::bridge(WAN_BRIDGE)
        })?;
        topology.update(plan)?;
        Ok(topology)
    }

    /// Changes what is built into another plan: namespaces that are new or changed are built, those that are gone let go.
    /// Returns the names of those that were built: rules in them are gone, and processes in what they replaced have lost their
    /// links; the caller sees to both.
    pub fn update(&mut self, plan: Plan) -> Result<BTreeSet<String>, ApplyError> {
        let mut built = BTreeSet::new();
        let same_legs = |old: &Namespace, new: &Namespace| old.legs == new.legs && old.forwards == new.forwards;
        let gone: Vec<String> = (self.plan.namespaces.iter())
            .filter(|(name, old)| plan.namespaces.get(*name).is_none_or(|new| !same_legs(old, new)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.release(&name)?;
        }
        for (network, bridge) in &plan.bridges {
            if !self.plan.bridges.contains_key(network) {
                self.in_root(|| links::bridge(bridge))?;
                self.plan.bridges.insert(network.clone(), bridge.clone());
            }
        }
        for (name, namespace) in &plan.namespaces {
            match self.plan.namespaces.get(name) {
                None => {
                    self.build(name, namespace)?;
                    built.insert(name.clone());
                }
                Some(old) if old.routes != namespace.routes => {
                    let stale: Vec<_> = old.routes.iter().filter(|r| !namespace.routes.contains(r)).cloned().collect();
                    self.within(name, || {
                        links::remove_routes(&stale).and_then(|()| links::add_routes(&namespace.routes))
                    })?;
                }
                Some(_) => {}
            }
            self.plan.namespaces.insert(name.clone(), namespace.clone());
        }
        self.plan = plan;
        Ok(built)
    }

    /// What is built.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A namespace by any of its names.
    pub fn namespace(&self, name: &str) -> Result<&NetNs, ApplyError> {
        let found = self.plan.find(name).and_then(|found| self.namespaces.get(found));
        found.ok_or_else(|| ApplyError::Unknown(name.to_owned()))
    }

    /// The lab's root namespace, where the bridges are.
    pub fn root(&self) -> &NetNs {
        &self.root
    }

    fn build(&mut self, name: &str, namespace: &Namespace) -> Result<(), ApplyError> {
        let refused = |source| ApplyError::Namespace { namespace: name.to_owned(), source };
        let link = |source| ApplyError::Link { namespace: name.to_owned(), source };
        let net = NetNs::create().map_err(refused)?;
        // Before the interfaces come, which take their settings from `default` when they appear.
        net.run(|| settings(namespace)).map_err(refused)?.map_err(link)?;
        for leg in &namespace.legs {
            self.in_root(|| links::veth(&leg.host, &leg.bridge, &leg.device, net.as_fd()))?;
        }
        net.run(|| {
            for leg in &namespace.legs {
                links::add_addresses(&leg.device, &leg.addresses)?;
                links::set_up(&leg.device, true)?;
            }
            links::add_routes(&namespace.routes)
        })
        .map_err(refused)?
        .map_err(link)?;
        if let Some(device) = &namespace.masquerade {
            net.run(|| rules::install(&node::rules::masquerade(device)))
                .map_err(refused)?
                .map_err(|source| ApplyError::Rule { namespace: name.to_owned(), source })?;
        }
        self.namespaces.insert(name.to_owned(), net);
        Ok(())
    }

    fn release(&mut self, name: &str) -> Result<(), ApplyError> {
        let Some(namespace) = self.plan.namespaces.remove(name) else { return Ok(()) };
        self.namespaces.remove(name);
        for leg in &namespace.legs {
            // It may be gone already, with the last process of its namespace.
            match self.in_root(|| links::remove(&leg.host)) {
                Ok(()) | Err(ApplyError::Link { source: LinkError::NoSuchInterface { .. }, .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn within(&self, name: &str, work: impl FnOnce() -> Result<(), LinkError> + Send) -> Result<(), ApplyError> {
        let done = self.namespace(name)?.run(work);
        done.map_err(|source| ApplyError::Namespace { namespace: name.to_owned(), source })?
            .map_err(|source| ApplyError::Link { namespace: name.to_owned(), source })
    }

    fn in_root(&self, work: impl FnOnce() -> Result<(), LinkError> + Send) -> Result<(), ApplyError> {
        let namespace = || "the root".to_owned();
        let done = self.root.run(work).map_err(|source| ApplyError::Namespace { namespace: namespace(), source })?;
        done.map_err(|source| ApplyError::Link { namespace: namespace(), source })
    }
}

/// Settings of a new namespace. `default` takes effect for interfaces that come later, `all` for some settings as well.
fn settings(namespace: &Namespace) -> Result<(), LinkError> {
    for scope in ["all", "default"] {
        // Paths are not symmetrical between nodes of a flat network.
        links::set(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
        // An interface answers for its own addresses only: the other side of a namespace may use the same ones.
        links::set(&format!("net.ipv4.conf.{scope}.arp_ignore"), "1")?;
        links::set(&format!("net.ipv4.conf.{scope}.arp_announce"), "2")?;
        links::set(&format!("net.ipv4.conf.{scope}.send_redirects"), "0")?;
        links::set(&format!("net.ipv4.conf.{scope}.accept_redirects"), "0")?;
    }
    if namespace.forwards {
        links::set("net.ipv4.ip_forward", "1")?;
    }
    // A kernel without IPv6 has none of these files, and needs none.
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        for scope in ["all", "default"] {
            links::set(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
            links::set(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
        }
        if namespace.forwards {
            links::set("net.ipv6.conf.all.forwarding", "1")?;
        }
    }
    Ok(())
}
