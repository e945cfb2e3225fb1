//! The generator of route configurations: a function of [`RoutesInput`] alone.

use super::action::{self, FAULT_FILTER};
use super::headers::{authority, edits};
use super::input::{Fallback, HostInput, Retries, RouteEntry, RouteTarget, RoutesInput, To};
use super::matching::route_match;
use super::retries;
use crate::metadata::{self, fields, yes};
use crate::names::ResourceName;
use crate::wire::{bool_value, duration, u32_value};
use fairlead_model::ClientKind;
use fairlead_model::route::HeaderOperations;
use fairlead_proto::envoy::route::{
    self, Route, RouteAction, RouteConfiguration, VirtualHost,
    route::Action,
    route_action::{ClusterSpecifier, HostRewriteSpecifier},
    weighted_cluster::{ClusterWeight, cluster_weight},
};
use fairlead_proto::envoy::{core, protobuf};
use std::time::Duration;

pub fn route_configuration(input: &RoutesInput) -> RouteConfiguration {
    let mut virtual_hosts: Vec<VirtualHost> = input.hosts.iter().map(|host| virtual_host(input, host)).collect();
    virtual_hosts.extend(fallback(input.fallback));
    RouteConfiguration {
        name: input.name.to_string(),
        virtual_hosts,
        // A rule may name a destination that is not there yet; its requests get 503, the others are none the worse.
        validate_clusters: bool_value(false),
        max_direct_response_body_size_bytes: match action::largest_body(&input.hosts) {
            0 => None,
            size => u32_value(size),
        },
        ..Default::default()
    }
}

fn virtual_host(input: &RoutesInput, host: &HostInput) -> VirtualHost {
    let routes =
        if host.to_https { vec![to_https()] } else { host.rules.iter().map(|rule| entry(input, rule)).collect() };
    VirtualHost { name: host.name.clone(), domains: host.domains.clone(), routes, ..Default::default() }
}

/// Gateway `tls.httpsRedirect`: 301 to the same address under https, as an answer that every client kind can give.
fn to_https() -> Route {
    let location = core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: "location".to_owned(),
            value: "https://%REQ(:AUTHORITY)%%REQ(:PATH)%".to_owned(),
            ..Default::default()
        }),
        append_action: core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..Default::default()
    };
    Route {
        name: "https-redirect".to_owned(),
        r#match: Some(route_match(&Default::default())),
        response_headers_to_add: vec![location],
        action: Some(answer(301)),
        ..Default::default()
    }
}

fn fallback(fallback: Fallback) -> Option<VirtualHost> {
    let (name, action) = match fallback {
        Fallback::None => return None,
        Fallback::AllowAny => ("allow_any", to_cluster(ResourceName::Passthrough.to_string())),
        Fallback::BlockAll => ("block_all", answer(502)),
        Fallback::NotFound => ("not_found", answer(404)),
    };
    let everything = Route {
        name: name.to_owned(),
        r#match: Some(route_match(&Default::default())),
        action: Some(action),
        ..Default::default()
    };
    Some(VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![everything],
        ..Default::default()
    })
}

fn to_cluster(name: String) -> Action {
    Action::Route(RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(name)),
        timeout: duration(Duration::ZERO),
        max_stream_duration: grpc_timeout(duration(Duration::ZERO)),
        ..Default::default()
    })
}

/// What caps a request's `grpc-timeout`; 0 lets it hold as it is.
pub fn grpc_timeout(cap: Option<protobuf::Duration>) -> Option<route::route_action::MaxStreamDuration> {
    Some(route::route_action::MaxStreamDuration { grpc_timeout_header_max: cap, ..Default::default() })
}

fn answer(status: u32) -> Action {
    Action::DirectResponse(route::DirectResponseAction { status, ..Default::default() })
}

fn entry(input: &RoutesInput, rule: &RouteEntry) -> Route {
    let mut route = Route {
        name: rule.name.clone(),
        r#match: Some(route_match(&rule.when)),
        metadata: if input.client == ClientKind::Fairlead { origin(rule) } else { None },
        ..Default::default()
    };
    if let Some(fault) = &rule.fault {
        route.typed_per_filter_config.insert(FAULT_FILTER.to_owned(), action::fault(fault));
    }
    match &rule.target {
        RouteTarget::Refused => route.action = Some(answer(500)),
        RouteTarget::Redirect { to, port } => {
            edit(&mut route, &rule.headers);
            route.action = Some(action::redirect(to, *port));
        }
        RouteTarget::Respond(with) => {
            edit(&mut route, &rule.headers);
            route.action = Some(action::respond(with));
        }
        RouteTarget::Clusters { to, .. } => {
            edit(&mut route, &rule.headers);
            // The rule's timeout caps `grpc-timeout`; 0 lets the header hold as it is (Istio).
            let timeout = duration(rule.timeout.unwrap_or(Duration::ZERO));
            let mut action = RouteAction {
                timeout,
                max_stream_duration: grpc_timeout(timeout),
                retry_policy: retries::envoy(&rule.retries),
                ..Default::default()
            };
            action::rewrite(rule, &mut action);
            let written = rule.rewrite.as_ref().and_then(|r| r.authority.as_deref());
            let mut rewritten = written.or_else(|| authority(&rule.headers));
            action.cluster_specifier = Some(match to.as_slice() {
                [one] => {
                    // A single destination's operations follow the rule's; the rule's authority wins.
                    edit(&mut route, &one.headers);
                    rewritten = rewritten.or_else(|| authority(&one.headers));
                    ClusterSpecifier::Cluster(one.cluster.to_string())
                }
                several => ClusterSpecifier::WeightedClusters(route::WeightedCluster {
                    clusters: several.iter().map(weighted).collect(),
                    ..Default::default()
                }),
            });
            action.host_rewrite_specifier =
                rewritten.map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_owned()));
            route.action = Some(Action::Route(action));
        }
    }
    route
}

fn edit(route: &mut Route, headers: &HeaderOperations) {
    let (request, response) = (edits(&headers.request), edits(&headers.response));
    route.request_headers_to_add.extend(request.add);
    route.request_headers_to_remove.extend(request.remove);
    route.response_headers_to_add.extend(response.add);
    route.response_headers_to_remove.extend(response.remove);
}

fn weighted(to: &To) -> ClusterWeight {
    let (request, response) = (edits(&to.headers.request), edits(&to.headers.response));
    ClusterWeight {
        name: to.cluster.to_string(),
        weight: u32_value(to.weight),
        request_headers_to_add: request.add,
        request_headers_to_remove: request.remove,
        response_headers_to_add: response.add,
        response_headers_to_remove: response.remove,
        host_rewrite_specifier: authority(&to.headers)
            .map(|host| cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.to_owned())),
        ..Default::default()
    }
}

fn origin(rule: &RouteEntry) -> Option<core::Metadata> {
    let mut ours = fields([]);
    if let Some(origin) = &rule.origin {
        ours.fields.insert("origin".to_owned(), metadata::origin(origin));
    }
    if rule.retries == Retries::Safe && matches!(rule.target, RouteTarget::Clusters { .. }) {
        ours.fields.insert("default_retry".to_owned(), yes());
    }
    if matches!(&rule.target, RouteTarget::Clusters { siblings: true, .. }) {
        ours.fields.insert("sibling_failover".to_owned(), yes());
    }
    metadata::metadata([(metadata::FAIRLEAD, ours)])
}
