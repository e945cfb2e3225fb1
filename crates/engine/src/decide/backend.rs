//! Which backend of a route or TCP proxy takes a request, and what share each gets.
//!
//! Invariant: `choose` picks each backend with exactly the probability that `shares` says.

use crate::listener::{TcpBackend, TcpProxy};
use crate::route::{Backend, RoutePlan};

/// Share of each backend, in the order of `plan.backends`; they sum to 1.
///
/// `available` says whether an Envoy cluster has an endpoint that may be chosen. Where the plan has `sibling_failover`, the
/// share of one that has none goes to available backends of the same host, by weight; where there are none it stays, and
/// its requests fail.
pub fn backend_shares(plan: &RoutePlan, available: impl Fn(&Backend) -> bool) -> Vec<f64> {
    let total = plan.total_weight as f64;
    let mut shares: Vec<f64> = plan.backends.iter().map(|backend| f64::from(backend.weight) / total).collect();
    if !may_move(plan) {
        return shares;
    }
    for (index, backend) in plan.backends.iter().enumerate() {
        if backend.weight == 0 || available(backend) {
            continue;
        }
        let siblings = sibling_weight(plan, index, &available);
        if siblings == 0 {
            continue;
        }
        let lost = f64::from(backend.weight) / total;
        shares[index] = 0.0;
        for (other, sibling) in plan.backends.iter().enumerate() {
            if other != index && is_sibling(backend, sibling) && available(sibling) {
                shares[other] += lost * f64::from(sibling.weight) / siblings as f64;
            }
        }
    }
    shares
}

/// The backend that `random` falls on; see [`backend_shares`].
pub fn choose_backend(plan: &RoutePlan, random: u64, available: impl Fn(&Backend) -> bool) -> &Backend {
    let (index, rest) = by_weight(&plan.backends, random, plan.total_weight);
    let backend = &plan.backends[index];
    if !may_move(plan) || available(backend) {
        return backend;
    }
    let siblings = sibling_weight(plan, index, &available);
    if siblings == 0 {
        return backend;
    }
    // `rest` is uniform and independent of `index`, so it can choose among the siblings.
    let mut left = rest % siblings;
    for (other, sibling) in plan.backends.iter().enumerate() {
        if other == index || !is_sibling(backend, sibling) || !available(sibling) {
            continue;
        }
        match left.checked_sub(u64::from(sibling.weight)) {
            None => return sibling,
            Some(rest) => left = rest,
        }
    }
    backend
}

/// Share of each backend of a TCP proxy.
pub fn tcp_backend_shares(proxy: &TcpProxy) -> Vec<f64> {
    proxy.backends.iter().map(|backend| f64::from(backend.weight) / proxy.total_weight as f64).collect()
}

/// The backend of a TCP proxy that `random` falls on.
pub fn choose_tcp_backend(proxy: &TcpProxy, random: u64) -> &TcpBackend {
    proxy.choose(random)
}

/// Whether shares can move between backends at all; one backend needs no look at availability.
fn may_move(plan: &RoutePlan) -> bool {
    plan.sibling_failover && plan.backends.len() > 1
}

fn is_sibling(a: &Backend, b: &Backend) -> bool {
    !a.host.is_empty() && a.host == b.host && b.weight > 0
}

fn sibling_weight(plan: &RoutePlan, index: usize, available: &impl Fn(&Backend) -> bool) -> u64 {
    let own = &plan.backends[index];
    let siblings = plan.backends.iter().enumerate().filter(|(other, _)| *other != index);
    siblings.filter(|(_, b)| is_sibling(own, b) && available(b)).map(|(_, b)| u64::from(b.weight)).sum()
}

/// Index by weight, and what is left of the randomness.
fn by_weight(backends: &[Backend], random: u64, total: u64) -> (usize, u64) {
    let total = total.max(1);
    let mut left = random % total;
    for (index, backend) in backends.iter().enumerate() {
        match left.checked_sub(u64::from(backend.weight)) {
            None => return (index, random / total),
            Some(rest) => left = rest,
        }
    }
    (0, random / total)
}
