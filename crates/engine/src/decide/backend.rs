//! Which backend of a route or TCP proxy takes a request, and what share each gets.
//!
//! Invariant: `choose` picks each backend with exactly the probability that `shares` says.

use crate::listener::{TcpBackend, TcpProxy};
use crate::route::{Backend, RoutePlan};

/// What shares are made of: backends of HTTP routes and of TCP proxies.
trait Sharing {
    fn weight(&self) -> u32;
    /// Empty: no sibling of anything.
    fn host(&self) -> &str;
    fn cluster(&self) -> &str;
}

impl Sharing for Backend {
    fn weight(&self) -> u32 {
        self.weight
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn cluster(&self) -> &str {
        &self.cluster
    }
}

impl Sharing for TcpBackend {
    fn weight(&self) -> u32 {
        self.weight
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn cluster(&self) -> &str {
        &self.cluster
    }
}

/// Share of each backend, in the order of `plan.backends`; they sum to 1.
///
/// `available` says whether an Envoy cluster has an endpoint that may be chosen. Where the plan has `sibling_failover`, the
/// share of one that has none goes to available backends of the same host, by weight; where there are none it stays, and
/// its requests fail.
pub fn backend_shares(plan: &RoutePlan, available: impl Fn(&Backend) -> bool) -> Vec<f64> {
    shares(&plan.backends, plan.total_weight, plan.sibling_failover, available)
}

/// The backend that `random` falls on; see [`backend_shares`].
pub fn choose_backend(plan: &RoutePlan, random: u64, available: impl Fn(&Backend) -> bool) -> &Backend {
    choose(&plan.backends, plan.total_weight, plan.sibling_failover, random, available)
}

/// Where the tries of a request go on whose backend has no endpoint left that was not tried: the siblings that may be chosen, and the
/// share of each. Empty where the plan has no `sibling_failover`, or there is none: they stay.
pub fn sibling_shares<'p>(
    plan: &'p RoutePlan,
    of: &Backend,
    available: impl Fn(&Backend) -> bool,
) -> Vec<(&'p Backend, f64)> {
    siblings(&plan.backends, plan.sibling_failover, of, available)
}

/// Where the tries of a connection go, as [`sibling_shares`].
pub fn tcp_sibling_shares<'p>(
    proxy: &'p TcpProxy,
    of: &TcpBackend,
    available: impl Fn(&TcpBackend) -> bool,
) -> Vec<(&'p TcpBackend, f64)> {
    siblings(&proxy.backends, proxy.sibling_failover, of, available)
}

fn siblings<'p, B: Sharing>(
    backends: &'p [B],
    may_move: bool,
    of: &B,
    available: impl Fn(&B) -> bool,
) -> Vec<(&'p B, f64)> {
    let may = |other: &&B| may_move && other.cluster() != of.cluster() && is_sibling(of, *other) && available(other);
    let siblings: Vec<&B> = backends.iter().filter(may).collect();
    let total: f64 = siblings.iter().map(|other| f64::from(other.weight())).sum();
    siblings.into_iter().map(|other| (other, f64::from(other.weight()) / total)).collect()
}

/// Share of each backend of a TCP proxy, as [`backend_shares`].
pub fn tcp_backend_shares(proxy: &TcpProxy, available: impl Fn(&TcpBackend) -> bool) -> Vec<f64> {
    shares(&proxy.backends, proxy.total_weight, proxy.sibling_failover, available)
}

/// The backend of a TCP proxy that `random` falls on; see [`tcp_backend_shares`].
pub fn choose_tcp_backend(proxy: &TcpProxy, random: u64, available: impl Fn(&TcpBackend) -> bool) -> &TcpBackend {
    choose(&proxy.backends, proxy.total_weight, proxy.sibling_failover, random, available)
}

/// Tries that a connection is given: nothing of its bytes was sent, so each is safe; one at the same endpoint would bring nothing new.
/// At most `max_connect_attempts` (Envoy's TCP proxy; 4 in profile fairlead, 1 in profile istio).
pub fn connect_attempts(proxy: &TcpProxy, endpoints: usize) -> u32 {
    if proxy.sibling_failover && proxy.backends.len() > 1 {
        return proxy.max_connect_attempts.max(1);
    }
    proxy.max_connect_attempts.min(u32::try_from(endpoints).unwrap_or(u32::MAX)).max(1)
}

fn shares<B: Sharing>(backends: &[B], total: u64, may_move: bool, available: impl Fn(&B) -> bool) -> Vec<f64> {
    let total = total as f64;
    let mut shares: Vec<f64> = backends.iter().map(|backend| f64::from(backend.weight()) / total).collect();
    if !may_move || backends.len() < 2 {
        return shares;
    }
    for (index, backend) in backends.iter().enumerate() {
        if backend.weight() == 0 || available(backend) {
            continue;
        }
        let siblings = sibling_weight(backends, index, &available);
        if siblings == 0 {
            continue;
        }
        let lost = f64::from(backend.weight()) / total;
        shares[index] = 0.0;
        for (other, sibling) in backends.iter().enumerate() {
            if other != index && is_sibling(backend, sibling) && available(sibling) {
                shares[other] += lost * f64::from(sibling.weight()) / siblings as f64;
            }
        }
    }
    shares
}

fn choose<B: Sharing>(backends: &[B], total: u64, may_move: bool, random: u64, available: impl Fn(&B) -> bool) -> &B {
    let (index, rest) = by_weight(backends, random, total);
    let backend = &backends[index];
    // One backend needs no look at availability.
    if !may_move || backends.len() < 2 || available(backend) {
        return backend;
    }
    let siblings = sibling_weight(backends, index, &available);
    if siblings == 0 {
        return backend;
    }
    // `rest` is uniform and independent of `index`, so it can choose among the siblings.
    let mut left = rest % siblings;
    for (other, sibling) in backends.iter().enumerate() {
        if other == index || !is_sibling(backend, sibling) || !available(sibling) {
            continue;
        }
        match left.checked_sub(u64::from(sibling.weight())) {
            None => return sibling,
            Some(rest) => left = rest,
        }
    }
    backend
}

fn is_sibling<B: Sharing>(a: &B, b: &B) -> bool {
    !a.host().is_empty() && a.host() == b.host() && b.weight() > 0
}

fn sibling_weight<B: Sharing>(backends: &[B], index: usize, available: &impl Fn(&B) -> bool) -> u64 {
    let own = &backends[index];
    let siblings = backends.iter().enumerate().filter(|(other, _)| *other != index);
    siblings.filter(|(_, b)| is_sibling(own, *b) && available(b)).map(|(_, b)| u64::from(b.weight())).sum()
}

/// Index by weight, and what is left of the randomness.
fn by_weight<B: Sharing>(backends: &[B], random: u64, total: u64) -> (usize, u64) {
    let total = total.max(1);
    let mut left = random % total;
    for (index, backend) in backends.iter().enumerate() {
        match left.checked_sub(u64::from(backend.weight())) {
            None => return (index, random / total),
            Some(rest) => left = rest,
        }
    }
    (0, random / total)
}
