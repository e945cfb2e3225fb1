//! A cluster after its pods came, went or moved: only the namespaces that these are in are normalised anew.
//!
//! Services, slices and pods mean something within their namespace alone, but for what is listed in [`is_local`]; where any of that
//! is touched, the whole cluster is normalised. Invariant: the result is the one that [`super::cluster`] gives for the same input.

use super::objects::ObjectRef;
use super::state::{ClusterInput, ClusterState, Observed, cluster};
use crate::gateways::BUILT_IN_NAMESPACE;
use crate::settings::Settings;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::endpoint::WorkloadRef;
use fairlead_model::ids::NetworkId;
use fairlead_model::matching::Labels;
use fairlead_model::mesh::Workload;
use fairlead_resources::Object;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What was normalised last, and of what.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    pub state: &'a ClusterState,
    pub diagnostics: &'a [Diagnostic],
    pub settings: &'a Settings,
    pub observed: &'a Observed,
    /// Sorted by key.
    pub objects: &'a [ObjectRef<'a>],
}

/// The Service whose network label says that gateways are behind it (Istio).
const NETWORK: &str = "topology.istio.io/network";

/// Of the namespaces that something moved in; all else is looked at whole.
const NORMALISED_ANEW: [&str; 3] = ["EndpointSlice", "Pod", "Service"];

/// What changed since, if it is only pods and their slices: the namespaces, and whether some labels did.
struct Moves<'a> {
    namespaces: BTreeSet<&'a str>,
    labels: bool,
}

/// [`super::cluster`] for input whose objects are sorted by key; `None`: it has to be made from nothing.
pub fn cluster_after(input: &ClusterInput<'_>, before: &Before<'_>) -> Option<(ClusterState, Vec<Diagnostic>)> {
    let (now, then) = (input.observed, before.observed);
    let same = input.settings == before.settings
        && *input.cluster == before.state.cluster
        && (now.state, now.incarnation, &now.version) == (then.state, then.incarnation, &then.version)
        && now.looked_up == then.looked_up;
    if !same {
        return None;
    }
    let mut moves = moves(input.objects, before.objects)?;
    for (workload, health) in &now.health {
        if then.health.get(workload) != Some(health) {
            moves.namespaces.insert(&workload.namespace);
        }
    }
    moves.namespaces.extend(then.health.keys().filter(|w| !now.health.contains_key(*w)).map(|w| w.namespace.as_str()));
    if !is_local(input, before, &moves) {
        return None;
    }
    let inside = |object: &ObjectRef<'_>| {
        let in_namespaces =
            matches!(object.decoded.object, Object::Pod(_) | Object::EndpointSlice(_) | Object::Service(_));
        !in_namespaces || moves.namespaces.contains(&*object.decoded.key.namespace)
    };
    let objects: Vec<ObjectRef<'_>> = input.objects.iter().filter(|object| inside(object)).copied().collect();
    let (part, told) = cluster(&ClusterInput { objects: &objects, ..*input });
    let of = |workload: &WorkloadRef| moves.namespaces.contains(workload.namespace.as_str());
    let is_gateway = |w: &&Arc<Workload>| of(&w.key) && w.gateway.is_some();
    if part.workloads.values().chain(before.state.workloads.values()).any(|w| is_gateway(&w))
        || !has_networks(before.state, &part, &moves)
    {
        return None;
    }
    let mut state = before.state.clone();
    replace(Arc::make_mut(&mut state.workloads), Arc::unwrap_or_clone(part.workloads), |key| of(key));
    replace(&mut state.services, part.services, |key| moves.namespaces.contains(key.namespace.as_str()));
    state.selected.retain(|key, _| !of(key));
    state.selected.extend(part.selected.into_iter().filter(|(key, _)| of(key)));
    let within = |found: &&Diagnostic| {
        moves.namespaces.contains(&*found.object.namespace) && NORMALISED_ANEW.contains(&&*found.object.kind)
    };
    let mut diagnostics: Vec<Diagnostic> = before.diagnostics.iter().filter(|found| !within(found)).cloned().collect();
    diagnostics.extend(told.iter().filter(within).cloned());
    crate::analyze::sort(&mut diagnostics);
    Some((state, diagnostics))
}

