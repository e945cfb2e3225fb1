//! The tries of one routed request: where each goes, what each brings, whether another follows.
//!
//! Invariant: what counts as a failure, whether it is repeated and where the next try goes are the engine's decisions; ways
//! that differ only in the order of endpoints tried are followed once.

use crate::arrival::{Arrival, Failure, merged};
use crate::http::{Exchange, NEGLIGIBLE, head, respond};
use crate::upstream::Target;
use crate::wire::Payload;
use crate::world::World;
use fairlead_calls::DecidedBy;
use fairlead_engine::balance::{Avoid, Balancer, Tried};
use fairlead_engine::decide;
use fairlead_engine::retry::{self, Attempt, Decision, RetryKind, Stop};
use fairlead_engine::route::Backend;
use fairlead_engine::upstream::{EnvoyCluster, UpstreamTransport};
use fairlead_model::ClusterId;
use http::HeaderMap;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tries of one request that are followed.
const MAX_TRIES: u32 = 16;

/// Where a request stands before its next try.
#[derive(Clone)]
pub(crate) struct Standing {
    pub weight: f64,
    pub tried: Tried,
    /// Indices of the endpoints tried, and whether the way there is in doubt; sorted.
    pub known: Vec<(usize, bool)>,
    /// Since the first try began.
    pub elapsed: Duration,
}

impl Standing {
    /// Before any try.
    pub fn first() -> Self {
        Self { weight: 1.0, tried: Tried::default(), known: Vec::new(), elapsed: Duration::ZERO }
    }

    /// Whether a try over the same gateways did not come through.
    pub fn doubts_the_way(&self, balancer: &Balancer, target: &Target) -> bool {
        let Target::Endpoint(endpoint) = target else { return false };
        let hop = endpoint.gateway_hop();
        let same = |index: usize| balancer.endpoints().get(index).is_some_and(|known| known.gateway_hop() == hop);
        hop.is_some() && self.known.iter().any(|(index, in_doubt)| *in_doubt && same(*index))
    }
}

enum Verdict {
    Retry,
    Done(Vec<&'static str>),
}

/// What one try costs and brings.
struct Judged {
    verdict: Verdict,
    /// How long the caller's proxy waited for it.
    took: Duration,
}

impl World {
    /// All ways in which the tries of a request can go.
    pub(crate) fn tries(&self, exchange: &Exchange<'_>) -> Vec<Arrival> {
        self.tries_from(exchange, 1, Standing::first())
    }

    /// Those from try `first` on.
    fn tries_from(&self, exchange: &Exchange<'_>, first: u32, standing: Standing) -> Vec<Arrival> {
        let accepted = exchange.accepted;
        let grpc = exchange.request.grpc;
        let Some(cluster) = accepted.snapshot.cluster(&exchange.backend.cluster) else {
            return vec![Arrival::by_proxy(exchange.plan.cluster_not_found_status, &["NC"], grpc)];
        };
        let balancer = self.balancer(accepted.snapshot, &accepted.workload.key.cluster, cluster);
        let payload = Payload::Http(exchange.request.clone());
        // What a try at a target brings depends on earlier ones only in which gateways are known to fail.
        let mut brought: BTreeMap<(usize, bool), Vec<Arrival>> = BTreeMap::new();
        let mut level = vec![standing];
        let mut all = Vec::new();
        for number in first..=MAX_TRIES {
            let mut next: BTreeMap<(Vec<(usize, bool)>, Duration), Standing> = BTreeMap::new();
            for standing in level {
                let siblings = self.elsewhere(exchange, balancer.as_ref(), &standing.tried);
                if !siblings.is_empty() {
                    for (sibling, share) in siblings {
                        let there = Standing { weight: standing.weight * share, known: Vec::new(), ..standing.clone() };
                        all.extend(self.tries_from(&exchange.at(sibling), number, there));
                    }
                    continue;
                }
                let targets = targets(balancer.as_ref(), &standing.tried, Avoid::of(exchange.plan));
                if targets.is_empty() {
                    all.push(nobody(cluster, number, grpc).scaled(standing.weight));
                }
                for (index, target, share) in targets {
                    let wary = balancer.as_ref().is_some_and(|b| standing.doubts_the_way(b, &target));
                    let arrivals = brought
                        .entry((index, wary))
                        .or_insert_with(|| self.attempt(accepted, cluster, &target, &payload, exchange.depth, wary));
                    let hop = Hop::to(cluster, &target, &accepted.workload.key.cluster);
                    for arrival in arrivals.iter() {
                        let weight = standing.weight * share * arrival.share;
                        if weight < NEGLIGIBLE {
                            continue;
                        }
                        let judged = self.judge(exchange, cluster, arrival, number, hop, standing.elapsed);
                        let elapsed = standing.elapsed + judged.took;
                        match judged.verdict {
                            Verdict::Retry if number < MAX_TRIES => {
                                let step = follow_up(&standing, index, &target, arrival, weight, elapsed);
                                next.entry((step.known.clone(), elapsed))
                                    .and_modify(|same| same.weight += weight)
                                    .or_insert(step);
                            }
                            Verdict::Retry => {
                                all.push(ended(arrival.clone(), exchange, number, &["URX"], elapsed).scaled_to(weight));
                            }
                            Verdict::Done(flags) => {
                                all.push(ended(arrival.clone(), exchange, number, &flags, elapsed).scaled_to(weight));
                            }
                        }
                    }
                }
            }
            level = next.into_values().collect();
            if level.is_empty() {
                break;
            }
        }
        merged(all)
    }

