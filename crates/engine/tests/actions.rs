//! Redirects, rewrites and faults of routes against a table.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::decide::{self, RouteOutcome};
use fairlead_engine::{Change, RequestHead, Resource, Snapshot};
use fairlead_proto::envoy::http::fault::{FaultAbort, HttpFault, fault_abort::ErrorType};
use fairlead_proto::envoy::matcher::{RegexMatchAndSubstitute, RegexMatcher};
use fairlead_proto::envoy::route::{
    self, redirect_action as redirect, route_action::ClusterSpecifier, route_match::PathSpecifier,
};
use fairlead_proto::envoy::types::{FractionalPercent, fractional_percent::DenominatorType};
use fairlead_proto::{ResourceType, any};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    why: String,
    prefix: Option<String>,
    path: Option<String>,
    regex: Option<String>,
    redirect: Option<Redirect>,
    rewrite: Option<Rewrite>,
    fault: Option<Fault>,
    #[serde(default)]
    draw: u32,
    request: String,
    gets: Value,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Redirect {
    https: bool,
    host: String,
    port: u32,
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rewrite {
    prefix: Option<String>,
    regex: Option<String>,
    with: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    status: Option<u32>,
    grpc: Option<u32>,
    share: u32,
}

fn route_of(case: &Case) -> route::Route {
    let regex = |regex: &String| RegexMatcher { regex: regex.clone(), ..Default::default() };
    let path = (case.path.clone().map(PathSpecifier::Path))
        .or(case.regex.as_ref().map(|text| PathSpecifier::SafeRegex(regex(text))))
        .unwrap_or_else(|| PathSpecifier::Prefix(case.prefix.clone().unwrap_or("/".into())));
    let action = match &case.redirect {
        Some(to) => route::route::Action::Redirect(route::RedirectAction {
            host_redirect: to.host.clone(),
            port_redirect: to.port,
            scheme_rewrite_specifier: to.https.then_some(redirect::SchemeRewriteSpecifier::HttpsRedirect(true)),
            path_rewrite_specifier: to.path.clone().map(redirect::PathRewriteSpecifier::PathRedirect),
            ..Default::default()
        }),
        None => route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster("c".into())),
            prefix_rewrite: case.rewrite.as_ref().and_then(|r| r.prefix.clone()).unwrap_or_default(),
            regex_rewrite: case.rewrite.as_ref().and_then(|r| {
                let pattern = Some(regex(r.regex.as_ref()?));
                Some(RegexMatchAndSubstitute { pattern, substitution: r.with.clone().unwrap_or_default() })
            }),
            ..Default::default()
        }),
    };
    let fault = case.fault.as_ref().map(|fault| {
        let error = fault.status.map(ErrorType::HttpStatus).or(fault.grpc.map(ErrorType::GrpcStatus));
        let percentage = FractionalPercent { numerator: fault.share, denominator: DenominatorType::Million as i32 };
        let abort = FaultAbort { percentage: Some(percentage), error_type: error, ..Default::default() };
        any::pack(&HttpFault { abort: Some(abort), ..Default::default() })
    });
    route::Route {
        r#match: Some(route::RouteMatch { path_specifier: Some(path), ..Default::default() }),
        action: Some(action),
        typed_per_filter_config: fault.into_iter().map(|any| ("envoy.filters.http.fault".to_owned(), any)).collect(),
        ..Default::default()
    }
}

#[test]
fn actions() {
    for case in support::cases::<Case>("routes/actions.yaml") {
        let host =
            route::VirtualHost { domains: vec!["*".into()], routes: vec![route_of(&case)], ..Default::default() };
        let config = route::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
        let resource = Resource::new(ResourceType::RouteConfiguration, "r", "1", any::pack_bytes(&config));
        let (snapshot, rejected) = Snapshot::build(None, [Change::Set(resource)]);
        assert_eq!(rejected, [], "{}", case.why);
        let config = snapshot.route_config("r").unwrap();
        assert_eq!(config.errors, [], "{}", case.why);
        let rest = case.request.strip_prefix("GET http://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let headers = HeaderMap::new();
        let head = RequestHead { method: "GET", path, authority, scheme: "http", headers: &headers };
        let outcome = decide::route(config, &head);
        let got = match (outcome, outcome.fault()) {
            (_, Some(fault)) => Value::from(fault.draw(0, case.draw).abort.map(|abort| abort.status)),
            (RouteOutcome::Redirect(redirect), _) => Value::from(redirect.location(&head)),
            (RouteOutcome::Plan(plan), _) => Value::from(plan.path_rewrite.as_ref().map(|rewrite| rewrite.apply(path))),
            _ => panic!("{}: no route", case.why),
        };
        assert_eq!(got, case.gets, "{}", case.why);
    }
}
