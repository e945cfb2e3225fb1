//! `/config_dump`: every resource in use, by type, as it was sent.
//!
//! Envoy prints resources as JSON; that takes descriptors this proxy does not carry. Names, versions and the encoded `Any`
//! (base64) are given, with a decoded summary where the decoded form is at hand. Invariant: it shows what is used, not what
//! was refused.

use crate::shared::Shared;
use base64::Engine as _;
use fairlead_proto::ResourceType;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All resources by type.
pub fn dump(shared: &Shared) -> Value {
    let world = shared.world.load();
    let mut by_type: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    for (kind, name, resource) in world.snapshot.resources() {
        let body = base64::engine::general_purpose::STANDARD.encode(&resource.body);
        let mut entry = json!({ "name": &**name, "version_info": resource.version, "resource": body });
        if let Some(summary) = summary(&world.snapshot, kind, name) {
            entry["summary"] = summary;
        }
        by_type.entry(kind.url()).or_default().push(entry);
    }
    let configs: Vec<Value> =
        by_type.into_iter().map(|(kind, items)| json!({ "@type": kind, "resources": items })).collect();
    json!({ "generation": world.snapshot.generation(), "configs": configs })
}

/// Listeners and where they are bound.
pub fn listeners(shared: &Shared) -> Value {
    let world = shared.world.load();
    let mut all: Vec<_> = world.snapshot.listeners().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let statuses: Vec<Value> = all
        .into_iter()
        .map(|listener| {
            json!({
                "name": &*listener.name,
                "address": listener.address.map(|address| address.to_string()),
                "bound": shared.addresses.get(&listener.name).map(|address| address.to_string()),
            })
        })
        .collect();
    let problems: BTreeMap<String, String> = shared.addresses.problems().into_iter().collect();
    json!({ "listener_statuses": statuses, "problems": problems })
}

fn summary(snapshot: &fairlead_engine::Snapshot, kind: ResourceType, name: &str) -> Option<Value> {
    Some(match kind {
        ResourceType::Listener => {
            let listener = snapshot.listener(name)?;
            let chains: Vec<&str> =
                listener.chains.iter().chain(listener.default_chain.as_ref()).map(|chain| &*chain.name).collect();
            json!({ "address": listener.address.map(|a| a.to_string()), "bind_to_port": listener.bind_to_port, "filter_chains": chains })
        }
        ResourceType::RouteConfiguration => {
            let config = snapshot.route_config(name)?;
            let hosts: Vec<Value> = config
                .virtual_hosts
                .iter()
                .map(|host| {
                    let routes: Vec<&str> = host.routes.iter().map(|route| &*route.name).collect();
                    json!({ "name": &*host.name, "domains": host.domains, "routes": routes })
                })
                .collect();
            json!({ "virtual_hosts": hosts })
        }
        ResourceType::Cluster => {
            let cluster = snapshot.cluster(name)?;
            json!({ "host": &*cluster.host, "lb_policy": format!("{:?}", cluster.lb_policy) })
        }
        ResourceType::ClusterLoadAssignment => {
            let endpoints = snapshot.assignment(name)?;
            let keys: Vec<String> = endpoints.iter().map(|endpoint| endpoint.key.to_string()).collect();
            json!({ "endpoints": keys })
        }
        _ => return None,
    })
}
