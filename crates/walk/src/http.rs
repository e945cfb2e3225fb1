//! An HTTP request inside a proxy: normalise, route, authorise, balance, try, try again.
//!
//! Invariant: the order of decisions is the proxy's (docs/life-of-a-request.md), and each is the engine's.

use crate::arrival::{Arrival, Failure, merged};
use crate::inbound::Accepted;
use crate::wire::{HttpRequest, Payload, Security};
use crate::world::World;
use fairlead_calls::DecidedBy;
use fairlead_engine::listener::HttpManager;
use fairlead_engine::normalize::{self, Normalized};
use fairlead_engine::route::{Backend, DirectResponse, Fault, HeaderOps, Redirect, RoutePlan, ValueSource};
use fairlead_engine::{RequestHead, RequestInfo, decide};
use fairlead_model::Origin;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Branches rarer than this are not followed further.
pub(crate) const NEGLIGIBLE: f64 = 1e-10;

/// A routed request on its way to one backend.
pub(crate) struct Exchange<'a> {
    pub accepted: &'a Accepted<'a>,
    pub plan: &'a RoutePlan,
    pub backend: &'a Backend,
    /// As the backend gets it.
    pub request: Arc<HttpRequest>,
    /// Before what is done for one backend.
    original: &'a HttpRequest,
    pub depth: u8,
}

impl<'a> Exchange<'a> {
    fn new(
        accepted: &'a Accepted<'a>,
        plan: &'a RoutePlan,
        backend: &'a Backend,
        original: &'a HttpRequest,
        depth: u8,
    ) -> Self {
        let request = Arc::new(prepared(accepted, plan, backend, original));
        Self { accepted, plan, backend, request, original, depth }
    }

    /// The same request at another backend of the plan.
    pub fn at(&self, backend: &'a Backend) -> Self {
        Self::new(self.accepted, self.plan, backend, self.original, self.depth)
    }
}

impl World {
    pub(crate) fn proxy_http(&self, accepted: &Accepted<'_>, manager: &HttpManager, depth: u8) -> Vec<Arrival> {
        let mut arrivals = self.serve_http(accepted, manager, depth);
        if accepted.is_first() {
            for arrival in arrivals.iter_mut().filter(|arrival| arrival.failure.is_none()) {
                // What the proxy answered by itself was tried nowhere.
                arrival.outcome.attempts.get_or_insert(0);
            }
        }
        arrivals
    }

    fn serve_http(&self, accepted: &Accepted<'_>, manager: &HttpManager, depth: u8) -> Vec<Arrival> {
        let Payload::Http(request) = &accepted.wire.payload else {
            // Bytes that are no HTTP where HTTP is spoken: the codec closes.
            return vec![Arrival::failed(Failure::Closed)];
        };
        if !accepted.terminated && matches!(accepted.wire.security, Security::Tls(_)) {
            // Nor is TLS that does not end here.
            return vec![Arrival::failed(Failure::Closed)];
        }
        if let Err(denied) = accepted.authorize_connection() {
            return vec![self.denied(accepted, &denied, None)];
        }
        if request.version == "1.0" && !manager.accept_http_10 {
            return vec![Arrival::by_proxy(426, &[], false)];
        }
        let mut request = HttpRequest::clone(request);
        if !self.normalise(manager, &mut request) {
            return vec![Arrival::by_proxy(400, &[], request.grpc)];
        }
        // Judged on the headers as they came, before our own hop is appended.
        let remote = decide::client_address(manager, &request.headers, accepted.wire.place.address());
        self.forward_headers(accepted, manager, &mut request);
        let Some(config) = accepted.snapshot.routes_of(manager) else {
            return vec![Arrival::by_proxy(404, &["NR"], request.grpc)];
        };
        let head = head(&request);
        let info = RequestInfo { connection: accepted.connection(remote), head: Some(head) };
        if let Err(denied) = decide::authorize(&manager.authorization, &info) {
            return vec![self.denied(accepted, &denied, Some(request.grpc))];
        }
        let outcome = decide::route(config, &head);
        let arrivals = match outcome {
            decide::RouteOutcome::Plan(plan) => self.follow_plan(accepted, plan, &request, depth),
            decide::RouteOutcome::Direct(direct) => vec![answered(accepted, direct, &request)],
            decide::RouteOutcome::Redirect(redirect) => vec![sent_elsewhere(accepted, redirect, &request)],
            decide::RouteOutcome::NotFound => vec![Arrival::by_proxy(404, &["NR"], request.grpc)],
        };
        match outcome.fault() {
            None => arrivals,
            Some(fault) => with_fault(fault, arrivals, &outcome, request.grpc),
        }
    }

