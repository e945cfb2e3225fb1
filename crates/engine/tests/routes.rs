//! Routes and backends against tables.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::decide::{self, RouteOutcome};
use fairlead_engine::{Change, RequestHead, Resource, Snapshot};
use fairlead_proto::envoy::protobuf::{BoolValue, Struct, UInt32Value, Value, value::Kind};
use fairlead_proto::envoy::route::{self, header_matcher::HeaderMatchSpecifier, route_action::ClusterSpecifier};
use fairlead_proto::envoy::route::{query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier};
use fairlead_proto::envoy::{core, matcher};
use fairlead_proto::{ResourceType, any};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    hosts: Vec<Host>,
    requests: Vec<Request>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    name: String,
    domains: Vec<String>,
    routes: Vec<RouteCase>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct RouteCase {
    name: String,
    prefix: Option<String>,
    path: Option<String>,
    regex: Option<String>,
    separated_prefix: Option<String>,
    ignore_case: bool,
    headers: BTreeMap<String, Condition>,
    query: BTreeMap<String, Condition>,
    grpc: bool,
    to: Option<String>,
    status: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Condition {
    exact: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    present: Option<bool>,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    why: String,
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    gets: serde_json::Value,
}

fn string_match(condition: &Condition) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern as P;
    let pattern = (condition.exact.clone().map(P::Exact))
        .or(condition.prefix.clone().map(P::Prefix))
        .or(condition.suffix.clone().map(P::Suffix));
    matcher::StringMatcher { match_pattern: Some(pattern.unwrap()), ignore_case: false }
}

fn route_of(case: &RouteCase) -> route::Route {
    let path = (case.prefix.clone().map(PathSpecifier::Prefix))
        .or(case.path.clone().map(PathSpecifier::Path))
        .or(case.separated_prefix.clone().map(PathSpecifier::PathSeparatedPrefix))
        .or(case
            .regex
            .clone()
            .map(|regex| PathSpecifier::SafeRegex(matcher::RegexMatcher { regex, ..Default::default() })));
    let headers = case.headers.iter().map(|(name, condition)| route::HeaderMatcher {
        name: name.clone(),
        invert_match: condition.invert,
        treat_missing_header_as_empty: condition.missing_is_empty,
        header_match_specifier: Some(match condition.present {
            Some(present) => HeaderMatchSpecifier::PresentMatch(present),
            None => HeaderMatchSpecifier::StringMatch(string_match(condition)),
        }),
    });
    let query = case.query.iter().map(|(name, condition)| route::QueryParameterMatcher {
        name: name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(string_match(condition))),
    });
    let action = match (&case.to, case.status) {
        (Some(to), _) => route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(to.clone())),
            ..Default::default()
        }),
        (None, status) => route::route::Action::DirectResponse(route::DirectResponseAction {
            status: status.unwrap(),
            ..Default::default()
        }),
    };
    route::Route {
        name: case.name.clone(),
        r#match: Some(route::RouteMatch {
            case_sensitive: Some(BoolValue { value: !case.ignore_case }),
            headers: headers.collect(),
            query_parameters: query.collect(),
            grpc: case.grpc.then_some(Default::default()),
            path_specifier: path,
            ..Default::default()
        }),
        action: Some(action),
        ..Default::default()
    }
}

fn snapshot(config: &route::RouteConfiguration) -> Arc<Snapshot> {
    let resource = Resource::new(ResourceType::RouteConfiguration, config.name.as_str(), "1", any::pack_bytes(config));
    let (snapshot, rejected) = Snapshot::build(None, [Change::Set(resource)]);
    assert_eq!(rejected, []);
    snapshot
}

