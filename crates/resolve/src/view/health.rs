//! Draining clusters.
//!
//! Never drains what nothing else can serve. Rule: endpoints of a draining cluster take no new requests while a healthy
//! endpoint exists in a cluster that is not draining; what runs only in draining clusters goes on.

use fairlead_model::endpoint::{Endpoint, Health};
use fairlead_model::ids::ClusterId;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn drain(endpoints: &mut [Arc<Endpoint>], draining: &BTreeSet<&ClusterId>) {
    if draining.is_empty() {
        return;
    }
    let leaves = |endpoint: &Arc<Endpoint>| draining.contains(&endpoint.workload.cluster);
    let elsewhere = endpoints.iter().any(|endpoint| endpoint.health == Health::Healthy && !leaves(endpoint));
    if !elsewhere {
        return;
    }
    for endpoint in endpoints.iter_mut() {
        if endpoint.health == Health::Healthy && leaves(endpoint) {
            *endpoint = Arc::new(Endpoint { health: Health::Draining, ..(**endpoint).clone() });
        }
    }
}
