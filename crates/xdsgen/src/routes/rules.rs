//! Rules of a VirtualService as route entries for one caller.
//!
//! Source: Istio: static filters (port, gateways, source labels and namespace) are settled here; if a match names gateways,
//! its source filters are not looked at; generation stops at the first rule that takes everything.

use super::input::{RouteEntry, RouteTarget, To};
use super::retries;
use crate::names::ResourceName;
use crate::scope::Scope;
use fairlead_model::matching::{StringMatch, selects};
use fairlead_model::route::{Backend, GatewayRef, HeaderOperations, HttpAction, HttpMatch, RouteSet};
use fairlead_model::settings::Profile;
use fairlead_model::{ClientKind, Origin, Service};

/// For whom and where rules are read.
pub struct Context<'s, 'a> {
    pub scope: &'s Scope<'a>,
    /// The port the request came to, as rules name it.
    pub port: u16,
    /// `None`: a sidecar.
    pub gateway: Option<GatewayRef>,
}

/// The entries of a route set that can apply here, in order.
pub fn entries(context: &Context<'_, '_>, set: &RouteSet) -> Vec<RouteEntry> {
    let any = HttpMatch::default();
    let mut entries = Vec::new();
    for rule in &set.http {
        let matches: Vec<&HttpMatch> = if rule.matches.is_empty() { vec![&any] } else { rule.matches.iter().collect() };
        for wanted in matches {
            if !applies(context, set, wanted) {
                continue;
            }
            let target = match &rule.action {
                HttpAction::Refused { .. } => RouteTarget::Refused,
                HttpAction::Redirect(to) => RouteTarget::Redirect { to: to.clone(), port: context.port },
                HttpAction::Respond(with) => RouteTarget::Respond(with.clone()),
                HttpAction::Route(backends) => match target(context, backends) {
                    Some(target) => target,
                    None => RouteTarget::Refused,
                },
            };
            let entry = RouteEntry {
                name: name(&rule.name, &wanted.name),
                when: without_static(wanted),
                target,
                timeout: rule.timeout,
                retries: retries::of(context.scope, rule.retries.as_ref()),
                headers: rule.headers.clone(),
                rewrite: rule.rewrite.clone(),
                fault: rule.fault.clone(),
                origin: Some(rule.origin.clone()),
            };
            let last = takes_everything(&entry.when);
            entries.push(entry);
            if last {
                return entries;
            }
        }
    }
    entries
}

/// Everything to the service itself.
pub fn service_entry(scope: &Scope<'_>, service: &Service, to: ResourceName) -> RouteEntry {
    RouteEntry {
        name: "default".to_owned(),
        when: HttpMatch::default(),
        target: RouteTarget::Clusters {
            to: vec![To { cluster: to, weight: 1, headers: HeaderOperations::default() }],
            siblings: false,
        },
        timeout: None,
        retries: retries::of(scope, None),
        headers: HeaderOperations::default(),
        rewrite: None,
        fault: None,
        origin: service.origins.first().map(object_of),
    }
}

/// The Envoy cluster of a backend: its port, else the service's only one, else the listener's.
pub fn backend(scope: &Scope<'_>, backend: &Backend, listener_port: u16) -> ResourceName {
    let only = || match scope.services.get(backend.host.as_str())?.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    };
    let port = backend.port.or_else(only).unwrap_or(listener_port);
    ResourceName::outbound(port, backend.subset.as_deref(), &backend.host)
}

/// Whether no request can pass this match by.
pub fn takes_everything(when: &HttpMatch) -> bool {
    let any_path = match &when.uri {
        None | Some(StringMatch::Present) => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/" || prefix.is_empty(),
        Some(StringMatch::Regex(regex)) => regex == ".*" || regex == "*",
        Some(_) => false,
    };
    any_path
        && when.scheme.is_none()
        && when.method.is_none()
        && when.authority.is_none()
        && when.headers.is_empty()
        && when.without_headers.is_empty()
        && when.query.is_empty()
}