#[test]
fn matching() {
    let path = "routes/matching.yaml";
    let text = std::fs::read_to_string(format!("{}/tests/cases/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let table: Table = serde_saphyr::from_str(&text).unwrap();
    let hosts = table.hosts.iter().map(|host| route::VirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes: host.routes.iter().map(route_of).collect(),
        ..Default::default()
    });
    let config = route::RouteConfiguration { name: "r".into(), virtual_hosts: hosts.collect(), ..Default::default() };
    let snapshot = snapshot(&config);
    let config = snapshot.route_config("r").unwrap();
    assert_eq!(config.errors, []);
    for case in table.requests {
        let (method, url) = case.request.split_once(' ').unwrap();
        let rest = url.strip_prefix("http://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let headers: HeaderMap = case
            .headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let head = RequestHead { method, path, authority, scheme: "http", headers: &headers };
        let got = match decide::route(config, &head) {
            RouteOutcome::Plan(plan) => serde_json::Value::from(&*plan.route_name),
            RouteOutcome::Direct(direct) => serde_json::Value::from(direct.status),
            RouteOutcome::Redirect(redirect) => serde_json::Value::from(redirect.location(&head)),
            RouteOutcome::NotFound => serde_json::Value::from(404),
        };
        assert_eq!(got, case.gets, "{}: {}", case.why, case.request);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backends {
    why: String,
    #[serde(default)]
    siblings: bool,
    backends: BTreeMap<String, u32>,
    #[serde(default)]
    down: Vec<String>,
    shares: Vec<f64>,
}

#[test]
fn backends() {
    for case in support::cases::<Backends>("routes/backends.yaml") {
        let clusters = case.backends.iter().map(|(name, weight)| route::weighted_cluster::ClusterWeight {
            name: name.clone(),
            weight: Some(UInt32Value { value: *weight }),
            ..Default::default()
        });
        let flag = Value { kind: Some(Kind::BoolValue(case.siblings)) };
        let fairlead = Struct { fields: [("sibling_failover".to_owned(), flag)].into() };
        let route = route::Route {
            r#match: Some(route::RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".into())),
                ..Default::default()
            }),
            metadata: Some(core::Metadata {
                filter_metadata: [("fairlead".to_owned(), fairlead)].into(),
                ..Default::default()
            }),
            action: Some(route::route::Action::Route(route::RouteAction {
                cluster_specifier: Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
                    clusters: clusters.collect(),
                    ..Default::default()
                })),
                ..Default::default()
            })),
            ..Default::default()
        };
        let host = route::VirtualHost { domains: vec!["*".into()], routes: vec![route], ..Default::default() };
        let snapshot =
            snapshot(&route::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() });
        let headers = HeaderMap::new();
        let head = RequestHead { method: "GET", path: "/", authority: "a", scheme: "http", headers: &headers };
        let RouteOutcome::Plan(plan) = decide::route(snapshot.route_config("r").unwrap(), &head) else {
            panic!("{}", case.why)
        };
        let up = |backend: &fairlead_engine::route::Backend| !case.down.iter().any(|down| **down == *backend.cluster);
        let shares = decide::backend_shares(plan, up);
        assert!(shares.iter().zip(&case.shares).all(|(a, b)| (a - b).abs() < 1e-9), "{}: {shares:?}", case.why);
        // Choosing follows the shares.
        let mut seed = 7;
        let mut counts = vec![0u32; shares.len()];
        for _ in 0..20_000 {
            let chosen = decide::choose_backend(plan, support::random(&mut seed), up);
            counts[plan.backends.iter().position(|b| std::ptr::eq(b, chosen)).unwrap()] += 1;
        }
        for (count, share) in counts.iter().zip(&shares) {
            assert!((f64::from(*count) / 20_000.0 - share).abs() < 0.015, "{}: {counts:?} for {shares:?}", case.why);
        }
    }
}

#[test]
fn a_broken_action_answers_for_what_it_matches_and_a_broken_match_for_nothing() {
    let good = |name: &str| RouteCase {
        name: name.into(),
        prefix: Some("/".into()),
        to: Some("c".into()),
        ..Default::default()
    };
    let mut broken = route_of(&RouteCase { prefix: Some("/old".into()), ..good("broken") });
    broken.action =
        Some(route::route::Action::Redirect(route::RedirectAction { response_code: 9, ..Default::default() }));
    let unreadable = route_of(&RouteCase { prefix: None, regex: Some("(".into()), ..good("unreadable") });
    let host = route::VirtualHost {
        name: "h".into(),
        domains: vec!["*".into(), "*".into()],
        routes: vec![unreadable, broken, route_of(&good("good"))],
        ..Default::default()
    };
    let other = route::VirtualHost { name: "o".into(), domains: vec!["*".into()], ..Default::default() };
    let config = route::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host, other], ..Default::default() };
    let snapshot = snapshot(&config);
    let config = snapshot.route_config("r").unwrap();
    let fields: Vec<&str> = config.errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "virtual_hosts[0].routes[0].match.safe_regex.regex",
            "virtual_hosts[0].routes[1].redirect.response_code",
            "virtual_hosts[1].domains[0]"
        ]
    );
    let headers = HeaderMap::new();
    let ask = |path| {
        decide::route(config, &RequestHead { method: "GET", path, authority: "a", scheme: "http", headers: &headers })
    };
    assert!(matches!(ask("/old"), RouteOutcome::Direct(direct) if direct.status == 500 && direct.broken.is_some()));
    assert!(matches!(ask("/"), RouteOutcome::Plan(plan) if &*plan.route_name == "good"));
}
