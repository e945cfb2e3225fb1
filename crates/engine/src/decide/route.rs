//! Which route takes a request.

use crate::request::RequestHead;
use crate::route::{DirectResponse, Fault, Redirect, Route, RouteAction, RouteConfig, RoutePlan, VirtualHost};
use std::sync::Arc;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub enum RouteOutcome<'a> {
    /// Forward it.
    Plan(&'a Arc<RoutePlan>),
    /// Answer it.
    Direct(&'a Arc<DirectResponse>),
    /// Answer it with another address.
    Redirect(&'a Arc<Redirect>),
    /// No virtual host, or no route in it: 404, response flag `NR`.
    NotFound,
}

impl<'a> RouteOutcome<'a> {
    /// What the fault filter does before anything else happens on the route.
    pub fn fault(&self) -> Option<&'a Fault> {
        match self {
            Self::Plan(plan) => plan.fault.as_deref(),
            Self::Direct(direct) => direct.fault.as_deref(),
            Self::Redirect(redirect) => redirect.fault.as_deref(),
            Self::NotFound => None,
        }
    }
}

/// The outcome for a request whose path was normalised: virtual host by authority, then the first route that matches.
pub fn route<'a>(config: &'a RouteConfig, head: &RequestHead<'_>) -> RouteOutcome<'a> {
    match matched(config, head) {
        Some((_, route)) => match &route.action {
            RouteAction::Forward(plan) => RouteOutcome::Plan(plan),
            RouteAction::Direct(direct) => RouteOutcome::Direct(direct),
            RouteAction::Redirect(redirect) => RouteOutcome::Redirect(redirect),
        },
        None => RouteOutcome::NotFound,
    }
}

/// Virtual host and route of a request, for explaining.
pub(crate) fn matched<'a>(config: &'a RouteConfig, head: &RequestHead<'_>) -> Option<(&'a VirtualHost, &'a Route)> {
    let host = config.virtual_host(head.authority)?;
    let path = config.path_for_matching(head.path);
    let route = host.routes.iter().find(|route| route.matching.is_match(head, path))?;
    Some((host, route))
}

/// Every route of the virtual host a request falls to, in order, and whether it matches: for telling why (`explain`).
pub fn candidates<'a>(config: &'a RouteConfig, head: &RequestHead<'_>) -> Vec<(&'a Route, bool)> {
    let Some(host) = config.virtual_host(head.authority) else { return Vec::new() };
    let path = config.path_for_matching(head.path);
    host.routes.iter().map(|route| (route, route.matching.is_match(head, path))).collect()
}
