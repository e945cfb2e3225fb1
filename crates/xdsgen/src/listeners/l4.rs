//! Where a connection goes: VirtualService `tcp` and `tls` rules as filter chains.
//!
//! Source: Istio: rules in written order, all static filters ANDed, the first rule without a runtime condition ends the
//! list; a connection that no rule takes goes to the service itself.

use super::input::{Chain, ChainMatch, Serve, TcpServing};
use crate::generate::Plan;
use crate::names::ResourceName;
use crate::routes::{self, GatewayServer};
use crate::scope::Scope;
use fairlead_model::matching::selects;
use fairlead_model::route::{Backend, GatewayRef, L4Match, RouteSet};
use fairlead_model::settings::Profile;
use fairlead_model::{ClientKind, Origin};

/// For whom and on which port rules are read.
pub struct Context<'s, 'a> {
    pub scope: &'s Scope<'a>,
    /// Service port that the rules' `port` is compared with.
    pub port: u16,
    pub gateway: Option<GatewayServer<'a>>,
}

/// Chains of one listener, `prefix` naming them, and whether some chain takes what the others leave.
pub struct Chains {
    pub chains: Vec<Chain>,
    pub complete: bool,
    pub origins: Vec<Origin>,
}

/// Chains of `tcp` rules.
pub fn tcp(context: &Context<'_, '_>, set: &RouteSet, prefix: &str, plan: &mut Plan) -> Chains {
    let rules = set.tcp.iter().map(|rule| (&rule.origin, &rule.matches, &rule.backends));
    chains(context, set, rules.collect(), prefix, plan)
}

/// Chains of `tls` rules, told apart by SNI.
pub fn tls(context: &Context<'_, '_>, set: &RouteSet, prefix: &str, plan: &mut Plan) -> Chains {
    let rules = set.tls.iter().map(|rule| (&rule.origin, &rule.matches, &rule.backends));
    chains(context, set, rules.collect(), prefix, plan)
}

type Rule<'r> = (&'r Origin, &'r Vec<L4Match>, &'r Vec<Backend>);

fn chains(context: &Context<'_, '_>, set: &RouteSet, rules: Vec<Rule<'_>>, prefix: &str, plan: &mut Plan) -> Chains {
    let mut found = Chains { chains: Vec::new(), complete: false, origins: Vec::new() };
    let any = L4Match::default();
    for (index, (origin, matches, backends)) in rules.into_iter().enumerate() {
        let matches: Vec<&L4Match> = if matches.is_empty() { vec![&any] } else { matches.iter().collect() };
        for (nth, wanted) in matches.into_iter().enumerate() {
            if !applies(context, set, wanted) {
                continue;
            }
            let when = ChainMatch {
                ranges: wanted.destination_subnets.clone(),
                // Envoy has no bare `*`: every name is no condition on the name.
                server_names: wanted.sni_hosts.iter().filter(|h| *h != "*").cloned().collect(),
                transport: (!wanted.sni_hosts.is_empty()).then_some("tls"),
                ..Default::default()
            };
            // Of equal conditions Envoy takes one chain only: the first rule's.
            if found.chains.iter().any(|c| c.when == when) {
                continue;
            }
            let Some(serving) = serving(context, backends, plan) else { continue };
            found.complete |= when.is_any();
            found.origins.push(origin.clone());
            let name = format!("{prefix}-{index}-{nth}");
            let origin = Some(origin.clone());
            found.chains.push(Chain { name, when, tls: None, guarded: false, serve: Serve::Tcp(serving), origin });
            if found.complete {
                return found;
            }
        }
    }
    found
}

fn applies(context: &Context<'_, '_>, set: &RouteSet, wanted: &L4Match) -> bool {
    let scope = context.scope;
    let gateways = if wanted.gateways.is_empty() { &set.gateways } else { &wanted.gateways };
    let here = match &context.gateway {
        None => gateways.contains(&GatewayRef::Mesh),
        Some(server) => gateways.contains(&server.reference()),
    };
    here && wanted.port.is_none_or(|port| port == context.port)
        && wanted.source_namespace.as_ref().is_none_or(|n| n == scope.namespace())
        && selects(&wanted.source_labels, &scope.labels)
}

fn serving(context: &Context<'_, '_>, backends: &[Backend], plan: &mut Plan) -> Option<TcpServing> {
    let to: Vec<(ResourceName, u32)> = backends
        .iter()
        .filter(|b| b.weight > 0 || backends.len() == 1)
        .map(|b| (routes::backend(context.scope, b, context.port), b.weight.max(1)))
        .collect();
    let first = &to.first()?.0;
    let stat_prefix = first.to_string();
    let (idle_timeout, max_duration) = timeouts(context.scope, first);
    let siblings = routes::help_each_other(context.scope, backends);
    let to = if siblings && context.scope.proxy.client != ClientKind::Fairlead {
        let (names, weights): (Vec<_>, Vec<_>) = to.into_iter().unzip();
        routes::aggregated(&names).into_iter().zip(weights).collect()
    } else {
        to
    };
    plan.wanted.extend(to.iter().map(|(name, _)| name.clone()));
    let attempts = attempts(context.scope);
    Some(TcpServing { stat_prefix, to, idle_timeout, max_duration, attempts, siblings })
}

/// The service itself.
pub fn direct(
    scope: &Scope<'_>,
    name: impl Into<String>,
    when: ChainMatch,
    to: ResourceName,
    plan: &mut Plan,
) -> Chain {
    let mut chain = Chain::tcp(name, when, to.clone());
    if let Serve::Tcp(serving) = &mut chain.serve {
        (serving.idle_timeout, serving.max_duration) = timeouts(scope, &to);
        serving.attempts = attempts(scope);
    }
    plan.wanted.insert(to);
    chain
}

/// Nothing was sent before a connection stands, so another endpoint can always be tried; Istio tries one.
fn attempts(scope: &Scope<'_>) -> u32 {
    match scope.mesh.settings.profile {
        Profile::Fairlead => 4,
        Profile::Istio => 1,
    }
}

type Timeouts = (Option<std::time::Duration>, Option<std::time::Duration>);

/// DestinationRule `connectionPool.tcp`; of several destinations the first one's rule.
fn timeouts(scope: &Scope<'_>, to: &ResourceName) -> Timeouts {
    let (host, port, subset) = match to {
        ResourceName::Outbound { port, subset, host } => (host, *port, subset.as_deref()),
        ResourceName::Sni { port, host, .. } => (host, *port, None),
        _ => return (None, None),
    };
    let blocks = scope.services.get(host.as_str()).and_then(|s| scope.policy(s)).and_then(|p| p.blocks(subset, port));
    blocks.map_or((None, None), |b| (b.pool.tcp_idle_timeout, b.pool.max_connection_duration))
}
