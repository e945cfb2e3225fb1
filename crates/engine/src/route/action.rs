//! From `envoy.config.route.v3.Route` to [`Route`].

use super::plan::istio_name;
use super::{
    Backend, DirectResponse, Fault, HeaderOps, PathRewrite, Redirect, RetryPolicy, Route, RouteAction, RouteMatch,
    RoutePlan,
};
use crate::error::{DecodeError, Decoded};
use crate::wire;
use fairlead_proto::envoy::core::data_source::Specifier;
use fairlead_proto::envoy::route::{self as proto, route_action::ClusterSpecifier, route_action::HostRewriteSpecifier};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// Header operations of the route configuration.
pub(super) struct Inherited {
    pub request: Option<Arc<HeaderOps>>,
    pub response: Option<Arc<HeaderOps>>,
    /// `most_specific_header_mutations_wins`: the most specific is applied last instead of first.
    pub general_first: bool,
    /// `max_direct_response_body_size_bytes`.
    pub direct_body: Option<usize>,
}

/// What routes of a virtual host share.
pub(super) struct Scope<'a> {
    name: Arc<str>,
    request: Option<Arc<HeaderOps>>,
    response: Option<Arc<HeaderOps>>,
    retry: Option<Arc<RetryPolicy>>,
    inherited: &'a Inherited,
}

/// Envoy's default for a route without `timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's default of `max_direct_response_body_size_bytes`.
const MAX_DIRECT_BODY: usize = 4096;
/// More than this is refused whatever the configuration says; Istio's limit.
const MAX_DIRECT_BODY_EVER: usize = 1 << 20;
/// The filter whose configuration a route may have.
const FAULT_FILTER: &str = "envoy.filters.http.fault";