    /// False: the path is refused.
    fn normalise(&self, manager: &HttpManager, request: &mut HttpRequest) -> bool {
        match normalize::path(&manager.path, &request.path) {
            Normalized::Forward(path) => {
                let path = path.into_owned();
                request.path = path;
                true
            }
            Normalized::Redirect(_) | Normalized::Reject => false,
        }
    }

    /// Headers that the proxy writes and a table may ask for.
    fn forward_headers(&self, accepted: &Accepted<'_>, manager: &HttpManager, request: &mut HttpRequest) {
        if manager.use_remote_address && !manager.skip_xff_append {
            let own = accepted.wire.place.address().to_string();
            let told = request.headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
            let value = told.map_or(own.clone(), |told| format!("{told},{own}"));
            insert(&mut request.headers, "x-forwarded-for", &value);
        }
        if !request.headers.contains_key("x-forwarded-proto") || manager.use_remote_address {
            insert(&mut request.headers, "x-forwarded-proto", request.scheme);
        }
    }

    fn follow_plan(
        &self,
        accepted: &Accepted<'_>,
        plan: &Arc<RoutePlan>,
        request: &HttpRequest,
        depth: u8,
    ) -> Vec<Arrival> {
        let snapshot = accepted.snapshot;
        let from = &accepted.workload.key.cluster;
        let usable = |backend: &Backend| self.is_usable(snapshot, from, &backend.cluster);
        let mut arrivals = Vec::new();
        for (backend, share) in plan.backends.iter().zip(decide::backend_shares(plan, usable)) {
            if share <= 0.0 {
                continue;
            }
            let exchange = Exchange::new(accepted, plan, backend, request, depth);
            arrivals.extend(self.tries(&exchange).into_iter().map(|a| a.scaled(share)));
        }
        for arrival in &mut arrivals {
            if let Some(origin) = &plan.origin {
                arrival.outcome.route = Some(origin.to_string());
                arrival.decided_by.insert(0, DecidedBy::from(origin));
            }
        }
        merged(arrivals)
    }

    /// What a caller sees of a refusal.
    pub(crate) fn denied(&self, accepted: &Accepted<'_>, denied: &decide::Denied, grpc: Option<bool>) -> Arrival {
        let mut arrival = match grpc {
            Some(grpc) => Arrival::by_proxy(403, &[], grpc),
            None => Arrival::reset(&[]),
        };
        match denied.authorization_policy() {
            Some((namespace, name)) => {
                arrival.outcome.denied_by = Some(format!("AuthorizationPolicy {namespace}/{name}"));
                let policies = &accepted.workload.security.policies;
                let of = |p: &&fairlead_model::security::AuthorizationPolicy| {
                    &*p.origin.object.namespace == namespace && &*p.origin.object.name == name
                };
                arrival.decided_by.extend(policies.iter().find(of).map(|p| DecidedBy::from(&p.origin)));
            }
            None => arrival.outcome.denied_by = Some("no-allow".into()),
        }
        arrival.notes.push(format!("{}: {}", accepted.workload.key, denied.details()));
        arrival
    }
}

/// Header operations on the way back.
pub(crate) fn respond(exchange: &Exchange<'_>, arrival: &mut Arrival) {
    let operations = exchange.backend.response_headers.iter().chain(&exchange.plan.response_headers);
    let Some(response) = &mut arrival.outcome.response else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in &response.headers {
        insert(&mut headers, name, value.as_deref().unwrap_or_default());
    }
    apply(operations, &mut headers, exchange.accepted, &exchange.request);
    response.headers = listed(&headers);
}

/// The request as it leaves for a backend.
fn prepared(accepted: &Accepted<'_>, plan: &RoutePlan, backend: &Backend, request: &HttpRequest) -> HttpRequest {
    let mut out = request.clone();
    let operations = backend.request_headers.iter().chain(&plan.request_headers);
    apply(operations, &mut out.headers, accepted, request);
    let rewrite = plan.host_rewrite.as_ref().or(backend.host_rewrite.as_ref());
    if let Some(host) = rewrite.and_then(|h| h.to_str().ok()) {
        out.authority = host.to_owned();
    }
    if let Some(rewrite) = &plan.path_rewrite {
        insert(&mut out.headers, "x-envoy-original-path", &request.path);
        out.path = rewrite.apply(&request.path);
    }
    out
}

