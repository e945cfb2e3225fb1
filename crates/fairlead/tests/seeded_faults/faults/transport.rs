//! Faults of a caller's sidecar on the wire: plaintext, another server name, another identity.

use super::{CLIENT, Fault, WEB};
use crate::edit::{cluster, each_endpoint, inside, say};
use fairlead_proto::envoy::cluster::Cluster;
use fairlead_proto::envoy::core::transport_socket::ConfigType;
use fairlead_proto::envoy::protobuf::Any;
use fairlead_proto::envoy::tls::UpstreamTlsContext;
use fairlead_proto::envoy::tls::common_tls_context::ValidationContextType;

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "a hop is plaintext",
        at: CLIENT,
        caught_by: "what no other rule takes is the last rule's",
        alter: |resource| {
            cluster(resource, &format!("outbound|80|v1|{WEB}"), |cluster| {
                cluster.transport_socket = None;
                cluster.transport_socket_matches.clear();
            })
        },
    },
    Fault {
        name: "the server name is an endpoint's that does not exist",
        at: CLIENT,
        caught_by: "a service of another cluster is reached through its gateway",
        alter: |resource| {
            each_endpoint(resource, "outbound|80||first.app.svc.cluster.local", |_, endpoint| {
                endpoint.hostname = "outbound_.80_.ep-0000000000000000_.first.app.svc.cluster.local".to_owned();
                1
            })
        },
    },
    Fault {
        name: "the identity expected of a callee is another's",
        at: CLIENT,
        caught_by: "what no other rule takes is the last rule's",
        alter: |resource| {
            each_endpoint(resource, &format!("outbound|80|v1|{WEB}"), |host, _| {
                say(host, ("fairlead", "identity"), "spiffe://east.faults.example/ns/app/sa/other")
            })
        },
    },
    Fault {
        name: "names that a callee must prove are not asked for",
        at: CLIENT,
        caught_by: "a callee that cannot prove the identity wanted gets no request",
        alter: |resource| {
            cluster(resource, "outbound|80||mistaken.app.svc.cluster.local", |cluster| {
                for context in contexts(cluster) {
                    inside(context, accept_anyone);
                }
            })
        },
    },
    Fault {
        name: "the cluster of an endpoint is told wrongly",
        at: "east/app/stranger-0",
        // Where no program answers, the caller's record alone tells who was tried, and so who denied it.
        caught_by: "a TCP connection of a stranger is cut",
        alter: |resource| {
            each_endpoint(resource, "outbound|5432||guarded.app.svc.cluster.local", |host, _| {
                say(host, ("istio", "workload"), "guarded-0;app;guarded;latest;west")
            })
        },
    },
];

fn contexts(cluster: &mut Cluster) -> impl Iterator<Item = &mut Any> {
    let matches = cluster.transport_socket_matches.iter_mut().filter_map(|one| one.transport_socket.as_mut());
    let sockets = matches.chain(cluster.transport_socket.as_mut());
    sockets.filter_map(|socket| match &mut socket.config_type {
        Some(ConfigType::TypedConfig(packed)) => Some(packed),
        _ => None,
    })
}

fn accept_anyone(context: &mut UpstreamTlsContext) -> usize {
    let validation = context.common_tls_context.as_mut().and_then(|common| common.validation_context_type.as_mut());
    let Some(ValidationContextType::CombinedValidationContext(combined)) = validation else { return 0 };
    combined.default_validation_context = None;
    1
}