impl<'a> Scope<'a> {
    pub(super) fn of(host: &proto::VirtualHost, inherited: &'a Inherited) -> Decoded<Self> {
        for (present, field) in [
            (host.matcher.is_some(), "matcher"),
            (host.require_tls != 0, "require_tls"),
            (host.cors.is_some(), "cors"),
            (!host.rate_limits.is_empty(), "rate_limits"),
            (!host.request_mirror_policies.is_empty(), "request_mirror_policies"),
            (!host.typed_per_filter_config.is_empty(), "typed_per_filter_config"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        let request =
            HeaderOps::decode(&host.request_headers_to_add, &host.request_headers_to_remove, "request_headers")?;
        let response =
            HeaderOps::decode(&host.response_headers_to_add, &host.response_headers_to_remove, "response_headers")?;
        let retry = host.retry_policy.as_ref().map(RetryPolicy::decode).transpose();
        Ok(Self {
            name: host.name.as_str().into(),
            request: request.map(Arc::new),
            response: response.map(Arc::new),
            retry: retry.map_err(|e| e.inside("retry_policy"))?.map(Arc::new),
            inherited,
        })
    }

    /// Decodes one route. A broken action becomes a 500 and is reported; a broken match is an error.
    pub(super) fn decode(&self, route: &proto::Route, report: &mut dyn FnMut(DecodeError)) -> Decoded<Route> {
        let matching = route.r#match.as_ref().ok_or_else(|| DecodeError::new("match", "is required"))?;
        let matching = RouteMatch::decode(matching).map_err(|e| e.inside("match"))?;
        let origin = wire::origin(&route.metadata);
        let action = match self.action(route, &matching) {
            Ok(action) => action,
            Err(error) => {
                report(error.clone());
                RouteAction::Direct(Arc::new(DirectResponse {
                    route_name: route.name.as_str().into(),
                    virtual_host: self.name.clone(),
                    status: 500,
                    body: Arc::from(*b""),
                    response_headers: Vec::new(),
                    broken: Some(error.to_string().into()),
                    fault: None,
                    origin: origin.clone(),
                }))
            }
        };
        Ok(Route { name: route.name.as_str().into(), matching, action, origin })
    }

    fn action(&self, route: &proto::Route, matching: &RouteMatch) -> Decoded<RouteAction> {
        let fault = fault(route)?;
        match &route.action {
            Some(proto::route::Action::Route(action)) => {
                let plan = self.plan(route, action, matching, fault).map_err(|e| e.inside("route"))?;
                Ok(RouteAction::Forward(Arc::new(plan)))
            }
            Some(proto::route::Action::DirectResponse(direct)) => {
                let direct = self.direct(route, direct, fault).map_err(|e| e.inside("direct_response"))?;
                Ok(RouteAction::Direct(Arc::new(direct)))
            }
            Some(proto::route::Action::Redirect(redirect)) => {
                let redirect = self.redirect(route, redirect, fault).map_err(|e| e.inside("redirect"))?;
                Ok(RouteAction::Redirect(Arc::new(redirect)))
            }
            Some(_) => Err(DecodeError::unsupported("filter_action and non_forwarding_action")),
            None => Err(DecodeError::new("route", "or direct_response is required")),
        }
    }

    fn redirect(
        &self,
        route: &proto::Route,
        action: &proto::RedirectAction,
        fault: Option<Arc<Fault>>,
    ) -> Decoded<Redirect> {
        let parts = super::redirect::Parts::decode(action)?;
        Ok(Redirect {
            route_name: route.name.as_str().into(),
            virtual_host: self.name.clone(),
            status: parts.status,
            scheme: parts.scheme,
            host: parts.host,
            port: parts.port,
            path: parts.path,
            strip_query: parts.strip_query,
            response_headers: self.header_ops(route)?.1,
            fault,
            origin: wire::origin(&route.metadata),
        })
    }

    fn plan(
        &self,
        route: &proto::Route,
        action: &proto::RouteAction,
        matching: &RouteMatch,
        fault: Option<Arc<Fault>>,
    ) -> Decoded<RoutePlan> {
        for (present, field) in [
            (action.metadata_match.is_some(), "metadata_match"),
            (action.path_rewrite_policy.is_some(), "path_rewrite_policy"),
            (!action.path_rewrite.is_empty(), "path_rewrite"),
            (!action.request_mirror_policies.is_empty(), "request_mirror_policies"),
            (!action.hash_policy.is_empty(), "hash_policy"),
            (!action.rate_limits.is_empty(), "rate_limits"),
            (action.cors.is_some(), "cors"),
            (action.internal_redirect_policy.is_some(), "internal_redirect_policy"),
            (action.hedge_policy.is_some(), "hedge_policy"),
            (action.retry_policy_typed_config.is_some(), "retry_policy_typed_config"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        let backends = backends(action)?;
        let total_weight: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        if total_weight == 0 {
            return Err(DecodeError::new("weighted_clusters", "needs a cluster with a weight above 0"));
        }
        let retry = match &action.retry_policy {
            Some(policy) => Some(Arc::new(RetryPolicy::decode(policy).map_err(|e| e.inside("retry_policy"))?)),
            None => self.retry.clone(),
        };
        let timeout = match &action.timeout {
            None => Some(DEFAULT_TIMEOUT),
            some => wire::nonzero_duration(some, "timeout")?,
        };
        let stream = action.max_stream_duration.unwrap_or_default();
        let grpc_cap = stream.grpc_timeout_header_max.or(action.max_grpc_timeout);
        let flags = wire::filter_metadata(&route.metadata, "fairlead");
        let (request_headers, response_headers) = self.header_ops(route)?;
        Ok(RoutePlan {
            route_name: route.name.as_str().into(),
            virtual_host: self.name.clone(),
            backends,
            total_weight,
            timeout,
            grpc_timeout_cap: wire::optional_duration(&grpc_cap, "max_stream_duration.grpc_timeout_header_max")?,
            idle_timeout: wire::optional_duration(&action.idle_timeout, "idle_timeout")?,
            retry,
            default_retry: flags.is_some_and(|fields| wire::flag(fields, "default_retry")),
            sibling_failover: flags.is_some_and(|fields| wire::flag(fields, "sibling_failover")),
            host_rewrite: match &action.host_rewrite_specifier {
                None => None,
                Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(authority(host, "host_rewrite_literal")?),
                Some(HostRewriteSpecifier::AutoHostRewrite(on)) if !on.value => None,
                Some(_) => return Err(DecodeError::unsupported("host rewriting other than host_rewrite_literal")),
            },
            path_rewrite: match &action.regex_rewrite {
                Some(rewrite) => Some(PathRewrite::regex(rewrite).map_err(|e| e.inside("regex_rewrite"))?),
                None if action.prefix_rewrite.is_empty() => None,
                None => Some(PathRewrite::prefix(&action.prefix_rewrite, &matching.path)),
            },
            fault,
            request_headers,
            response_headers,
            upgrades: action
                .upgrade_configs
                .iter()
                .map(|upgrade| {
                    let enabled = upgrade.enabled.as_ref().is_none_or(|enabled| enabled.value);
                    (upgrade.upgrade_type.to_ascii_lowercase().into(), enabled)
                })
                .collect(),
            // The enum's 0 is 503, 1 is 404, 2 is 500.
            cluster_not_found_status: match action.cluster_not_found_response_code {
                1 => 404,
                2 => 500,
                _ => 503,
            },
            origin: wire::origin(&route.metadata),
        })
    }

    fn direct(
        &self,
        route: &proto::Route,
        direct: &proto::DirectResponseAction,
        fault: Option<Arc<Fault>>,
    ) -> Decoded<DirectResponse> {
        let status = u16::try_from(direct.status).ok().filter(|status| (200..600).contains(status));
        let status =
            status.ok_or_else(|| DecodeError::new("status", format!("{} is not in 200-599", direct.status)))?;
        if direct.body_format.is_some() {
            return Err(DecodeError::unsupported("body_format"));
        }
        let body: Arc<[u8]> = match direct.body.as_ref().and_then(|body| body.specifier.as_ref()) {
            None => Arc::from(*b""),
            Some(Specifier::InlineString(text)) => text.as_bytes().into(),
            Some(Specifier::InlineBytes(bytes)) => bytes.as_slice().into(),
            Some(_) => return Err(DecodeError::new("body", "must be inline")),
        };
        let most = self.inherited.direct_body.unwrap_or(MAX_DIRECT_BODY).min(MAX_DIRECT_BODY_EVER);
        if body.len() > most {
            return Err(DecodeError::new("body", format!("is longer than {most} bytes")));
        }
        Ok(DirectResponse {
            route_name: route.name.as_str().into(),
            virtual_host: self.name.clone(),
            status,
            body,
            response_headers: self.header_ops(route)?.1,
            broken: None,
            fault,
            origin: wire::origin(&route.metadata),
        })
    }

    /// Operations of route, virtual host and configuration, in the order to apply.
    fn header_ops(&self, route: &proto::Route) -> Decoded<(Vec<Arc<HeaderOps>>, Vec<Arc<HeaderOps>>)> {
        let request =
            HeaderOps::decode(&route.request_headers_to_add, &route.request_headers_to_remove, "request_headers")?;
        let response =
            HeaderOps::decode(&route.response_headers_to_add, &route.response_headers_to_remove, "response_headers")?;
        let order = |own: Option<HeaderOps>, host: &Option<Arc<HeaderOps>>, config: &Option<Arc<HeaderOps>>| {
            let mut levels: Vec<_> = [own.map(Arc::new), host.clone(), config.clone()].into_iter().flatten().collect();
            if self.inherited.general_first {
                levels.reverse();
            }
            levels
        };
        Ok((
            order(request, &self.request, &self.inherited.request),
            order(response, &self.response, &self.inherited.response),
        ))
    }
}

/// The fault filter's configuration; any other filter's is one this proxy would ignore.
fn fault(route: &proto::Route) -> Decoded<Option<Arc<Fault>>> {
    let mut found = None;
    for (name, any) in &route.typed_per_filter_config {
        let field = format!("typed_per_filter_config[{name}]");
        if name != FAULT_FILTER {
            return Err(DecodeError::unsupported(&field));
        }
        let config = wire::unpack(any, &field)?;
        found = Some(Arc::new(Fault::decode(&config).map_err(|e| e.inside(&field))?));
    }
    Ok(found)
}

fn backends(action: &proto::RouteAction) -> Decoded<Vec<Backend>> {
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![backend(name, 1)]),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let decode = |(index, entry)| weighted_backend(entry).map_err(|e| e.inside(format!("[{index}]")));
            let decoded: Decoded<Vec<_>> = weighted.clusters.iter().enumerate().map(decode).collect();
            decoded.map_err(|e| e.inside("weighted_clusters.clusters"))
        }
        Some(_) => Err(DecodeError::unsupported("cluster_header and cluster_specifier_plugin")),
        None => Err(DecodeError::new("cluster", "or weighted_clusters is required")),
    }
}

fn weighted_backend(entry: &proto::weighted_cluster::ClusterWeight) -> Decoded<Backend> {
    use proto::weighted_cluster::cluster_weight::HostRewriteSpecifier as Rewrite;
    if !entry.cluster_header.is_empty() || entry.metadata_match.is_some() || !entry.typed_per_filter_config.is_empty() {
        return Err(DecodeError::unsupported("cluster_header, metadata_match and typed_per_filter_config"));
    }
    let request =
        HeaderOps::decode(&entry.request_headers_to_add, &entry.request_headers_to_remove, "request_headers")?;
    let response =
        HeaderOps::decode(&entry.response_headers_to_add, &entry.response_headers_to_remove, "response_headers")?;
    let mut backend = backend(&entry.name, entry.weight.as_ref().map_or(0, |weight| weight.value));
    backend.request_headers = request.map(Arc::new);
    backend.response_headers = response.map(Arc::new);
    backend.host_rewrite = match &entry.host_rewrite_specifier {
        Some(Rewrite::HostRewriteLiteral(host)) => Some(authority(host, "host_rewrite_literal")?),
        None => None,
    };
    Ok(backend)
}

fn backend(cluster: &str, weight: u32) -> Backend {
    let (host, subset) = istio_name(cluster).map_or(("", ""), |(_, _, subset, host)| (host, subset));
    Backend {
        cluster: cluster.into(),
        host: host.into(),
        subset: subset.into(),
        weight,
        request_headers: None,
        response_headers: None,
        host_rewrite: None,
    }
}

fn authority(text: &str, field: &str) -> Decoded<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| DecodeError::new(field, format!("{text:?} is no host")))
}
