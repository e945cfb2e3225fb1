//! Faults of routes: another order, another match, another destination, other words on the way.

use super::{CLIENT, Fault, WEB};
use crate::edit::{forget_name, inside, message, routes, virtual_host};
use fairlead_proto::envoy::listener::Listener;
use fairlead_proto::envoy::network::tcp_proxy::{TcpProxy, tcp_proxy::ClusterSpecifier as TcpTarget};
use fairlead_proto::envoy::protobuf::UInt32Value;
use fairlead_proto::envoy::route::route_action::ClusterSpecifier;
use fairlead_proto::envoy::route::route_match::PathSpecifier;
use fairlead_proto::envoy::route::weighted_cluster::ClusterWeight;
use fairlead_proto::envoy::route::{Route, RouteAction};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the weights of a split are swapped",
        at: CLIENT,
        caught_by: "weights are kept",
        alter: |resource| routes(resource, WEB, |_, action| weights(action, |all| all.reverse())),
    },
    Fault {
        name: "the weight of a split is all on one side",
        at: CLIENT,
        caught_by: "weights are kept",
        alter: |resource| {
            routes(resource, WEB, |_, action| weights(action, |all| (all[0], all[1]) = (all.iter().sum(), 0)))
        },
    },
    Fault {
        name: "the order of routes is turned round",
        at: CLIENT,
        caught_by: "a rule by header comes before all others",
        alter: |resource| {
            virtual_host(resource, WEB, |host| {
                host.routes.reverse();
                host.routes.len()
            })
        },
    },
    Fault {
        name: "a header match is ignored",
        at: CLIENT,
        caught_by: "what no other rule takes is the last rule's",
        alter: |resource| routes(resource, WEB, |route, _| of_match(route, |found| found.headers.clear())),
    },
    Fault {
        name: "a prefix is read as the whole path",
        at: CLIENT,
        caught_by: "a prefix covers what is below it",
        alter: |resource| {
            routes(resource, WEB, |route, _| {
                let Some(found) = &mut route.r#match else { return 0 };
                match found.path_specifier.clone() {
                    Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix))
                        if prefix != "/" =>
                    {
                        found.path_specifier = Some(PathSpecifier::Path(prefix));
                        1
                    }
                    _ => 0,
                }
            })
        },
    },
    Fault {
        name: "a header is not added",
        at: CLIENT,
        caught_by: "headers are added and removed",
        alter: |resource| routes(resource, WEB, |route, _| std::mem::take(&mut route.request_headers_to_add).len()),
    },
    Fault {
        name: "a header is not removed",
        at: CLIENT,
        caught_by: "headers are added and removed",
        alter: |resource| routes(resource, WEB, |route, _| std::mem::take(&mut route.request_headers_to_remove).len()),
    },
    Fault {
        name: "a path is not rewritten",
        at: CLIENT,
        caught_by: "a path is rewritten",
        alter: |resource| {
            routes(resource, WEB, |_, action| {
                let found = usize::from(action.regex_rewrite.take().is_some());
                found + std::mem::take(&mut action.prefix_rewrite).len()
            })
        },
    },
    Fault {
        name: "a timeout is forgotten",
        at: CLIENT,
        caught_by: "a timeout ends a slow call",
        alter: |resource| {
            routes(resource, WEB, |_, action| {
                let bounded = action.timeout.as_ref().is_some_and(|limit| limit.seconds > 0 || limit.nanos > 0);
                if bounded {
                    action.timeout = Some(Default::default());
                }
                usize::from(bounded)
            })
        },
    },
    Fault {
        name: "retries are forgotten",
        at: CLIENT,
        caught_by: "a failure is tried again elsewhere",
        alter: |resource| routes(resource, WEB, |_, action| usize::from(action.retry_policy.take().is_some())),
    },
    Fault {
        name: "gRPC goes to another Envoy cluster",
        at: CLIENT,
        caught_by: "gRPC goes where its rule says",
        alter: |resource| {
            routes(resource, WEB, |_, action| match &mut action.cluster_specifier {
                Some(ClusterSpecifier::Cluster(name)) if name.starts_with("outbound|7070|v1|") => {
                    *name = name.replace("|v1|", "||");
                    1
                }
                _ => 0,
            })
        },
    },
    Fault {
        name: "TCP goes to another Envoy cluster",
        at: CLIENT,
        caught_by: "TCP goes where it was going",
        alter: |resource| {
            message(resource, |listener: &mut Listener| {
                let filters = listener.filter_chains.iter_mut().flat_map(crate::edit::filters);
                filters.map(|filter| inside(filter, misdirect)).sum()
            })
        },
    },
    Fault {
        name: "a name is missing in the name table",
        at: CLIENT,
        caught_by: "a name that exists resolves",
        alter: |resource| forget_name(resource, "other.app.svc.cluster.local"),
    },
];

fn weights(action: &mut RouteAction, change: impl Fn(&mut Vec<u32>)) -> usize {
    let Some(ClusterSpecifier::WeightedClusters(split)) = &mut action.cluster_specifier else { return 0 };
    let mut all: Vec<u32> = split.clusters.iter().map(weight).collect();
    change(&mut all);
    for (cluster, weight) in split.clusters.iter_mut().zip(all) {
        cluster.weight = Some(UInt32Value { value: weight });
    }
    split.clusters.len()
}

fn weight(cluster: &ClusterWeight) -> u32 {
    cluster.weight.as_ref().map_or(0, |weight| weight.value)
}

fn of_match(route: &mut Route, change: impl Fn(&mut fairlead_proto::envoy::route::RouteMatch)) -> usize {
    let Some(found) = route.r#match.as_mut().filter(|found| !found.headers.is_empty()) else { return 0 };
    change(found);
    1
}

fn misdirect(proxy: &mut TcpProxy) -> usize {
    match &mut proxy.cluster_specifier {
        Some(TcpTarget::Cluster(name)) if name.starts_with("outbound|5433||other.") => {
            *name = "outbound|5432||guarded.app.svc.cluster.local".to_owned();
            1
        }
        _ => 0,
    }
}