    /// Siblings of a backend of which all was tried.
    fn elsewhere<'e>(
        &self,
        exchange: &Exchange<'e>,
        balancer: Option<&Balancer>,
        tried: &Tried,
    ) -> Vec<(&'e Backend, f64)> {
        if !exchange.plan.sibling_failover || !balancer.is_some_and(|b| b.is_used_up(tried)) {
            return Vec::new();
        }
        let (snapshot, from) = (exchange.accepted.snapshot, &exchange.accepted.workload.key.cluster);
        decide::sibling_shares(exchange.plan, exchange.backend, |other| {
            self.has_more(snapshot, from, &other.cluster, tried)
        })
    }

    fn judge(
        &self,
        exchange: &Exchange<'_>,
        cluster: &EnvoyCluster,
        arrival: &Arrival,
        number: u32,
        hop: Hop,
        elapsed: Duration,
    ) -> Judged {
        let plan = exchange.plan;
        let head = head(&exchange.request);
        let empty = HeaderMap::new();
        let waits = match arrival.failure {
            Some(Failure::Timeout) => cluster.connect_limit(hop.far),
            _ => arrival.delay,
        };
        let per_try = plan.retry.as_ref().and_then(|r| r.per_try_timeout).filter(|limit| waits > *limit);
        let took = per_try.unwrap_or(waits);
        // The route's time is that of all tries together.
        if let Some(limit) = plan.timeout_for(&head)
            && elapsed + took > limit
        {
            return Judged { verdict: Verdict::Done(vec!["UT"]), took: limit.saturating_sub(elapsed) };
        }
        let (failure, flag) = match arrival.failure {
            _ if per_try.is_some() => (retry::Failure::Kind(RetryKind::PerTryTimeout), "UT"),
            Some(kind) => {
                // A program that was reached had got its connection.
                let (kind, flag) = retry_kind(kind, hop.tls && arrival.outcome.to.is_none());
                (retry::Failure::Kind(kind), flag)
            }
            // The callee's proxy says that its program broke off; it is believed inside the mesh only.
            None if arrival.program_reset && hop.mesh => (retry::Failure::Kind(RetryKind::ResetBeforeHead), ""),
            None => {
                let status = arrival.outcome.status.parse().unwrap_or(200);
                let response = retry::Failure::Response {
                    status,
                    grpc_status: arrival.outcome.grpc_status,
                    headers: &empty,
                    not_delivered: arrival.not_delivered && hop.mesh,
                };
                (response, "")
            }
        };
        let attempt = Attempt {
            number,
            failure,
            head: &head,
            request_sent: !matches!(arrival.failure, Some(Failure::Refused | Failure::Timeout)),
            replayable: true,
            retries_overflow: false,
        };
        let flags = |extra: Option<&'static str>| {
            [Some(flag), extra].into_iter().flatten().filter(|f| !f.is_empty()).collect::<Vec<_>>()
        };
        let verdict = match retry::decide(plan, &attempt, 0) {
            Decision::Retry { .. } => Verdict::Retry,
            Decision::Stop(Stop::LimitExceeded) => Verdict::Done(flags(Some("URX"))),
            Decision::Stop(_) => Verdict::Done(flags(None)),
        };
        Judged { verdict, took }
    }
}

