//! Redirects, answers, rewrites and faults in Envoy's form.
//!
//! Source: Istio HTTPRedirect, HTTPDirectResponse, HTTPRewrite, HTTPFaultInjection; Envoy's route and fault filter.

use super::input::{HostInput, RouteEntry, RouteTarget};
use crate::wire::{duration, regex};
use fairlead_model::route::{AbortWith, DirectAnswer, Fault, Redirect, RedirectPort, UriRewrite};
use fairlead_proto::any::{Any, pack};
use fairlead_proto::envoy::all::envoy::extensions::filters::common::fault::v3 as delay;
use fairlead_proto::envoy::http::fault;
use fairlead_proto::envoy::route::{self, RouteAction, redirect_action, route::Action};
use fairlead_proto::envoy::{core, matcher, types};

/// The HTTP filter that draws faults, and the key of a route's own under `typed_per_filter_config`.
pub const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// `request_port` is the port that [`RedirectPort::Request`] means.
pub fn redirect(to: &Redirect, request_port: u16) -> Action {
    use redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    Action::Redirect(route::RedirectAction {
        host_redirect: to.authority.clone().unwrap_or_default(),
        port_redirect: redirect_port(to, request_port),
        response_code: match to.status {
            302 => RedirectResponseCode::Found,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::MovedPermanently,
        } as i32,
        scheme_rewrite_specifier: to.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: to.uri.clone().map(PathRewriteSpecifier::PathRedirect),
        ..Default::default()
    })
}

/// 0 for none: a port that is its scheme's default is not written (Istio).
fn redirect_port(to: &Redirect, request_port: u16) -> u32 {
    let port = match to.port {
        RedirectPort::Protocol => return 0,
        RedirectPort::Request => request_port,
        RedirectPort::Number(port) => port,
    };
    match (to.scheme.as_deref().unwrap_or("http"), port) {
        ("http", 80) | ("https", 443) => 0,
        _ => port.into(),
    }
}

/// Envoy takes no larger body unless the route configuration says so; 0: nothing needs saying.
pub fn largest_body(hosts: &[HostInput]) -> u32 {
    const ENVOYS_OWN: usize = 4096;
    let bodies = hosts.iter().flat_map(|host| &host.rules).filter_map(|rule| match &rule.target {
        RouteTarget::Respond(with) => Some(with.body.len()),
        _ => None,
    });
    bodies.max().filter(|size| *size > ENVOYS_OWN).and_then(|size| u32::try_from(size).ok()).unwrap_or(0)
}

pub fn respond(with: &DirectAnswer) -> Action {
    let specifier = match String::from_utf8(with.body.clone()) {
        Ok(text) => core::data_source::Specifier::InlineString(text),
        Err(bytes) => core::data_source::Specifier::InlineBytes(bytes.into_bytes()),
    };
    let body = core::DataSource { specifier: Some(specifier), ..Default::default() };
    Action::DirectResponse(route::DirectResponseAction {
        status: with.status.into(),
        body: (!with.body.is_empty()).then_some(body),
        ..Default::default()
    })
}

/// Envoy replaces what the match took: a prefix, or the whole path of an exact or regular-expression match.
pub fn rewrite(entry: &RouteEntry, action: &mut RouteAction) {
    match entry.rewrite.as_ref().and_then(|r| r.uri.as_ref()) {
        None => {}
        Some(UriRewrite::Prefix(by)) => action.prefix_rewrite = by.clone(),
        Some(UriRewrite::Regex { matches, with }) => {
            action.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
                pattern: Some(regex(matches.clone())),
                substitution: with.clone(),
            });
        }
    }
}

/// The filter's own configuration: nothing but what a route asks for.
pub fn no_fault() -> Any {
    pack(&fault::HttpFault::default())
}

pub fn fault(of: &Fault) -> Any {
    let share = |per_million: u32| {
        Some(types::FractionalPercent {
            numerator: per_million,
            denominator: types::fractional_percent::DenominatorType::Million as i32,
        })
    };
    pack(&fault::HttpFault {
        delay: of.delay.as_ref().map(|d| delay::FaultDelay {
            percentage: share(d.per_million),
            fault_delay_secifier: duration(d.for_time).map(delay::fault_delay::FaultDelaySecifier::FixedDelay),
        }),
        abort: of.abort.as_ref().map(|a| fault::FaultAbort {
            percentage: share(a.per_million),
            error_type: Some(match a.with {
                AbortWith::Http(status) => fault::fault_abort::ErrorType::HttpStatus(status.into()),
                AbortWith::Grpc(status) => fault::fault_abort::ErrorType::GrpcStatus(status),
            }),
            ..Default::default()
        }),
        ..Default::default()
    })
}
