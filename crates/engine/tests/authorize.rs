//! Authorisation against a table.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]
#![allow(deprecated)]

mod support;

use fairlead_engine::decide::{self, Denied};
use fairlead_engine::listener::NetworkFilter;
use fairlead_engine::rbac::RbacFilter;
use fairlead_engine::{Change, ConnectionInfo, RequestHead, RequestInfo, Resource, Snapshot};
use fairlead_proto::envoy::rbac::{self, permission::Rule, principal::Identifier};
use fairlead_proto::envoy::route::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use fairlead_proto::envoy::{core, listener, matcher, network, protobuf, types};
use fairlead_proto::{ResourceType, any};
use http::HeaderMap;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    policies: BTreeMap<String, BTreeMap<String, PolicyCase>>,
    requests: Vec<Request>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyCase {
    permissions: Vec<Condition>,
    principals: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Condition {
    Any(bool),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Header([String; 2]),
    HeaderIgnoreCase([String; 2]),
    Path(String),
    PathPrefix(String),
    Template(String),
    Port(u32),
    PortRange([i32; 2]),
    Sni(String),
    Principal(String),
    PrincipalPrefix(String),
    DirectRemoteIp(String),
    RemoteIp(String),
    Metadata(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    why: String,
    #[serde(default)]
    request: String,
    #[serde(default)]
    tcp: bool,
    peer: Option<String>,
    from: Option<String>,
    client: Option<String>,
    port: Option<u16>,
    sni: Option<String>,
    authority: Option<String>,
    gets: String,
}

fn text(pattern: matcher::string_matcher::MatchPattern, ignore_case: bool) -> matcher::StringMatcher {
    matcher::StringMatcher { ignore_case, match_pattern: Some(pattern) }
}

fn exact(value: &str) -> matcher::StringMatcher {
    text(matcher::string_matcher::MatchPattern::Exact(value.into()), false)
}

fn prefix(value: &str) -> matcher::StringMatcher {
    text(matcher::string_matcher::MatchPattern::Prefix(value.into()), false)
}

fn header([name, value]: &[String; 2], ignore_case: bool) -> HeaderMatcher {
    let pattern = text(matcher::string_matcher::MatchPattern::Exact(value.clone()), ignore_case);
    HeaderMatcher {
        name: name.clone(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(pattern)),
        ..Default::default()
    }
}

fn url_path(value: matcher::StringMatcher) -> matcher::PathMatcher {
    matcher::PathMatcher { rule: Some(matcher::path_matcher::Rule::Path(value)) }
}

fn cidr(text: &str) -> core::CidrRange {
    let (address, length) = text.split_once('/').unwrap();
    core::CidrRange {
        address_prefix: address.into(),
        prefix_len: Some(protobuf::UInt32Value { value: length.parse().unwrap() }),
    }
}

fn permission(condition: &Condition) -> rbac::Permission {
    use fairlead_proto::envoy::all::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
    let set = |list: &[Condition]| rbac::permission::Set { rules: list.iter().map(permission).collect() };
    let rule = match condition {
        Condition::Any(any) => Rule::Any(*any),
        Condition::And(list) => Rule::AndRules(set(list)),
        Condition::Or(list) => Rule::OrRules(set(list)),
        Condition::Not(inner) => Rule::NotRule(Box::new(permission(inner))),
        Condition::Header(pair) => Rule::Header(header(pair, false)),
        Condition::HeaderIgnoreCase(pair) => Rule::Header(header(pair, true)),
        Condition::Path(value) => Rule::UrlPath(url_path(exact(value))),
        Condition::PathPrefix(value) => Rule::UrlPath(url_path(prefix(value))),
        Condition::Template(template) => Rule::UriTemplate(core::TypedExtensionConfig {
            name: "uri_template".into(),
            typed_config: Some(any::pack(&UriTemplateMatchConfig { path_template: template.clone() })),
        }),
        Condition::Port(port) => Rule::DestinationPort(*port),
        Condition::PortRange([start, end]) => {
            Rule::DestinationPortRange(types::Int32Range { start: *start, end: *end })
        }
        Condition::Sni(name) => Rule::RequestedServerName(exact(name)),
        _ => panic!("no permission"),
    };
    rbac::Permission { rule: Some(rule) }
}

fn principal(condition: &Condition) -> rbac::Principal {
    let named = |name| Identifier::Authenticated(rbac::principal::Authenticated { principal_name: Some(name) });
    let identifier = match condition {
        Condition::Any(any) => Identifier::Any(*any),
        Condition::Not(inner) => Identifier::NotId(Box::new(principal(inner))),
        Condition::Principal(name) => named(exact(name)),
        Condition::PrincipalPrefix(name) => named(prefix(name)),
        Condition::DirectRemoteIp(range) => Identifier::DirectRemoteIp(cidr(range)),
        Condition::RemoteIp(range) => Identifier::RemoteIp(cidr(range)),
        Condition::Metadata(key) => Identifier::Metadata(matcher::MetadataMatcher {
            filter: "envoy.filters.http.jwt_authn".into(),
            path: vec![matcher::metadata_matcher::PathSegment {
                segment: Some(matcher::metadata_matcher::path_segment::Segment::Key(key.clone())),
            }],
            value: Some(matcher::ValueMatcher {
                match_pattern: Some(matcher::value_matcher::MatchPattern::PresentMatch(true)),
            }),
            invert: false,
        }),
        _ => panic!("no principal"),
    };
    rbac::Principal { identifier: Some(identifier) }
}

/// Decodes the filters as a proxy would: in a listener.
fn filters(table: &Table) -> Vec<Arc<RbacFilter>> {
    let filters = [("deny", rbac::rbac::Action::Deny), ("allow", rbac::rbac::Action::Allow)].map(|(key, action)| {
        let policies = table.policies[key].iter().map(|(name, case)| {
            let policy = rbac::Policy {
                permissions: case.permissions.iter().map(permission).collect(),
                principals: case.principals.iter().map(principal).collect(),
                ..Default::default()
            };
            (name.clone(), policy)
        });
        let rules = rbac::Rbac { action: action as i32, policies: policies.collect(), ..Default::default() };
        let filter = network::rbac::Rbac { rules: Some(rules), ..Default::default() };
        listener::Filter {
            name: key.into(),
            config_type: Some(listener::filter::ConfigType::TypedConfig(any::pack(&filter))),
        }
    });
    let tcp = network::tcp_proxy::TcpProxy {
        cluster_specifier: Some(network::tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster("c".into())),
        ..Default::default()
    };
    let tcp = listener::Filter {
        name: "tcp".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any::pack(&tcp))),
    };
    let socket = core::SocketAddress {
        address: "0.0.0.0".into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(15006)),
        ..Default::default()
    };
    let listener = listener::Listener {
        name: "l".into(),
        address: Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) }),
        default_filter_chain: Some(listener::FilterChain {
            filters: filters.into_iter().chain([tcp]).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let resource = Resource::new(ResourceType::Listener, "l", "1", any::pack_bytes(&listener));
    let (snapshot, rejected) = Snapshot::build(None, [Change::Set(resource)]);
    assert_eq!(rejected, []);
    let chain = snapshot.listener("l").unwrap().default_chain.clone().unwrap();
    assert!(matches!(chain.terminal(), Some(NetworkFilter::TcpProxy(_))));
    chain.authorization().cloned().collect()
}

#[test]
fn http() {
    let path = format!("{}/tests/cases/authorize/http.yaml", env!("CARGO_MANIFEST_DIR"));
    let table: Table = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let filters = filters(&table);
    assert_eq!(filters.len(), 2);
    let headers = HeaderMap::new();
    for case in &table.requests {
        let (method, path) = case.request.split_once(' ').unwrap_or(("", ""));
        let authority = case.authority.as_deref().unwrap_or("shop");
        let head = RequestHead { method, path, authority, scheme: "http", headers: &headers };
        let from = case.from.as_deref().unwrap_or("192.0.2.9").parse().unwrap();
        let connection = ConnectionInfo {
            tls: case.peer.is_some(),
            peer: case.peer.as_deref(),
            direct_remote: from,
            remote: case.client.as_deref().map_or(from, |client| client.parse().unwrap()),
            local: SocketAddr::new("192.0.2.1".parse().unwrap(), case.port.unwrap_or(80)),
            server_name: case.sni.as_deref(),
        };
        let info = RequestInfo { connection, head: (!case.tcp).then_some(head) };
        let got = match decide::authorize(&filters, &info) {
            Ok(_) => "allowed".to_owned(),
            Err(denied) => denied.policy.as_deref().unwrap_or("none").to_owned(),
        };
        assert_eq!(got, case.gets, "{}", case.why);
    }
}

#[test]
fn a_denial_names_its_policy() {
    let denied = Denied { policy: Some("ns[a]-policy[b-c]-rule[0]".into()), shadow: Vec::new() };
    assert_eq!(denied.authorization_policy(), Some(("a", "b-c")));
    assert_eq!(denied.details(), "rbac_access_denied_matched_policy[ns[a]-policy[b-c]-rule[0]]");
    let denied = Denied { policy: None, shadow: Vec::new() };
    assert_eq!(denied.details(), "rbac_access_denied_matched_policy[none]");
}
