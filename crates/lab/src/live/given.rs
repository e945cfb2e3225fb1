//! The conditions of a call: what they break, and what a caller's proxy must then show.
//!
//! Names are settled before anything is broken. Invariant: healing undoes exactly what was applied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use fairlead_calls::given::duration;
use fairlead_calls::names::long_form;
use fairlead_calls::{Answer, Given};

use super::conditions::Needs;
use super::lab::{Lab, LabError};
use super::spec::{EAST_WEST, Part};
use crate::faults::Fault;

/// What `given` means in this mesh.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    faults: Vec<Fault>,
    /// Clusters that are down whole.
    pub down_clusters: BTreeSet<String>,
    down_control: BTreeSet<String>,
    down: BTreeSet<String>,
    unhealthy: BTreeSet<String>,
    drained: BTreeSet<String>,
    drained_clusters: BTreeSet<String>,
    /// Clusters whose control stream is frozen.
    pub stale: BTreeSet<String>,
    revoked: BTreeSet<String>,
    apart: BTreeSet<(String, String)>,
    /// Clusters that cannot be entered: all their gateways are down.
    closed: BTreeSet<String>,
    /// Addresses of gateways that are down, whole or by themselves.
    dead_entrances: BTreeSet<IpAddr>,
    /// By cluster, how long it is back.
    pub returned: BTreeMap<String, Duration>,
    answers: BTreeMap<String, Answer>,
    /// Networks by cluster, to know who needs a gateway.
    networks: BTreeMap<String, String>,
    judges: bool,
}

impl State {
    /// All is well.
    pub fn whole(lab: &Lab) -> Self {
        let networks = lab.spec().clusters.iter().map(|(name, c)| (name.clone(), c.network.clone())).collect();
        Self { networks, judges: lab.spec().judges, ..Self::default() }
    }

    /// What `given` means. The error is the table's.
    pub fn of(lab: &Lab, given: &Given) -> Result<Self, LabError> {
        let mut state = Self::whole(lab);
        for name in &given.down {
            state.take_down(lab, name)?;
        }
        for name in &given.unhealthy {
            state.unhealthy.extend(told(lab, name, Needs::Probe)?);
        }
        for name in &given.drained {
            match lab.spec().clusters.contains_key(name) {
                true => drop(state.drained_clusters.insert(name.clone())),
                false => state.drained.extend(told(lab, name, Needs::Proxy)?),
            }
        }
        for name in &given.stale {
            let cluster = known(lab, name.strip_suffix("/control").unwrap_or(name))?;
            state.faults.push(Fault::Freeze(cluster.clone()));
            state.stale.insert(cluster);
        }
        for name in &given.revoked {
            state.revoked.insert(known(lab, name)?);
        }
        for (pairs, cut) in [(&given.cut, true), (&given.blackholed, false)] {
            for [a, b] in pairs {
                let (a, b) = (known(lab, a)?, known(lab, b)?);
                state.faults.push(if cut {
                    Fault::Cut(a.clone(), b.clone())
                } else {
                    Fault::BlackholeBetween(a.clone(), b.clone())
                });
                state.apart.insert((a.clone(), b.clone()));
                state.apart.insert((b, a));
            }
        }
        for (name, since) in &given.returned {
            state.returned.insert(known(lab, name)?, duration(since).map_err(LabError::Unknown)?);
        }
        for (name, answer) in &given.answers {
            for workload in told(lab, name, Needs::Echo)? {
                state.answers.insert(workload, answer.clone());
            }
        }
        state.close(lab);
        Ok(state)
    }

    fn take_down(&mut self, lab: &Lab, name: &str) -> Result<(), LabError> {
        if lab.spec().clusters.contains_key(name) {
            self.down_clusters.insert(name.to_owned());
            self.faults.push(lab.kill_of(name));
            return Ok(());
        }
        if let Some(control) = name.strip_suffix("/control") {
            self.down_control.insert(known(lab, control)?);
            self.faults.push(lab.kill_of(name));
            return Ok(());
        }
        if name.contains('@') {
            self.faults.push(lab.kill_of(name));
            return Ok(());
        }
        for workload in lab.workloads_of(name)? {
            // Where nobody judges (profile istio) a workload that is down is down with its proxy, so that tries fail; else its
            // proxy stays and reports the program's death.
            let whole = Fault::Kill { target: workload.clone(), process: None };
            self.faults.push(if lab.spec().judges { lab.kill_of(&workload) } else { whole });
            self.down.insert(workload);
        }
        Ok(())
    }

