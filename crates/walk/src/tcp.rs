//! An opaque connection inside a proxy.
//!
//! Invariant: what arrives at the other end is what was sent: a proxy of bytes changes nothing but the path.

use crate::arrival::{Arrival, Failure, merged};
use crate::http::NEGLIGIBLE;
use crate::inbound::Accepted;
use crate::tries::{Hop, Standing, follow_up, targets};
use crate::world::World;
use fairlead_calls::{DecidedBy, Outcome};
use fairlead_engine::balance::Avoid;
use fairlead_engine::listener::{TcpBackend, TcpProxy};
use fairlead_engine::{Snapshot, decide};
use fairlead_model::mesh::Workload;
use std::collections::BTreeMap;
use std::time::Duration;

impl World {
    pub(crate) fn proxy_tcp(&self, accepted: &Accepted<'_>, proxy: &TcpProxy, depth: u8) -> Vec<Arrival> {
        if let Err(denied) = accepted.authorize_connection() {
            return vec![self.denied(accepted, &denied, None)];
        }
        let mut all = Vec::new();
        for (backend, share) in proxy.backends.iter().zip(self.tcp_shares(accepted.workload, accepted.snapshot, proxy))
        {
            if share > 0.0 {
                let arrivals = self.connect(accepted, proxy, backend, depth, 1, Standing::first());
                all.extend(arrivals.into_iter().map(|a| a.scaled(share)));
            }
        }
        if let Some(origin) = &accepted.chain.origin
            && accepted.is_first()
        {
            for arrival in &mut all {
                arrival.outcome.route = Some(origin.to_string());
                arrival.decided_by.insert(0, DecidedBy::from(origin));
            }
        }
        merged(all)
    }

    /// What each backend of a TCP proxy gets while some are wholly down.
    pub(crate) fn tcp_shares(&self, workload: &Workload, snapshot: &Snapshot, proxy: &TcpProxy) -> Vec<f64> {
        let from = &workload.key.cluster;
        decide::tcp_backend_shares(proxy, |backend: &TcpBackend| self.is_usable(snapshot, from, &backend.cluster))
    }

    /// All ways in which the tries of a connection can go.
    fn connect(
        &self,
        accepted: &Accepted<'_>,
        proxy: &TcpProxy,
        backend: &TcpBackend,
        depth: u8,
        first: u32,
        standing: Standing,
    ) -> Vec<Arrival> {
        let (snapshot, from) = (accepted.snapshot, &accepted.workload.key.cluster);
        let Some(cluster) = snapshot.cluster(&backend.cluster) else {
            return vec![Arrival::reset(&["NC"])];
        };
        let balancer = self.balancer(snapshot, from, cluster);
        let limit = decide::connect_attempts(proxy, balancer.as_ref().map_or(1, |b| b.endpoints().len()));
        let mut level = vec![standing];
        let mut all = Vec::new();
        for number in first..=limit {
            let mut next: BTreeMap<Vec<(usize, bool)>, Standing> = BTreeMap::new();
            for standing in level {
                let used_up = balancer.as_ref().is_some_and(|b| b.is_used_up(&standing.tried));
                let more = |other: &TcpBackend| self.has_more(snapshot, from, &other.cluster, &standing.tried);
                let siblings = if used_up { decide::tcp_sibling_shares(proxy, backend, more) } else { Vec::new() };
                if !siblings.is_empty() {
                    for (sibling, share) in siblings {
                        let there = Standing { weight: standing.weight * share, known: Vec::new(), ..standing.clone() };
                        all.extend(self.connect(accepted, proxy, sibling, depth, number, there));
                    }
                    continue;
                }
                let targets = targets(balancer.as_ref(), &standing.tried, Avoid::Elsewhere);
                if targets.is_empty() {
                    let mut arrival = Arrival::reset(&["UH"]);
                    arrival.decided_by.extend(cluster.origin.iter().map(DecidedBy::from));
                    arrival.outcome.attempts = accepted.is_first().then_some(number - 1);
                    all.push(arrival.scaled(standing.weight));
                }
                for (index, target, share) in targets {
                    let wary = balancer.as_ref().is_some_and(|b| standing.doubts_the_way(b, &target));
                    let tls = Hop::to(cluster, &target, from).tls;
                    for arrival in self.attempt(accepted, cluster, &target, &accepted.wire.payload, depth, wary) {
                        let weight = standing.weight * share * arrival.share;
                        if weight < NEGLIGIBLE {
                            continue;
                        }
                        if number < limit && never_stood(&arrival, tls) {
                            let step = follow_up(&standing, index, &target, &arrival, weight, Duration::ZERO);
                            next.entry(step.known.clone()).and_modify(|same| same.weight += weight).or_insert(step);
                        } else {
                            all.push(last_try(accepted, arrival, number, tls).scaled_to(weight));
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
}

/// No connection came to be: nobody listened or answered, or the handshake was refused.
fn never_stood(arrival: &Arrival, tls: bool) -> bool {
    let failed = match arrival.failure {
        Some(Failure::Refused | Failure::Timeout) => true,
        Some(Failure::Closed) => tls,
        None => false,
    };
    failed && arrival.outcome.to.is_none()
}

/// What the sender sees of the try after which there is no other.
fn last_try(accepted: &Accepted<'_>, mut arrival: Arrival, number: u32, tls: bool) -> Arrival {
    // The gateway passes a refusal on as it came: the caller's proxy judges it. Others close.
    let keep = accepted.workload.gateway.is_some() && !accepted.terminated;
    if arrival.failure.is_some() && !keep {
        // A program that took the connection and cut it was reached.
        let reached = arrival.outcome.to.is_some();
        let flags: &[&'static str] = match reached {
            true => &[],
            false if never_stood(&arrival, tls) => &["UF", "URX"],
            false => &["UF"],
        };
        let mut cut = Arrival::reset(flags);
        if reached {
            cut.outcome = Outcome { status: cut.outcome.status, flags: Vec::new(), ..arrival.outcome };
        }
        arrival = Arrival { notes: std::mem::take(&mut arrival.notes), share: arrival.share, ..cut };
    }
    if accepted.is_first() {
        arrival.outcome.attempts = Some(number);
    }
    arrival
}
