//! The generator of listeners: a function of [`ListenerInput`] alone.

use super::http::{access_log, connection_manager};
use super::input::{Bind, Chain, ChainMatch, ListenerInput, Serve, TcpServing};
use crate::metadata;
use crate::rbac::{self, Rules};
use crate::wire::{bool_value, cidr, duration, listener_filter, network_filter, socket_address, u32_value};
use fairlead_model::ClientKind;
use fairlead_model::security::Action;
use fairlead_proto::any::pack;
use fairlead_proto::envoy::listener as el;
use fairlead_proto::envoy::listener_filter::{http_inspector, tls_inspector};
use fairlead_proto::envoy::network::{rbac as network_rbac, tcp_proxy};
use fairlead_proto::envoy::{core, types};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub fn listener(input: &ListenerInput) -> el::Listener {
    let direction = if input.inbound { core::TrafficDirection::Inbound } else { core::TrafficDirection::Outbound };
    let mut listener = el::Listener {
        name: input.name.to_string(),
        traffic_direction: direction as i32,
        filter_chains: input.chains.iter().map(|c| chain(input, c)).collect(),
        default_filter_chain: input.default.as_ref().map(|c| chain(input, c)),
        ..Default::default()
    };
    match input.bind {
        Bind::Captured { port } => {
            listener.address = socket_address(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            listener.use_original_dst = bool_value(true);
        }
        Bind::Virtual { address, port } => {
            listener.address = socket_address(address, port);
            listener.bind_to_port = bool_value(false);
        }
        Bind::Socket { address, port } => listener.address = socket_address(address, port),
        Bind::Api => return api(input),
        Bind::Internal => {
            listener.listener_specifier = Some(el::listener::ListenerSpecifier::InternalListener(Default::default()));
            listener.traffic_direction = core::TrafficDirection::Unspecified as i32;
        }
    }
    if input.inspect_tls {
        listener
            .listener_filters
            .push(listener_filter("envoy.filters.listener.tls_inspector", &tls_inspector::TlsInspector::default()));
    }
    if input.inspect_http {
        let mut filter =
            listener_filter("envoy.filters.listener.http_inspector", &http_inspector::HttpInspector::default());
        filter.filter_disabled = ports_predicate(&input.no_http_inspection);
        listener.listener_filters.push(filter);
    }
    if !listener.listener_filters.is_empty() {
        // Istio's protocolDetectionTimeout: 0 waits for the client's first bytes for as long as it takes.
        listener.listener_filters_timeout = duration(Duration::ZERO);
        listener.continue_on_listener_filters_timeout = true;
    }
    listener
}

/// gRPC reads nothing of a listener but this.
fn api(input: &ListenerInput) -> el::Listener {
    let manager = input.chains.first().and_then(|chain| match &chain.serve {
        Serve::Http(serving) => Some(pack(&connection_manager(input, chain.guarded, serving))),
        Serve::Tcp(_) => None,
    });
    el::Listener {
        name: input.name.to_string(),
        api_listener: Some(el::ApiListener { api_listener: manager }),
        ..Default::default()
    }
}

fn ports_predicate(ports: &[u16]) -> Option<el::ListenerFilterChainMatchPredicate> {
    use el::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let one = |port: &u16| el::ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(types::Int32Range {
            start: i32::from(*port),
            end: i32::from(*port) + 1,
        })),
    };
    match ports {
        [] => None,
        [port] => Some(one(port)),
        ports => Some(el::ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules: ports.iter().map(one).collect() })),
        }),
    }
}

fn chain(input: &ListenerInput, chain: &Chain) -> el::FilterChain {
    let mut filters = Vec::new();
    match &chain.serve {
        Serve::Tcp(serving) => {
            if chain.guarded {
                filters.extend(network_policies(input));
            }
            filters.push(network_filter("envoy.filters.network.tcp_proxy", &proxy(serving)));
        }
        Serve::Http(serving) => {
            let manager = connection_manager(input, chain.guarded, serving);
            filters.push(network_filter("envoy.filters.network.http_connection_manager", &manager));
        }
    }
    el::FilterChain {
        name: chain.name.clone(),
        filter_chain_match: (!chain.when.is_any()).then(|| matching(&chain.when)),
        filters,
        transport_socket: chain.tls.as_ref().map(|alpn| crate::tls::downstream(alpn)),
        metadata: (input.client == ClientKind::Fairlead).then(|| told(chain)).flatten(),
        ..Default::default()
    }
}

/// What our own proxy reads of a chain.
fn told(chain: &Chain) -> Option<core::Metadata> {
    let mut ours = metadata::fields([]);
    if let Some(origin) = &chain.origin {
        ours.fields.insert("origin".to_owned(), metadata::origin(origin));
    }
    if matches!(&chain.serve, Serve::Tcp(TcpServing { siblings: true, .. })) {
        ours.fields.insert("sibling_failover".to_owned(), metadata::yes());
    }
    metadata::metadata([(metadata::FAIRLEAD, ours)])
}

fn matching(when: &ChainMatch) -> el::FilterChainMatch {
    el::FilterChainMatch {
        destination_port: when.destination_port.and_then(|p| u32_value(p.into())),
        prefix_ranges: when.ranges.iter().filter_map(|range| cidr(range)).collect(),
        server_names: when.server_names.clone(),
        transport_protocol: when.transport.unwrap_or_default().to_owned(),
        application_protocols: when.alpn.clone(),
        ..Default::default()
    }
}

fn proxy(serving: &TcpServing) -> tcp_proxy::TcpProxy {
    use tcp_proxy::tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight};
    let to = match serving.to.as_slice() {
        [(one, _)] => ClusterSpecifier::Cluster(one.to_string()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|(name, weight)| ClusterWeight { name: name.to_string(), weight: *weight, ..Default::default() })
                .collect(),
        }),
    };
    tcp_proxy::TcpProxy {
        stat_prefix: serving.stat_prefix.clone(),
        idle_timeout: serving.idle_timeout.and_then(duration),
        max_downstream_connection_duration: serving.max_duration.and_then(duration),
        access_log: access_log(),
        max_connect_attempts: (serving.attempts > 1).then(|| u32_value(serving.attempts)).flatten(),
        cluster_specifier: Some(to),
        ..Default::default()
    }
}

fn network_policies(input: &ListenerInput) -> Vec<el::Filter> {
    let filter = |action: Action, prefix: &str| {
        let Rules { enforced, shadow } = rbac::rules(&input.policies, action, false)?;
        let config = network_rbac::Rbac {
            stat_prefix: "tcp.".to_owned(),
            rules: enforced,
            shadow_rules_stat_prefix: if shadow.is_some() { prefix.to_owned() } else { String::new() },
            shadow_rules: shadow,
            ..Default::default()
        };
        Some(network_filter("envoy.filters.network.rbac", &config))
    };
    let filters = [filter(Action::Deny, rbac::SHADOW_PREFIX_DENY), filter(Action::Allow, rbac::SHADOW_PREFIX_ALLOW)];
    filters.into_iter().flatten().collect()
}