fn applies(context: &Context<'_, '_>, set: &RouteSet, wanted: &HttpMatch) -> bool {
    let here = |gateways: &[GatewayRef]| match &context.gateway {
        None => gateways.contains(&GatewayRef::Mesh),
        Some(gateway) => gateways.contains(gateway),
    };
    if wanted.port.is_some_and(|port| port != context.port) {
        return false;
    }
    if !wanted.gateways.is_empty() {
        return here(&wanted.gateways);
    }
    let scope = context.scope;
    here(&set.gateways)
        && selects(&wanted.source_labels, &scope.labels)
        && wanted.source_namespace.as_ref().is_none_or(|n| n == scope.namespace())
}

fn target(context: &Context<'_, '_>, backends: &[Backend]) -> Option<RouteTarget> {
    let to: Vec<To> = backends
        .iter()
        .filter(|b| b.weight > 0 || backends.len() == 1)
        .map(|b| To {
            cluster: backend(context.scope, b, context.port),
            weight: b.weight.max(1),
            headers: b.headers.clone(),
        })
        .collect();
    let siblings = help_each_other(context.scope, backends);
    let to = if siblings && context.scope.proxy.client != ClientKind::Fairlead {
        let names: Vec<ResourceName> = to.iter().map(|to| to.cluster.clone()).collect();
        aggregated(&names).into_iter().zip(to).map(|(cluster, to)| To { cluster, ..to }).collect()
    } else {
        to
    };
    (!to.is_empty()).then_some(RouteTarget::Clusters { to, siblings })
}

/// Whether the share of a subset that is wholly down goes to others of its host (profile fairlead).
pub fn help_each_other(scope: &Scope<'_>, backends: &[Backend]) -> bool {
    let again = |(index, b): (usize, &Backend)| backends.iter().skip(index + 1).any(|other| other.host == b.host);
    scope.mesh.settings.profile == Profile::Fairlead && backends.iter().enumerate().any(again)
}

/// For stock Envoy: each destination with its siblings of the same host and port behind it.
pub fn aggregated(to: &[ResourceName]) -> Vec<ResourceName> {
    let part = |to: &ResourceName| match to {
        ResourceName::Outbound { port, subset, host } => {
            Some((*port, subset.clone().unwrap_or_default(), host.clone()))
        }
        _ => None,
    };
    let parts: Vec<_> = to.iter().map(part).collect();
    let with_siblings = |(one, own): (&ResourceName, &Option<(u16, String, String)>)| {
        let Some((port, subset, host)) = own else { return one.clone() };
        let others = parts.iter().flatten().filter(|(p, s, h)| (p, h) == (port, host) && s != subset);
        let subsets: Vec<String> = std::iter::once(subset).chain(others.map(|(_, s, _)| s)).cloned().collect();
        match subsets.len() {
            1 => one.clone(),
            _ => ResourceName::Siblings { port: *port, subsets, host: host.clone() },
        }
    };
    to.iter().zip(&parts).map(with_siblings).collect()
}

fn name(rule: &str, wanted: &str) -> String {
    match (rule, wanted) {
        ("", "") => "default".to_owned(),
        (rule, "") => rule.to_owned(),
        // Istio logs `route.match`.
        (rule, wanted) => format!("{rule}.{wanted}"),
    }
}

fn without_static(wanted: &HttpMatch) -> HttpMatch {
    HttpMatch {
        name: String::new(),
        port: None,
        source_labels: Default::default(),
        source_namespace: None,
        gateways: Vec::new(),
        ..wanted.clone()
    }
}

/// A service decides as a whole; where it stands in its file is of no interest to a request.
fn object_of(origin: &Origin) -> Origin {
    Origin { object: origin.object.clone(), path: String::new(), file: origin.file.clone(), line: origin.line }
}