    /// Finds the entrances that are down, and the clusters all of whose entrances are.
    fn close(&mut self, lab: &Lab) {
        let plan = lab.handle().plan();
        let gone: BTreeSet<&str> = self.faults.iter().flat_map(Fault::targets).collect();
        for (cluster, of) in &lab.spec().clusters {
            let written = of.workloads.iter().filter(|w| w.part == Part::EastWest && !w.wan.is_empty());
            let entrances: Vec<(String, IpAddr)> = written
                .flat_map(|w| w.wan.iter().map(|a| (format!("{cluster}/{}/{}", w.namespace, w.name), *a)))
                .collect();
            let is_dead = |(name, address): &&(String, IpAddr)| {
                gone.contains(name.as_str()) || gone.contains(format!("{name}@{address}").as_str())
            };
            if !entrances.is_empty() && entrances.iter().all(|entrance| is_dead(&entrance)) {
                self.closed.insert(cluster.clone());
            }
            self.dead_entrances.extend(entrances.iter().filter(is_dead).map(|(_, address)| *address));
        }
        for cluster in lab.spec().clusters.keys() {
            let instances = plan.gateways(cluster, EAST_WEST);
            if instances.is_empty() {
                continue;
            }
            let built_in = long_form(&format!("{cluster}/{EAST_WEST}"));
            let whole = gone.contains(built_in.as_str());
            let is_gone = |instance: &&str| {
                let addresses: Vec<IpAddr> =
                    plan.namespace(instance).map(|n| n.wan_addresses().to_vec()).unwrap_or_default();
                addresses.iter().any(|a| gone.contains(format!("{cluster}/{EAST_WEST}@{a}").as_str()))
            };
            if whole || instances.iter().all(is_gone) {
                self.closed.insert(cluster.clone());
            }
            let dead = instances.iter().filter(|instance| whole || is_gone(instance)).filter_map(|i| plan.namespace(i));
            self.dead_entrances.extend(dead.flat_map(|namespace| namespace.wan_addresses().iter().copied()));
        }
    }

    /// Whether this is the address of a gateway that is down, where proxies find that out by themselves.
    pub fn is_dead_entrance(&self, address: IpAddr) -> bool {
        self.judges && self.dead_entrances.contains(&address)
    }

