//! Decoding: nothing panics, unchanged resources are shared, bad ones leave the last good ones.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::{Change, Resource, Snapshot};
use fairlead_proto::envoy::{cluster, core, endpoint, listener, network, rbac, route, tls};
use fairlead_proto::{ResourceType, any};
use proptest::prelude::*;
use std::sync::Arc;

fn socket(port: u32) -> core::Address {
    let socket = core::SocketAddress {
        address: "192.0.2.1".into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn filter(message: fairlead_proto::any::Any) -> listener::Filter {
    listener::Filter { name: "f".into(), config_type: Some(listener::filter::ConfigType::TypedConfig(message)) }
}

fn route_config(name: &str) -> route::RouteConfiguration {
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster("c".into())),
        retry_policy: Some(route::RetryPolicy { retry_on: "5xx".into(), ..Default::default() }),
        ..Default::default()
    };
    let route = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            headers: vec![route::HeaderMatcher { name: "x".into(), ..Default::default() }],
            ..Default::default()
        }),
        request_headers_to_add: vec![core::HeaderValueOption {
            header: Some(core::HeaderValue { key: "x".into(), value: "%REQ(y)%".into(), ..Default::default() }),
            ..Default::default()
        }],
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let host = route::VirtualHost { domains: vec!["*.a".into()], routes: vec![route], ..Default::default() };
    route::RouteConfiguration { name: name.into(), virtual_hosts: vec![host], ..Default::default() }
}

