//! An opaque connection inside a proxy.
//!
//! Invariant: what arrives at the other end is what was sent: a proxy of bytes changes nothing but the path.

use crate::arrival::{Arrival, merged};
use crate::inbound::Accepted;
use crate::upstream::Target;
use crate::world::World;
use fairlead_calls::{DecidedBy, Outcome};
use fairlead_engine::listener::{TcpBackend, TcpProxy};
use fairlead_engine::{Snapshot, decide};
use fairlead_model::mesh::Workload;

impl World {
    pub(crate) fn proxy_tcp(&self, accepted: &Accepted<'_>, proxy: &TcpProxy, depth: u8) -> Vec<Arrival> {
        if let Err(denied) = accepted.authorize_connection() {
            return vec![self.denied(accepted, &denied, None)];
        }
        let mut all = Vec::new();
        for (backend, share) in proxy.backends.iter().zip(self.tcp_shares(accepted.workload, accepted.snapshot, proxy))
        {
            if share > 0.0 {
                let arrivals = self.connect(accepted, &backend.cluster, depth);
                all.extend(arrivals.into_iter().map(|a| a.scaled(share)));
            }
        }
        if let Some(origin) = &accepted.chain.origin
            && accepted.outbound
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
        decide::tcp_backend_shares(proxy, |backend: &TcpBackend| {
            let cluster = snapshot.cluster(&backend.cluster);
            cluster.is_some_and(|c| self.balancer(snapshot, from, c).is_none_or(|b| b.is_usable()))
        })
    }

    fn connect(&self, accepted: &Accepted<'_>, cluster: &str, depth: u8) -> Vec<Arrival> {
        let Some(cluster) = accepted.snapshot.cluster(cluster) else {
            return vec![Arrival::reset(&["NC"])];
        };
        let payload = &accepted.wire.payload;
        let targets: Vec<(Target, f64)> =
            match self.balancer(accepted.snapshot, &accepted.workload.key.cluster, cluster) {
                None => vec![(Target::Original, 1.0)],
                Some(balancer) => balancer
                    .endpoints()
                    .iter()
                    .zip(balancer.shares())
                    .filter(|(_, share)| *share > 0.0)
                    .map(|(endpoint, share)| (Target::Endpoint(endpoint.clone()), share))
                    .collect(),
            };
        if targets.is_empty() {
            let mut arrival = Arrival::reset(&["UH"]);
            arrival.decided_by.extend(cluster.origin.iter().map(DecidedBy::from));
            return vec![arrival];
        }
        let mut all = Vec::new();
        for (target, share) in targets {
            for mut arrival in self.attempt(accepted, cluster, &target, payload, depth, false) {
                if let Some(failure) = arrival.failure {
                    // The gateway passes a refusal on as it came: the caller's proxy judges it. Others close.
                    let keep = accepted.workload.gateway.is_some() && !accepted.terminated;
                    if !keep {
                        // A program that took the connection and cut it was reached.
                        let reached = arrival.outcome.to.is_some();
                        let mut cut = Arrival::reset(if reached { &[] } else { &["UF"] });
                        if reached {
                            cut.outcome = Outcome { status: cut.outcome.status, flags: Vec::new(), ..arrival.outcome };
                        }
                        arrival = Arrival { notes: std::mem::take(&mut arrival.notes), share: arrival.share, ..cut };
                    } else {
                        arrival.failure = Some(failure);
                    }
                }
                if accepted.outbound {
                    arrival.outcome.attempts = Some(1);
                }
                all.push(arrival.scaled(share));
            }
        }
        merged(all)
    }
}
