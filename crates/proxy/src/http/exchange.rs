//! The phases of one request, in order: read, authorise, route, try until somebody answers, answer.
//!
//! `docs/life-of-a-request.md` lists the phases. Invariant: every way out of here hands the record to a response body, or
//! drops it; nothing else tells the story.

use super::attempt::{Answer, Facts, Failed, Outgoing, attempt};
use super::context::{Config, HttpContext};
use super::head::{Head, Refused};
use super::headers::{self, NOT_DELIVERED};
use super::reply::{self, PROGRAM_RESET};
use super::request_body::{RequestBody, Source};
use super::response_body::{Relayed, ResponseBody};
use super::response_head::{apply, server_header, value_source};
use super::{grpc, upgrade};
use crate::telemetry::{Flags, OwnAnswer, PEER_HEADER, RequestRecord};
use crate::upstream::{Admitted, Member, Resource, Trouble, Upstream, World};
use fairlead_engine::balance::{Avoid, Tried};
use fairlead_engine::decide::{self, Allowed, RouteOutcome};
use fairlead_engine::errors::ProxyError;
use fairlead_engine::outlier::TryResult;
use fairlead_engine::retry::{self, Decision, Failure, RetryKind, Stop};
use fairlead_engine::route::{Backend, RoutePlan};
use http::header::CONNECTION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// Serves one request.
pub async fn handle(context: Rc<HttpContext>, request: Request<Incoming>) -> Response<ResponseBody> {
    let world = context.worker.world();
    let config = context.config(&world);
    let record = Box::new(RequestRecord::begin(&context.worker, &context.connection, config.log.clone()));
    let http1 = request.version() < Version::HTTP_2;
    let fairlead_caller = context.connection.inbound && context.connection.peer.is_some();
    let mut response = phases(&context, &config, world, record, request).await;
    let headers = response.headers_mut();
    if !fairlead_caller {
        headers::strip_mesh(headers);
    }
    server_header(headers, &config);
    if http1
        && (config.orphaned || context.worker.drain.leaving())
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn phases(
    context: &Rc<HttpContext>,
    config: &Config,
    world: Arc<World>,
    mut record: Box<RequestRecord>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let downstream_upgrade = upgrade::pending(&mut request);
    let (parts, body) = request.into_parts();
    let head = match Head::read(context, config, &mut record, parts) {
        Ok(head) => head,
        Err(Refused::Error(error)) => return reply::failure(record, error, None, false),
        Err(Refused::Redirect(location)) => return reply::redirect(record, &location),
    };
    let allowed = match decide::authorize(&config.manager.authorization, &head.info(context)) {
        Ok(allowed) => allowed,
        Err(denied) => {
            record.details = Cow::Owned(denied.details());
            record.denied_by = Some(match denied.authorization_policy() {
                Some((namespace, name)) => format!("AuthorizationPolicy {namespace}/{name}").into(),
                None => "no-allow".into(),
            });
            return reply::denied(record);
        }
    };
    let Some(routes) = world.snapshot.routes_of(&config.manager) else {
        return reply::failure(record, ProxyError::RoutesMissing, None, false);
    };
    let outcome = decide::route(routes, &head.view());
    match outcome {
        RouteOutcome::Plan(plan) => record.plan = Some(plan.clone()),
        RouteOutcome::Direct(direct) => record.own = Some(OwnAnswer::Direct(direct.clone())),
        RouteOutcome::Redirect(redirect) => record.own = Some(OwnAnswer::Redirect(redirect.clone())),
        RouteOutcome::NotFound => {}
    }
    if let Some(fault) = outcome.fault() {
        let injected = fault.draw(fastrand::u32(..1_000_000), fastrand::u32(..1_000_000));
        if let Some(delay) = injected.delay {
            record.flags.insert(Flags::DELAY_INJECTED);
            record.delay = Some(delay);
            tokio::time::sleep(delay).await;
        }
        if let Some(abort) = injected.abort {
            return reply::aborted(record, abort);
        }
    }
    let plan = match outcome {
        RouteOutcome::Plan(plan) => plan.clone(),
        RouteOutcome::NotFound => return reply::failure(record, ProxyError::RouteNotFound, None, false),
        RouteOutcome::Direct(direct) => {
            let body = bytes::Bytes::copy_from_slice(&direct.body);
            let mut response = reply::direct(record, direct.status, body);
            apply(&direct.response_headers, None, response.headers_mut(), context, &head);
            return response;
        }
        RouteOutcome::Redirect(redirect) => {
            let mut response = reply::elsewhere(record, redirect.status, &redirect.location(&head.view()));
            apply(&redirect.response_headers, None, response.headers_mut(), context, &head);
            return response;
        }
    };
    let rewritten = match &plan.path_rewrite {
        None => None,
        Some(rewrite) => match rewrite.apply(head.target.as_str()).parse::<PathAndQuery>() {
            Ok(target) => Some(target),
            Err(_) => return reply::failure(record, ProxyError::PathRejected, None, false),
        },
    };
    let count_attempts = routes.virtual_host(&head.authority).is_some_and(|host| host.include_attempt_count);
    let deadline = plan.timeout_for(&head.view()).map(|limit| Instant::now() + limit);
    let source = (!body.is_end_stream()).then(|| Source::new(body, plan.retry.is_some(), record.grpc));
    // While a delay was waited for, endpoints may have come and gone.
    let world = if record.flags.contains(Flags::DELAY_INJECTED) { context.worker.world() } else { world };
    let mut exchange = Exchange {
        context,
        config,
        world,
        plan,
        head,
        rewritten,
        allowed,
        source,
        deadline,
        record,
        draw: fastrand::u64(..),
        count_attempts,
    };
    let outcome = match deadline {
        None => exchange.run().await,
        Some(deadline) => match tokio::time::timeout_at(deadline, exchange.run()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                if let Some(member) = exchange.record.member.clone() {
                    member.state.rq_timeout.fetch_add(1, Ordering::Relaxed);
                    exchange.observe(&member, TryResult::Timeout);
                }
                Err(Ended { error: ProxyError::RouteTimeout, sent: true, reason: None })
            }
        },
    };
    match outcome {
        Ok(answered) => exchange.respond(answered, downstream_upgrade),
        Err(ended) => {
            let Exchange { head, source, record, .. } = exchange;
            let record = closed(record, source.as_deref());
            let mut response = reply::failure(record, ended.error, ended.reason.as_deref(), ended.sent);
            if source.is_some_and(|source| !source.ended()) && head.version < Version::HTTP_2 {
                // What is left of the body would be read as the next request's beginning by a careless peer.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }
}

struct Exchange<'a> {
    context: &'a Rc<HttpContext>,
    config: &'a Config,
    world: Arc<World>,
    plan: Arc<RoutePlan>,
    head: Head,
    /// The target towards the upstream, where the route rewrites it.
    rewritten: Option<PathAndQuery>,
    allowed: Allowed,
    source: Option<Rc<Source>>,
    deadline: Option<Instant>,
    record: Box<RequestRecord>,
    /// Drawn once: a repeat stays with its weighted backend (Envoy), unless that has become unusable meanwhile or has no endpoint
    /// that was not tried, and siblings help each other.
    draw: u64,
    /// The virtual host asks for `x-envoy-attempt-count`.
    count_attempts: bool,
}

/// A head that will be passed on.
struct Answered {
    answer: Answer,
    backend: usize,
    began: std::time::Instant,
}

/// Nobody answered.
struct Ended {
    error: ProxyError,
    sent: bool,
    reason: Option<String>,
}

impl Exchange<'_> {
    async fn run(&mut self) -> Result<Answered, Ended> {
        let mut tried = Tried::default();
        let mut retrying: Option<Admitted> = None;
        let mut failed_gateway = None;
        loop {
            if self.record.attempts > 0 {
                // What was learned since the last try (an endpoint gone, a path down) counts for this one.
                self.world = self.context.worker.world();
            }
            let (backend, upstream) = self.choose(&tried)?;
            if upstream.is_itself(&self.context.connection) {
                self.record.upstream = Some(upstream);
                return Err(Ended { error: ProxyError::NoHealthyUpstream, sent: false, reason: None });
            }
            let avoid = Avoid::of(&self.plan);
            let picked = upstream.pick(&self.allowed, &tried, avoid, self.context.connection.original);
            self.record.upstream = Some(upstream.clone());
            let Ok(member) = picked else {
                return Err(Ended { error: ProxyError::NoHealthyUpstream, sent: false, reason: None });
            };
            self.record.member = Some(member.clone());
            self.record.attempts += 1;
            let outgoing = self.outgoing(backend);
            let began = std::time::Instant::now();
            let mut facts = Facts::default();
            let per_try = self.plan.retry.as_ref().and_then(|retry| retry.per_try_timeout);
            let worker = &self.context.worker;
            let world = &self.world;
            let result =
                attempt(worker, world, &upstream, &member, outgoing, per_try, failed_gateway, &mut facts).await;
            self.record.upstream_address = facts.address;
            self.record.gateway = facts.gateway;
            self.record.upstream_local = facts.local;
            self.record.upstream_tls = facts.tls;
            let decision = match &result {
                Ok(answer) => self.after_answer(&member, answer),
                Err(failed) => self.after_failure(&member, failed),
            };
            match (decision, result) {
                (Decision::Retry { back_off }, result) => {
                    let in_doubt = result.as_ref().err().is_some_and(|failed| about_the_path(failed.error));
                    tried.note(&member.endpoint, in_doubt);
                    failed_gateway = facts.gateway.filter(|_| in_doubt);
                    drop(result);
                    upstream.stats.rq_retry.fetch_add(1, Ordering::Relaxed);
                    if retrying.is_none() {
                        retrying = upstream.stats.admit(Resource::Retry, &upstream.cluster.limits);
                    }
                    // The first retry of Fairlead's default goes out at once: it is another endpoint's first try.
                    if !(self.plan.default_retry && self.record.attempts == 1) {
                        tokio::time::sleep(back_off).await;
                    }
                }
                (Decision::Stop(stop), Ok(answer)) => {
                    self.flag_stop(stop);
                    if retrying.is_some() {
                        upstream.stats.rq_retry_success.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(Answered { answer, backend, began });
                }
                (Decision::Stop(stop), Err(failed)) => {
                    self.flag_stop(stop);
                    return Err(Ended { error: failed.error, sent: failed.sent, reason: failed.reason });
                }
            }
        }
    }

    fn choose(&self, tried: &Tried) -> Result<(usize, Arc<Upstream>), Ended> {
        let usable = |backend: &Backend| {
            self.world.is_usable(&backend.cluster) && !self.world.is_used_up(&backend.cluster, tried)
        };
        let chosen = decide::choose_backend(&self.plan, self.draw, usable);
        let index = self.plan.backends.iter().position(|b| std::ptr::eq(b, chosen)).unwrap_or(0);
        match self.world.upstream(&chosen.cluster) {
            Some(upstream) => Ok((index, upstream.clone())),
            None => Err(Ended { error: ProxyError::ClusterNotFound, sent: false, reason: None }),
        }
    }

    /// The request as this try sends it.
    fn outgoing(&mut self, backend: usize) -> Outgoing {
        let rule = &self.plan.backends[backend];
        let mut headers = self.head.headers.clone();
        if rule.request_headers.is_some() || !self.plan.request_headers.is_empty() {
            let view = self.head.view();
            let source = value_source(&view, self.context, self.record.protocol);
            if let Some(ops) = &rule.request_headers {
                ops.apply(&mut headers, &source);
            }
            for ops in &self.plan.request_headers {
                ops.apply(&mut headers, &source);
            }
        }
        if self.rewritten.is_some()
            && let Ok(original) = HeaderValue::from_str(self.head.target.as_str())
        {
            headers.insert(headers::ORIGINAL_PATH, original);
        }
        // Envoy applies the route's after the destination's.
        let rewrite = self.plan.host_rewrite.as_ref().or(rule.host_rewrite.as_ref());
        let authority = match rewrite.and_then(|value| value.to_str().ok()) {
            Some(host) => host.to_owned(),
            None => self.head.authority.clone(),
        };
        if self.count_attempts {
            headers.insert(headers::ATTEMPT_COUNT, HeaderValue::from(self.record.attempts));
        }
        Outgoing {
            method: self.head.method.clone(),
            target: self.rewritten.as_ref().unwrap_or(&self.head.target).clone(),
            authority,
            headers,
            body: self.source.as_ref().map_or(RequestBody::Empty, Source::begin),
            version: self.head.version,
            upgrade: self.head.upgrade.is_some(),
            to_program: self.context.connection.inbound,
        }
    }

    fn after_answer(&mut self, member: &Arc<Member>, answer: &Answer) -> Decision {
        let response = &answer.response;
        let status = response.status().as_u16();
        let grpc_status = if self.record.grpc { grpc::status_of(response.headers()) } else { None };
        let not_delivered = answer.mesh && response.headers().contains_key(NOT_DELIVERED);
        let program_reset = answer.mesh && response.headers().contains_key(PROGRAM_RESET);
        self.observe(member, TryResult::Status(http_status(status, grpc_status)));
        member.state.finished(status < 500);
        if self.plan.retry.is_none() {
            return Decision::Stop(Stop::NotRetriable);
        }
        let failure = if program_reset {
            Failure::Kind(RetryKind::ResetBeforeHead)
        } else {
            let grpc_status = grpc_status.and_then(|s| u32::try_from(s).ok());
            Failure::Response { status, grpc_status, headers: response.headers(), not_delivered }
        };
        self.decide(failure, !not_delivered)
    }

    fn after_failure(&mut self, member: &Arc<Member>, failed: &Failed) -> Decision {
        member.state.finished(false);
        self.observe(
            member,
            match failed.error {
                ProxyError::PerTryTimeout => TryResult::Timeout,
                ProxyError::Overflow => return Decision::Stop(Stop::NotRetriable),
                ProxyError::ConnectFailed | ProxyError::ConnectTimeout | ProxyError::UpstreamTls => {
                    TryResult::ConnectFailed
                }
                _ => TryResult::Reset,
            },
        );
        if self.source.as_ref().is_some_and(|source| source.failed()) {
            return Decision::Stop(Stop::NotRetriable);
        }
        match failed.error.meaning().retry {
            Some(kind) => self.decide(Failure::Kind(kind), failed.sent),
            None => Decision::Stop(Stop::NotRetriable),
        }
    }

    fn decide(&self, failure: Failure<'_>, request_sent: bool) -> Decision {
        let overflow = self.record.upstream.as_ref().is_some_and(|upstream| {
            self.record.attempts == 1 && upstream.stats.retries_are_full(&upstream.cluster.limits)
        });
        let view = self.head.view();
        let attempt = retry::Attempt {
            number: self.record.attempts,
            failure,
            head: &view,
            request_sent,
            replayable: self.source.as_ref().is_none_or(|source| source.can_replay()) && self.head.upgrade.is_none(),
            retries_overflow: overflow,
        };
        retry::decide(&self.plan, &attempt, fastrand::u64(..))
    }

    /// Tells outlier detection, where the Envoy cluster has it.
    fn observe(&self, member: &Arc<Member>, result: TryResult) {
        let (Some(monitor), Some(upstream)) = (&member.monitor, &self.record.upstream) else { return };
        let Some(config) = &upstream.cluster.outlier else { return };
        if let Some(cause) = monitor.record(config, result) {
            let (cluster, endpoint) = (upstream.cluster.name.clone(), member.endpoint.key.clone());
            let _ = self.context.worker.shared.trouble.send(Trouble::Outlier { cluster, endpoint, cause });
        }
    }

    fn flag_stop(&mut self, stop: Stop) {
        match stop {
            Stop::LimitExceeded => self.record.flags.insert(Flags::RETRY_LIMIT),
            Stop::Overflow => self.record.flags.insert(Flags::UPSTREAM_OVERFLOW),
            Stop::NotRetriable | Stop::BodyGone => {}
        }
    }

    fn respond(self, answered: Answered, downstream: Option<hyper::upgrade::OnUpgrade>) -> Response<ResponseBody> {
        let Answered { answer, backend, began } = answered;
        let Answer { mut response, borrowed, in_use, .. } = answer;
        let source = self.source;
        let mut record = closed(self.record, source.as_deref());
        record.code = response.status().as_u16();
        if record.details.is_empty() {
            record.details = Cow::Borrowed("via_upstream");
        }
        let upgrading = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upstream_upgrade = upgrading.then(|| hyper::upgrade::on(&mut response));
        let (parts, incoming) = response.into_parts();
        let mut headers = parts.headers;
        headers::strip_hop_by_hop(&mut headers, upgrading);
        headers::strip_mesh(&mut headers);
        if record.grpc {
            record.grpc_status = grpc::status_of(&headers);
        }
        headers.insert(headers::SERVICE_TIME, HeaderValue::from(began.elapsed().as_millis() as u64));
        apply(
            &self.plan.response_headers,
            self.plan.backends[backend].response_headers.as_ref(),
            &mut headers,
            self.context,
            &self.head,
        );
        if record.from_fairlead
            && let Some(own) = &self.context.worker.shared.own_header
        {
            headers.insert(PEER_HEADER, own.clone());
        }
        if let Some(log) = &record.log {
            record.captured_response = log.capture_response(&headers);
        }
        if let (Some(upstream), Some(downstream)) = (upstream_upgrade, downstream) {
            let idle = self.config.manager.stream_idle_timeout.unwrap_or_default();
            let signals = self.context.signals.clone();
            upgrade::relay(downstream, upstream, record, borrowed, in_use, signals, idle);
            let mut response = Response::new(ResponseBody::own(bytes::Bytes::new(), None));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            return response;
        }
        let deadline = self.deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let relayed = Relayed::new(incoming, record, borrowed, source, deadline, in_use);
        let mut response = Response::new(ResponseBody::Upstream(relayed));
        *response.status_mut() = parts.status;
        *response.headers_mut() = headers;
        response
    }
}

/// The record with the request's byte counts in it; nobody will try again.
fn closed(mut record: Box<RequestRecord>, source: Option<&Source>) -> Box<RequestRecord> {
    if let Some(source) = source {
        source.settle();
        record.received = source.received.clone();
        record.request_messages = source.messages.clone();
    }
    record
}

/// What outlier detection takes a gRPC status for (Envoy `Grpc::Utility::grpcToHttpStatus`).
fn http_status(status: u16, grpc_status: Option<i32>) -> u16 {
    match grpc_status {
        None | Some(0) => status,
        Some(1) => 499,
        Some(2 | 13 | 15) => 500,
        Some(3 | 9 | 11) => 400,
        Some(4) => 504,
        Some(5) => 404,
        Some(6 | 10) => 409,
        Some(7) => 403,
        Some(8) => 429,
        Some(12) => 501,
        Some(14) => 503,
        Some(16) => 401,
        Some(_) => 500,
    }
}

/// Failures that say more about the way than about the endpoint.
fn about_the_path(error: ProxyError) -> bool {
    matches!(error, ProxyError::ConnectFailed | ProxyError::ConnectTimeout | ProxyError::PathDead)
}