fn http_manager() -> network::http_connection_manager::HttpConnectionManager {
    use network::http_connection_manager::{
        HttpFilter, http_connection_manager::RouteSpecifier, http_filter::ConfigType,
    };
    let policy = rbac::Policy {
        permissions: vec![rbac::Permission { rule: Some(rbac::permission::Rule::Any(true)) }],
        principals: vec![rbac::Principal { identifier: Some(rbac::principal::Identifier::Any(true)) }],
        ..Default::default()
    };
    let rules = rbac::Rbac { policies: [("p".to_owned(), policy)].into(), ..Default::default() };
    let rbac = fairlead_proto::envoy::http::rbac::Rbac { rules: Some(rules), ..Default::default() };
    let filters = [any::pack(&rbac), any::pack(&fairlead_proto::envoy::http::router::Router::default())];
    network::http_connection_manager::HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(route_config("inline"))),
        http_filters: filters
            .into_iter()
            .map(|any| HttpFilter { config_type: Some(ConfigType::TypedConfig(any)), ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

fn listener_of(name: &str, manager: &network::http_connection_manager::HttpConnectionManager) -> listener::Listener {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![tls::SdsSecretConfig {
                name: "default".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    listener::Listener {
        name: name.into(),
        address: Some(socket(80)),
        filter_chains: vec![listener::FilterChain {
            filters: vec![filter(any::pack(manager))],
            transport_socket: Some(core::TransportSocket {
                name: "tls".into(),
                config_type: Some(core::transport_socket::ConfigType::TypedConfig(any::pack(&context))),
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn cluster_of(name: &str) -> cluster::Cluster {
    cluster::Cluster { name: name.into(), load_assignment: Some(assignment("a")), ..Default::default() }
}

fn assignment(name: &str) -> endpoint::ClusterLoadAssignment {
    endpoint::ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![endpoint::LbEndpoint {
                host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
                    address: Some(socket(80)),
                    ..Default::default()
                })),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn set(kind: ResourceType, name: &str, version: &str, body: bytes::Bytes) -> Change {
    Change::Set(Resource::new(kind, name, version, body))
}

/// One of each, of version `version`.
fn everything(version: &str) -> Vec<Change> {
    vec![
        set(ResourceType::Listener, "l", version, any::pack_bytes(&listener_of("l", &http_manager()))),
        set(ResourceType::RouteConfiguration, "r", version, any::pack_bytes(&route_config("r"))),
        set(ResourceType::Cluster, "c", version, any::pack_bytes(&cluster_of("c"))),
        set(ResourceType::ClusterLoadAssignment, "c", version, any::pack_bytes(&assignment("c"))),
    ]
}

#[test]
fn unchanged_resources_are_shared() {
    let (first, rejected) = Snapshot::build(None, everything("1"));
    assert_eq!(rejected, []);
    let mut changes = everything("1");
    changes.push(set(ResourceType::Cluster, "d", "1", any::pack_bytes(&cluster_of("d"))));
    let (second, rejected) = Snapshot::build(Some(&first), changes);
    assert_eq!(rejected, []);
    assert!(Arc::ptr_eq(first.listener("l").unwrap(), second.listener("l").unwrap()));
    assert!(Arc::ptr_eq(first.cluster("c").unwrap(), second.cluster("c").unwrap()));
    assert!(Arc::ptr_eq(first.assignment("c").unwrap(), second.assignment("c").unwrap()));
    assert!(second.cluster("d").is_some() && first.cluster("d").is_none());
    assert_eq!((first.generation(), second.generation()), (0, 1));
    let names: Vec<_> = second.resources().map(|(kind, name, _)| (kind, name.to_string())).collect();
    assert!(names.is_sorted() && names.len() == 5);
    let (third, _) = Snapshot::build(Some(&second), [Change::Remove { kind: ResourceType::Cluster, name: "d".into() }]);
    assert!(third.cluster("d").is_none() && third.resource(ResourceType::Cluster, "d").is_none());
}

#[test]
fn a_bad_resource_leaves_the_last_good_one() {
    let (first, _) = Snapshot::build(None, everything("1"));
    let bad = set(ResourceType::Listener, "l", "2", bytes::Bytes::from_static(&[0xff; 7]));
    let misnamed = set(ResourceType::Cluster, "c", "2", any::pack_bytes(&cluster_of("other")));
    let (second, rejected) = Snapshot::build(Some(&first), [bad, misnamed]);
    let names: Vec<_> = rejected.iter().map(|r| (r.kind, r.name.as_str(), r.version.as_str())).collect();
    assert_eq!(names, [(ResourceType::Listener, "l", "2"), (ResourceType::Cluster, "c", "2")]);
    assert!(Arc::ptr_eq(first.listener("l").unwrap(), second.listener("l").unwrap()));
    assert_eq!(second.resource(ResourceType::Cluster, "c").unwrap().0, "1");
    // The very same bad version is refused again, not taken for known.
    let again = set(ResourceType::Listener, "l", "2", bytes::Bytes::from_static(&[0xff; 7]));
    assert_eq!(Snapshot::build(Some(&second), [again]).1.len(), 1);
}

#[test]
fn an_unknown_filter_refuses_the_listener_unless_optional() {
    use network::http_connection_manager::{HttpFilter, http_filter::ConfigType};
    let unknown = |is_optional| HttpFilter {
        name: "lua".into(),
        is_optional,
        config_type: Some(ConfigType::TypedConfig(any::Any {
            type_url: "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua".into(),
            value: vec![],
        })),
        ..Default::default()
    };
    for (optional, refused) in [(false, true), (true, false)] {
        let mut manager = http_manager();
        manager.http_filters.insert(0, unknown(optional));
        let resource = set(ResourceType::Listener, "l", "1", any::pack_bytes(&listener_of("l", &manager)));
        let (snapshot, rejected) = Snapshot::build(None, [resource]);
        assert_eq!(snapshot.listener("l").is_none(), refused);
        let expected = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";
        assert_eq!(rejected.first().map(|r| r.error.field.as_str()), refused.then_some(expected));
    }
    // Known but broken: optional or not.
    let mut manager = http_manager();
    manager.http_filters[0].is_optional = true;
    if let Some(ConfigType::TypedConfig(any)) = &mut manager.http_filters[0].config_type {
        any.value = vec![0xff; 3];
    }
    let resource = set(ResourceType::Listener, "l", "1", any::pack_bytes(&listener_of("l", &manager)));
    assert_eq!(Snapshot::build(None, [resource]).1.len(), 1);
}

const KINDS: [ResourceType; 6] = [
    ResourceType::Listener,
    ResourceType::RouteConfiguration,
    ResourceType::Cluster,
    ResourceType::ClusterLoadAssignment,
    ResourceType::NameTable,
    ResourceType::Secret,
];

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(kind in 0usize..6, value in proptest::collection::vec(any::<u8>(), 0..200), wrapped in any::<bool>()) {
        use prost::Message;
        let kind = KINDS[kind];
        let any = fairlead_proto::any::Any { type_url: kind.url().into(), value: value.clone() };
        let body = if wrapped { any.encode_to_vec() } else { value };
        let _ = Snapshot::build(None, [set(kind, "", "1", body.into())]);
    }

    /// Near misses reach further than noise: a good resource with some bytes changed, removed or doubled.
    #[test]
    fn mutated_resources_never_panic(
        which in 0usize..4,
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let Some(Change::Set(mut resource)) = everything("1").into_iter().nth(which) else { return Ok(()) };
        let mut body = resource.body.to_vec();
        for (at, byte, how) in edits {
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => drop(body.remove(at)),
            }
            if body.is_empty() {
                break;
            }
        }
        resource.body = body.into();
        let _ = Snapshot::build(None, [Change::Set(resource)]);
    }
}
