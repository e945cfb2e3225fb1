//! Retry decisions against tables.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::decide::{self, RouteOutcome};
use fairlead_engine::retry::{self, Attempt, Decision, Failure, RetryKind, Stop};
use fairlead_engine::route::RoutePlan;
use fairlead_engine::{Change, RequestHead, Resource, Snapshot};
use fairlead_proto::envoy::protobuf::{Struct, UInt32Value, Value, value::Kind};
use fairlead_proto::envoy::route::{self, header_matcher::HeaderMatchSpecifier, route_action::ClusterSpecifier};
use fairlead_proto::envoy::{core, matcher};
use fairlead_proto::{ResourceType, any};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    why: String,
    #[serde(default)]
    on: Option<String>,
    #[serde(default)]
    codes: Vec<u32>,
    #[serde(default)]
    methods: Vec<String>,
    header: Option<String>,
    method: Option<String>,
    failure: serde_json::Value,
    #[serde(default)]
    response: BTreeMap<String, String>,
    #[serde(default)]
    not_delivered: bool,
    #[serde(default = "yes")]
    sent: bool,
    #[serde(default = "yes")]
    replayable: bool,
    #[serde(default)]
    overflow: bool,
    number: Option<u32>,
    retried: Option<bool>,
    stops: Option<String>,
}

fn yes() -> bool {
    true
}

fn plan(policy: route::RetryPolicy, default_retry: bool) -> Arc<RoutePlan> {
    let flag = Value { kind: Some(Kind::BoolValue(default_retry)) };
    let fairlead = Struct { fields: [("default_retry".to_owned(), flag)].into() };
    let route = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        metadata: Some(core::Metadata {
            filter_metadata: [("fairlead".to_owned(), fairlead)].into(),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster("c".into())),
            retry_policy: Some(policy),
            ..Default::default()
        })),
        ..Default::default()
    };
    let host = route::VirtualHost { domains: vec!["*".into()], routes: vec![route], ..Default::default() };
    let config = route::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
    let resource = Resource::new(ResourceType::RouteConfiguration, "r", "1", any::pack_bytes(&config));
    let (snapshot, rejected) = Snapshot::build(None, [Change::Set(resource)]);
    assert_eq!(rejected, []);
    let config = snapshot.route_config("r").unwrap();
    assert_eq!(config.errors, []);
    let headers = HeaderMap::new();
    let head = RequestHead { method: "GET", path: "/", authority: "a", scheme: "http", headers: &headers };
    match decide::route(config, &head) {
        RouteOutcome::Plan(plan) => plan.clone(),
        other => panic!("{other:?}"),
    }
}

fn check(case: &Case, plan: &RoutePlan) {
    let none = HeaderMap::new();
    let method = case.method.as_deref().unwrap_or("GET");
    let head = RequestHead { method, path: "/", authority: "a", scheme: "http", headers: &none };
    let response: HeaderMap = case
        .response
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    let respond = |status, grpc_status| Failure::Response {
        status,
        grpc_status,
        headers: &response,
        not_delivered: case.not_delivered,
    };
    let failure = match &case.failure {
        serde_json::Value::Number(status) => respond(status.as_u64().unwrap() as u16, None),
        serde_json::Value::String(word) => match word.as_str() {
            "connect" => Failure::Kind(RetryKind::ConnectFailure),
            "refused" => Failure::Kind(RetryKind::RefusedStream),
            "reset" => Failure::Kind(RetryKind::ResetBeforeHead),
            "pathDead" => Failure::Kind(RetryKind::PathDead),
            "perTry" => Failure::Kind(RetryKind::PerTryTimeout),
            "afterHead" => Failure::Kind(RetryKind::ResetAfterHead),
            other => respond(200, Some(other.strip_prefix("grpc-").unwrap().parse().unwrap())),
        },
        other => panic!("{other}"),
    };
    let attempt = Attempt {
        number: case.number.unwrap_or(1),
        failure,
        head: &head,
        request_sent: case.sent,
        replayable: case.replayable,
        retries_overflow: case.overflow,
    };
    let got = match retry::decide(plan, &attempt, 12_345_678_901) {
        Decision::Retry { back_off } => {
            assert!(back_off < plan.retry.as_ref().unwrap().back_off_max);
            "retried"
        }
        Decision::Stop(Stop::NotRetriable) => "not",
        Decision::Stop(Stop::LimitExceeded) => "limitExceeded",
        Decision::Stop(Stop::BodyGone) => "bodyGone",
        Decision::Stop(Stop::Overflow) => "overflow",
    };
    let want = match (case.retried, case.stops.as_deref()) {
        (Some(true), _) => "retried",
        (Some(false), _) => "not",
        (None, stops) => stops.unwrap(),
    };
    assert_eq!(got, want, "{}", case.why);
}

fn exact(name: &str, value: &str) -> route::HeaderMatcher {
    let pattern = matcher::string_matcher::MatchPattern::Exact(value.into());
    route::HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher::StringMatcher {
            match_pattern: Some(pattern),
            ..Default::default()
        })),
        ..Default::default()
    }
}

#[test]
fn explicit() {
    for case in support::cases::<Case>("retry/explicit.yaml") {
        let policy = route::RetryPolicy {
            retry_on: case.on.clone().unwrap(),
            num_retries: Some(UInt32Value { value: 2 }),
            retriable_status_codes: case.codes.clone(),
            retriable_request_headers: case.methods.iter().map(|method| exact(":method", method)).collect(),
            retriable_headers: case
                .header
                .iter()
                .map(|name| route::HeaderMatcher { name: name.clone(), ..Default::default() })
                .collect(),
            ..Default::default()
        };
        check(&case, &plan(policy, false));
    }
}

#[test]
fn by_default() {
    let policy = route::RetryPolicy {
        retry_on: "connect-failure,refused-stream,reset".into(),
        num_retries: Some(UInt32Value { value: 3 }),
        retriable_request_headers: ["GET", "HEAD", "OPTIONS"].map(|method| exact(":method", method)).into(),
        ..Default::default()
    };
    let plan = plan(policy, true);
    for case in support::cases::<Case>("retry/default.yaml") {
        check(&case, &plan);
    }
}

#[test]
fn back_off_grows_and_jitters() {
    let plan = plan(route::RetryPolicy { retry_on: "5xx".into(), ..Default::default() }, false);
    let policy = plan.retry.as_deref().unwrap();
    assert_eq!((policy.num_retries, policy.back_off_max), (1, Duration::from_millis(250)));
    let mut seed = 1;
    for (number, bound) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250)] {
        let longest = (0..2000).map(|_| retry::back_off(policy, number, support::random(&mut seed))).max().unwrap();
        let bound = Duration::from_millis(bound);
        assert!(longest < bound && longest > bound * 9 / 10, "{number}: {longest:?}");
    }
}
