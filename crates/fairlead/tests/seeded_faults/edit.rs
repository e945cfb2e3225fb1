//! Taking received resources apart, and putting them together again with something wrong.
//!
//! Invariant: an edit that finds nothing to change gives `None`, so that a fault which is none is noticed.

use bytes::Bytes;
use fairlead_engine::Resource;
use fairlead_proto::envoy::cluster::Cluster;
use fairlead_proto::envoy::endpoint::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier};
use fairlead_proto::envoy::http::rbac::Rbac;
use fairlead_proto::envoy::listener::{FilterChain, Listener, filter::ConfigType};
use fairlead_proto::envoy::network::http_connection_manager::{HttpConnectionManager, http_filter};
use fairlead_proto::envoy::protobuf::{Any, value::Kind};
use fairlead_proto::envoy::rbac::rbac::Action;
use fairlead_proto::envoy::route::{Route, RouteAction, RouteConfiguration, VirtualHost, route};
use fairlead_proto::{JsonResource, ResourceType, any};
use prost::{Message, Name};

/// Changes a message of type `M`, if the resource is one; `change` says how much it found to change.
pub fn message<M: Message + Name + Default>(
    resource: &Resource,
    change: impl FnOnce(&mut M) -> usize,
) -> Option<Bytes> {
    let mut message: M = any::unpack_bytes(&resource.body).ok()?;
    (change(&mut message) > 0).then(|| any::pack_bytes(&message))
}

/// Changes what is packed in `packed`, if that is an `M`.
pub fn inside<M: Message + Name + Default>(packed: &mut Any, change: impl FnOnce(&mut M) -> usize) -> usize {
    let Ok(mut message) = any::unpack::<M>(packed) else { return 0 };
    let found = change(&mut message);
    *packed = any::pack(&message);
    found
}

/// Changes the Envoy cluster of this name.
pub fn cluster(resource: &Resource, name: &str, change: impl FnOnce(&mut Cluster)) -> Option<Bytes> {
    message(resource, |cluster: &mut Cluster| {
        let meant = cluster.name == name;
        if meant {
            change(cluster);
        }
        usize::from(meant)
    })
}

/// Changes the endpoints of the Envoy cluster of this name.
pub fn endpoints(
    resource: &Resource,
    name: &str,
    change: impl FnOnce(&mut ClusterLoadAssignment) -> usize,
) -> Option<Bytes> {
    message(resource, |assignment: &mut ClusterLoadAssignment| match assignment.cluster_name == name {
        true => change(assignment),
        false => 0,
    })
}

/// Changes every endpoint of the Envoy cluster of this name.
pub fn each_endpoint(
    resource: &Resource,
    name: &str,
    change: impl Fn(&mut LbEndpoint, &mut fairlead_proto::envoy::endpoint::Endpoint) -> usize,
) -> Option<Bytes> {
    endpoints(resource, name, |assignment| {
        let all = assignment.endpoints.iter_mut().flat_map(|locality| &mut locality.lb_endpoints);
        let mut found = 0;
        for one in all {
            if let Some(HostIdentifier::Endpoint(mut endpoint)) = one.host_identifier.take() {
                found += change(one, &mut endpoint);
                one.host_identifier = Some(HostIdentifier::Endpoint(endpoint));
            }
        }
        found
    })
}

/// Makes an endpoint's metadata say something else of it; `at` is the namespace of the metadata and the field.
pub fn say(host: &mut LbEndpoint, at: (&str, &str), text: &str) -> usize {
    let own = host.metadata.as_mut().and_then(|all| all.filter_metadata.get_mut(at.0));
    let Some(value) = own.and_then(|own| own.fields.get_mut(at.1)) else { return 0 };
    value.kind = Some(Kind::StringValue(text.to_owned()));
    1
}

/// Changes the virtual host whose name begins so.
pub fn virtual_host(resource: &Resource, name: &str, change: impl Fn(&mut VirtualHost) -> usize) -> Option<Bytes> {
    message(resource, |config: &mut RouteConfiguration| {
        config.virtual_hosts.iter_mut().filter(|host| host.name.starts_with(name)).map(change).sum()
    })
}

/// Changes the routes of that virtual host that are forwarded.
pub fn routes(
    resource: &Resource,
    host: &str,
    change: impl Fn(&mut Route, &mut RouteAction) -> usize,
) -> Option<Bytes> {
    virtual_host(resource, host, |host| {
        let mut found = 0;
        for one in &mut host.routes {
            match one.action.take() {
                Some(route::Action::Route(mut action)) => {
                    found += change(one, &mut action);
                    one.action = Some(route::Action::Route(action));
                }
                other => one.action = other,
            }
        }
        found
    })
}

/// Changes the listener of this name.
pub fn listener(resource: &Resource, name: &str, change: impl FnOnce(&mut Listener) -> usize) -> Option<Bytes> {
    message(resource, |listener: &mut Listener| if listener.name == name { change(listener) } else { 0 })
}

/// What is packed in the network filters of a chain.
pub fn filters(chain: &mut FilterChain) -> impl Iterator<Item = &mut Any> {
    chain.filters.iter_mut().filter_map(|filter| match &mut filter.config_type {
        Some(ConfigType::TypedConfig(packed)) => Some(packed),
        _ => None,
    })
}

/// Changes the rules of this action that a sidecar holds requests against; `false` takes them away altogether.
pub fn http_rules(resource: &Resource, action: Action, change: impl Fn(&mut Rbac) -> bool) -> Option<Bytes> {
    listener(resource, "virtualInbound", |listener| {
        let chains = listener.filter_chains.iter_mut().flat_map(filters);
        chains
            .map(|filter| inside(filter, |manager: &mut HttpConnectionManager| rules_of(manager, action, &change)))
            .sum()
    })
}

fn rules_of(manager: &mut HttpConnectionManager, action: Action, change: &impl Fn(&mut Rbac) -> bool) -> usize {
    let mut found = 0;
    manager.http_filters.retain_mut(|filter| {
        let Some(http_filter::ConfigType::TypedConfig(packed)) = &mut filter.config_type else { return true };
        let mut stays = true;
        found += inside(packed, |rbac: &mut Rbac| {
            let meant = rbac.rules.as_ref().is_some_and(|rules| rules.action == action as i32);
            if meant {
                stays = change(rbac);
            }
            usize::from(meant)
        });
        stays
    });
    found
}

/// Takes a name out of the name table.
pub fn forget_name(resource: &Resource, name: &str) -> Option<Bytes> {
    let (kind, table) = JsonResource::from_any_bytes(&resource.body).ok()?;
    let mut json: serde_json::Value = serde_json::from_slice(&table.json).ok()?;
    json["names"].as_object_mut()?.remove(name)?;
    (kind == ResourceType::NameTable).then(|| JsonResource::new(table.revision, json.to_string()).to_any_bytes(kind))
}