/// No endpoint may be chosen for try `number`.
fn nobody(cluster: &EnvoyCluster, number: u32, grpc: bool) -> Arrival {
    let mut arrival = Arrival::by_proxy(503, &["UH"], grpc);
    arrival.outcome.attempts = Some(number.saturating_sub(1));
    arrival.decided_by.extend(cluster.origin.iter().map(DecidedBy::from));
    arrival
}

/// Where a request stands after a try that is repeated.
pub(crate) fn follow_up(
    standing: &Standing,
    index: usize,
    target: &Target,
    arrival: &Arrival,
    weight: f64,
    elapsed: Duration,
) -> Standing {
    let mut tried = standing.tried.clone();
    let mut known = standing.known.clone();
    if let Target::Endpoint(endpoint) = target {
        let in_doubt = matches!(arrival.failure, Some(Failure::Refused | Failure::Timeout));
        tried.note(endpoint, in_doubt);
        known.push((index, in_doubt));
        known.sort_unstable();
    }
    Standing { weight, tried, known, elapsed }
}

/// Endpoints with their index and their share in the next try.
pub(crate) fn targets(balancer: Option<&Balancer>, tried: &Tried, avoid: Avoid) -> Vec<(usize, Target, f64)> {
    let Some(balancer) = balancer else { return vec![(0, Target::Original, 1.0)] };
    let shares = balancer.shares_again(tried, avoid);
    let list = balancer.endpoints().iter().enumerate().zip(shares).filter(|(_, share)| *share > 0.0);
    list.map(|((index, endpoint), share)| (index, Target::Endpoint(endpoint.clone()), share)).collect()
}

/// The answer towards the downstream of a try that is the last.
fn ended(arrival: Arrival, exchange: &Exchange<'_>, number: u32, flags: &[&'static str], elapsed: Duration) -> Arrival {
    let grpc = exchange.request.grpc;
    let timed_out = flags.contains(&"UT");
    let mut last = if arrival.failure.is_some() || timed_out {
        let mut made = Arrival::by_proxy(if timed_out { 504 } else { 503 }, flags, grpc);
        made.not_delivered = arrival.not_delivered;
        made.program_reset = arrival.failure == Some(Failure::Closed) && arrival.outcome.to.is_some();
        made.decided_by = arrival.decided_by;
        made.notes = arrival.notes;
        // A program that broke off, or is late, has the request all the same.
        made.outcome.to = arrival.outcome.to;
        made.outcome.via = arrival.outcome.via;
        made.outcome.tls = arrival.outcome.tls;
        made.outcome.seen_as = arrival.outcome.seen_as;
        made.outcome.received = arrival.outcome.received;
        made
    } else {
        let mut passed = arrival;
        passed.outcome.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        passed
    };
    last.outcome.attempts = Some(number);
    last.delay = elapsed;
    respond(exchange, &mut last);
    last
}

/// How a try travels.
#[derive(Clone, Copy)]
pub(crate) struct Hop {
    /// To another proxy of the mesh.
    mesh: bool,
    pub tls: bool,
    /// Through a gateway, or to another cluster.
    far: bool,
}

impl Hop {
    pub fn to(cluster: &EnvoyCluster, target: &Target, own: &ClusterId) -> Self {
        match target {
            Target::Original => Self { mesh: false, tls: false, far: false },
            Target::Endpoint(endpoint) => Self {
                mesh: cluster.is_mesh_tls(endpoint),
                tls: matches!(cluster.transport_of(endpoint), UpstreamTransport::Tls(_)),
                far: endpoint.gateway_hop().is_some()
                    || endpoint.cluster().is_some_and(|cluster| **cluster != *own.as_str()),
            },
        }
    }
}

fn retry_kind(failure: Failure, tls: bool) -> (RetryKind, &'static str) {
    match failure {
        Failure::Refused | Failure::Timeout => (RetryKind::ConnectFailure, "UF"),
        // Closed inside the handshake: no connection came to be.
        Failure::Closed if tls => (RetryKind::ConnectFailure, "UF"),
        Failure::Closed => (RetryKind::ResetBeforeHead, "UC"),
    }
}