/// Takes the entries of these keys from `part`, those that are equal as they were.
fn replace<K: Ord, V: PartialEq>(all: &mut BTreeMap<K, Arc<V>>, part: BTreeMap<K, Arc<V>>, of: impl Fn(&K) -> bool) {
    all.retain(|key, _| !of(key) || part.contains_key(key));
    for (key, value) in part.into_iter().filter(|(key, _)| of(key)) {
        match all.get_mut(&key) {
            Some(known) if *known == value => {}
            Some(known) => *known = value,
            None => drop(all.insert(key, value)),
        }
    }
}

/// Whether the cluster is in the same networks as before: no new one, and none that only these namespaces were in.
fn has_networks(before: &ClusterState, part: &ClusterState, moves: &Moves<'_>) -> bool {
    let known: BTreeSet<&NetworkId> = part.member.networks.iter().collect();
    let inside = before.workloads.values().filter(|w| moves.namespaces.contains(w.key.namespace.as_str()));
    part.member.networks.iter().all(|network| before.member.networks.contains(network))
        && inside.map(|workload| &workload.network).all(|network| known.contains(network))
}

/// Objects that differ by identity: both lists share what did not change.
fn moves<'a>(new: &[ObjectRef<'a>], old: &[ObjectRef<'a>]) -> Option<Moves<'a>> {
    let mut moves = Moves { namespaces: BTreeSet::new(), labels: false };
    let (mut new, mut old) = (new.iter().peekable(), old.iter().peekable());
    loop {
        let (a, b) = match (new.peek(), old.peek()) {
            (None, None) => return Some(moves),
            (Some(a), Some(b)) if std::ptr::eq(a.decoded, b.decoded) => (new.next(), old.next()),
            (Some(a), Some(b)) if a.decoded.key == b.decoded.key => (new.next(), old.next()),
            (Some(a), Some(b)) if a.decoded.key < b.decoded.key => (new.next(), None),
            (Some(_), None) => (new.next(), None),
            _ => (None, old.next()),
        };
        if let (Some(a), Some(b)) = (a, b)
            && std::ptr::eq(a.decoded, b.decoded)
            && a.file == b.file
        {
            continue;
        }
        for object in [a, b].into_iter().flatten() {
            match &object.decoded.object {
                Object::EndpointSlice(_) => {}
                Object::Pod(_) => moves.labels |= labels(a) != labels(b),
                _ => return None,
            }
            moves.namespaces.insert(&object.decoded.key.namespace);
        }
    }
}

fn labels<'a>(object: Option<&ObjectRef<'a>>) -> Option<&'a Labels> {
    object.map(|object| &*object.decoded.object.meta().labels)
}

/// Whether nothing outside the namespaces can follow from what happened in them.
fn is_local(input: &ClusterInput<'_>, before: &Before<'_>, moves: &Moves<'_>) -> bool {
    // The built-in gateway is made up there.
    if moves.namespaces.contains(BUILT_IN_NAMESPACE) || !input.settings.networks.networks.is_empty() {
        return false;
    }
    // Findings about selectors that select nobody.
    let mut selectors = false;
    let local = input.objects.iter().all(|object| match &object.decoded.object {
        // Addresses of processes follow from those of all others.
        Object::Workload(_) => false,
        // Names of other namespaces, and endpoints that are workloads by their address.
        Object::ServiceEntry(entry) => {
            let is_address = |address: &String| address.parse::<IpAddr>().is_ok();
            !moves.namespaces.contains(&*object.decoded.key.namespace)
                && !entry.spec.endpoints.iter().any(|endpoint| is_address(&endpoint.address))
        }
        // Gateways between networks are behind it.
        Object::Service(service) => {
            service.metadata.label(NETWORK).is_none() || !moves.namespaces.contains(&*object.decoded.key.namespace)
        }
        Object::Gateway(_) | Object::AuthorizationPolicy(_) => {
            selectors = true;
            true
        }
        _ => true,
    });
    local && !(selectors && moves.labels) && before.state.cluster == *input.cluster
}