fn apply<'o>(
    operations: impl Iterator<Item = &'o Arc<HeaderOps>>,
    headers: &mut HeaderMap,
    accepted: &Accepted<'_>,
    request: &HttpRequest,
) {
    let head = head(request);
    let source = ValueSource {
        head: &head,
        remote: SocketAddr::new(accepted.wire.place.address(), 40_000),
        local: accepted.wire.destination,
        peer: accepted.peer.as_deref(),
        server_name: accepted.wire.server_name(),
        protocol: if request.version == "2" { "HTTP/2" } else { "HTTP/1.1" },
        hostname: &accepted.workload.key.name,
    };
    for operation in operations {
        operation.apply(headers, &source);
    }
}

fn answered(accepted: &Accepted<'_>, direct: &DirectResponse, request: &HttpRequest) -> Arrival {
    let mut arrival = decided(Arrival::by_proxy(direct.status, &[], request.grpc), direct.origin.as_ref());
    let mut headers = HeaderMap::new();
    apply(direct.response_headers.iter(), &mut headers, accepted, request);
    if let Some(response) = &mut arrival.outcome.response {
        response.headers = listed(&headers);
        response.body = Some(String::from_utf8_lossy(&direct.body).into_owned());
    }
    arrival
}

fn sent_elsewhere(accepted: &Accepted<'_>, redirect: &Redirect, request: &HttpRequest) -> Arrival {
    let mut arrival = decided(Arrival::by_proxy(redirect.status, &[], request.grpc), redirect.origin.as_ref());
    let mut headers = HeaderMap::new();
    insert(&mut headers, "location", &redirect.location(&head(request)));
    apply(redirect.response_headers.iter(), &mut headers, accepted, request);
    if let Some(response) = &mut arrival.outcome.response {
        response.headers = listed(&headers);
    }
    arrival
}

fn decided(mut arrival: Arrival, origin: Option<&Origin>) -> Arrival {
    if let Some(origin) = origin {
        arrival.outcome.route = Some(origin.to_string());
        arrival.decided_by.push(DecidedBy::from(origin));
    }
    arrival
}

/// Delays and failures take their shares of what would have happened; each is drawn by itself.
fn with_fault(fault: &Fault, arrivals: Vec<Arrival>, outcome: &decide::RouteOutcome<'_>, grpc: bool) -> Vec<Arrival> {
    let part = |per_million: u32| f64::from(per_million) / 1e6;
    let aborted = fault.abort.as_ref().map_or(0.0, |abort| part(abort.per_million));
    let mut all: Vec<Arrival> = arrivals.into_iter().map(|arrival| arrival.scaled(1.0 - aborted)).collect();
    if let Some(abort) = &fault.abort {
        let origin = match outcome {
            decide::RouteOutcome::Plan(plan) => plan.origin.as_ref(),
            decide::RouteOutcome::Direct(direct) => direct.origin.as_ref(),
            decide::RouteOutcome::Redirect(redirect) => redirect.origin.as_ref(),
            decide::RouteOutcome::NotFound => None,
        };
        let mut arrival = decided(Arrival::by_proxy(abort.status, &["FI"], grpc), origin);
        if let Some(status) = abort.grpc_status.filter(|_| grpc) {
            arrival.outcome.grpc_status = Some(status);
        }
        if let Some(response) = &mut arrival.outcome.response {
            response.body = Some("fault filter abort".into());
        }
        all.push(arrival.scaled(aborted));
    }
    if let Some(delay) = &fault.delay {
        let delayed = part(delay.per_million);
        let late = all.clone().into_iter().map(|mut arrival| {
            arrival.delay += delay.time;
            arrival.outcome.delay = Some(delay.time);
            arrival.outcome.flags.insert(0, "DI".into());
            arrival.scaled(delayed)
        });
        let late: Vec<Arrival> = late.collect();
        all = all.into_iter().map(|arrival| arrival.scaled(1.0 - delayed)).chain(late).collect();
    }
    all.retain(|arrival| arrival.share > NEGLIGIBLE);
    all
}

fn listed(headers: &HeaderMap) -> BTreeMap<String, Option<String>> {
    headers.iter().map(|(n, v)| (n.to_string(), Some(String::from_utf8_lossy(v.as_bytes()).into_owned()))).collect()
}

pub(crate) fn head(request: &HttpRequest) -> RequestHead<'_> {
    RequestHead {
        method: &request.method,
        path: &request.path,
        authority: &request.authority,
        scheme: request.scheme,
        headers: &request.headers,
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}