    /// Nothing is broken.
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
            && self.unhealthy.is_empty()
            && self.drained.is_empty()
            && self.drained_clusters.is_empty()
            && self.revoked.is_empty()
            && self.answers.is_empty()
            && self.returned.is_empty()
    }

    /// Whether something is down that nobody probes: only failing calls find it out (outlier detection), if anything does.
    pub fn is_found_by_failures(&self) -> bool {
        let gone = [self.down.is_empty(), self.down_clusters.is_empty(), self.apart.is_empty(), self.closed.is_empty()];
        !self.judges && gone.contains(&false)
    }

    /// Whether a cluster's control plane is not there.
    pub fn control_down(&self, cluster: &str) -> bool {
        self.down_clusters.contains(cluster) || self.down_control.contains(cluster)
    }

    /// Whether any cluster is revoked.
    pub fn revokes(&self) -> bool {
        !self.revoked.is_empty()
    }

    pub fn is_revoked(&self, cluster: &str) -> bool {
        self.revoked.contains(cluster)
    }

    /// What making and undoing it disturbs, to go from little to much.
    pub fn cost(&self) -> usize {
        let clusters = self.down_clusters.len() + self.returned.len();
        let parts = self.faults.len()
            + self.unhealthy.len()
            + self.drained.len()
            + self.drained_clusters.len()
            + self.answers.len();
        self.revoked.len() * 1000 + clusters * 100 + self.apart.len() * 10 + parts
    }

    /// Whether it gets no new requests unless nothing else can serve.
    pub fn is_drained(&self, workload: &str) -> bool {
        let cluster = workload.split('/').next().unwrap_or_default();
        self.drained.contains(workload) || self.drained_clusters.contains(cluster)
    }

    /// Whether a proxy in `viewer` gives requests to `workload`; None: it cannot be told, or either is fine.
    pub fn expected(&self, viewer: &str, workload: &str) -> Option<bool> {
        let cluster = workload.split('/').next().unwrap_or_default();
        let own = cluster == viewer;
        if self.revoked.contains(cluster) && !own {
            return Some(false);
        }
        if self.revoked.contains(viewer) && !own {
            // Who is revoked is told nothing more; only a proxy that judges paths finds out that it is let in nowhere.
            return if self.judges { Some(false) } else { None };
        }
        if self.down_clusters.contains(cluster) {
            return if self.judges { Some(false) } else { None };
        }
        let other_network = self.networks.get(cluster) != self.networks.get(viewer);
        let apart = self.apart.contains(&(viewer.to_owned(), cluster.to_owned()));
        if !own && (apart || other_network && self.closed.contains(cluster)) {
            return if self.judges { Some(false) } else { None };
        }
        let out = self.down.contains(workload) || self.unhealthy.contains(workload);
        let drained = self.is_drained(workload);
        // News of health come by control planes: without one, or with a frozen stream, nobody may know.
        let silent = self.control_down(viewer) || self.control_down(cluster) || (!own && self.stale.contains(cluster));
        match (out, drained) {
            (true, _) if !self.judges && !self.unhealthy.contains(workload) => None,
            (true, _) | (_, true) => (!silent).then_some(false),
            (false, false) => (!silent).then_some(true),
        }
    }

    /// Breaks what is to be broken.
    pub async fn apply(&self, lab: &Lab) -> Result<(), LabError> {
        for (name, answer) in &self.answers {
            lab.answers(name, Some(answer))?;
        }
        for name in &self.unhealthy {
            lab.unhealthy(name, true).await?;
        }
        for name in self.drained.iter().chain(&self.drained_clusters) {
            lab.drain(name, true).await?;
        }
        for cluster in &self.revoked {
            lab.detach(cluster, None, false).await?;
        }
        for fault in &self.faults {
            lab.fault(fault.clone()).await?;
        }
        Ok(())
    }
}

/// Those that can be told so; where none can all are meant, and the call is undecided when they are told.
fn told(lab: &Lab, name: &str, needs: Needs) -> Result<BTreeSet<String>, LabError> {
    let all = lab.workloads_of(name)?;
    Ok(lab.able(name, needs).unwrap_or(all))
}

fn known(lab: &Lab, cluster: &str) -> Result<String, LabError> {
    if lab.spec().clusters.contains_key(cluster) {
        return Ok(cluster.to_owned());
    }
    Err(LabError::Unknown(format!("`{cluster}` is no cluster of this mesh")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let networks = [("east", "e"), ("west", "w"), ("flat", "e")].map(|(c, n)| (c.to_owned(), n.to_owned())).into();
        State { networks, judges: true, ..State::default() }
    }

    #[test]
    fn who_is_in_rotation_for_whom() {
        let mut s = state();
        assert!(s.is_whole());
        assert_eq!(s.expected("east", "west/shop/a"), Some(true));
        s.closed.insert("east".into());
        assert_eq!(s.expected("west", "east/shop/a"), Some(false), "its gateway is the way in");
        assert_eq!(s.expected("flat", "east/shop/a"), Some(true), "a flat neighbour needs none");
        let mut s = state();
        s.apart.insert(("east".into(), "west".into()));
        assert_eq!(s.expected("east", "west/shop/a"), Some(false));
        assert_eq!(s.expected("flat", "west/shop/a"), Some(true));
        let mut s = state();
        s.down.insert("west/shop/a".into());
        assert_eq!(s.expected("east", "west/shop/a"), Some(false));
        s.down_control.insert("west".into());
        assert_eq!(s.expected("east", "west/shop/a"), None, "nobody is left to tell");
        let mut s = state();
        s.revoked.insert("west".into());
        assert_eq!((s.expected("east", "west/shop/a"), s.expected("west", "west/shop/a")), (Some(false), Some(true)));
    }
}
