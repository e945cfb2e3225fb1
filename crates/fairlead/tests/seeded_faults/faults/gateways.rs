//! Faults of gateways, between clusters and at the edge.

use super::Fault;
use crate::edit::{filters, inside, listener, message};
use fairlead_proto::envoy::network::tcp_proxy::{TcpProxy, tcp_proxy::ClusterSpecifier};
use fairlead_proto::envoy::route::RouteConfiguration;

const WEST: &str = "west/fairlead-system/east-west";
const LISTENER: &str = "0.0.0.0_15443";
const SECOND: &str = "second.app.svc.cluster.local";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "a service that nobody exports is served",
        at: WEST,
        caught_by: "a gateway leads to nothing that is not exported",
        alter: |resource| {
            listener(resource, LISTENER, |listener| {
                let name = format!("outbound_.80_._.{SECOND}");
                let chains = listener.filter_chains.iter_mut().filter_map(|chain| chain.filter_chain_match.as_mut());
                let meant = chains.filter(|taken| taken.server_names.contains(&name));
                let hidden = name.replace("second", "hidden");
                meant.map(|taken| taken.server_names.push(hidden.clone())).count()
            })
        },
    },
    Fault {
        name: "the way to one endpoint leads to another",
        at: WEST,
        // Of a call that makes a connection of its own: the callers' proxies go on using theirs, which led right.
        caught_by: "a gateway leads to what the server name says",
        alter: |resource| {
            listener(resource, LISTENER, |listener| {
                let Some(other) = listener.filter_chains.iter_mut().find_map(|chain| to(chain, "first.")) else {
                    return 0;
                };
                let chains = listener.filter_chains.iter_mut().filter(|chain| chain.name.contains(SECOND));
                chains.flat_map(filters).map(|filter| inside(filter, |proxy| lead(proxy, &other))).sum()
            })
        },
    },
    Fault {
        name: "a host is served under every name",
        at: "east/app/ingress-0",
        caught_by: "and by no other name",
        alter: |resource| {
            message(resource, |config: &mut RouteConfiguration| {
                let served = config.virtual_hosts.iter_mut().filter(|h| h.domains.iter().any(|d| d.contains("faults")));
                served.map(|host| host.domains = vec!["*".to_owned()]).count()
            })
        },
    },
];

/// The Envoy cluster of a chain for one endpoint of a service.
fn to(chain: &mut fairlead_proto::envoy::listener::FilterChain, service: &str) -> Option<String> {
    let meant = chain.name.contains("_.ep-") && chain.name.contains(&format!("_.{service}"));
    meant.then(|| chain.name.clone())
}

fn lead(proxy: &mut TcpProxy, cluster: &str) -> usize {
    proxy.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster.to_owned()));
    1
}
