//! Faults of a caller's sidecar in its choice of endpoints.

use super::{CLIENT, Fault, WEB};
use crate::edit::{cluster, each_endpoint, endpoints, message};
use fairlead_proto::envoy::cluster::Cluster;
use fairlead_proto::envoy::endpoint::ClusterLoadAssignment;
use fairlead_proto::envoy::types::Percent;

const SPREAD: &str = "outbound|80||spread.app.svc.cluster.local";
const DEALT: &str = "outbound|80||dealt.app.svc.cluster.local";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the endpoints of the own locality are missing",
        at: CLIENT,
        caught_by: "the near cluster serves while it can",
        alter: |resource| {
            endpoints(resource, SPREAD, |all| {
                let before = all.endpoints.len();
                all.endpoints.retain(|locality| locality.priority > 0);
                all.endpoints.iter_mut().for_each(|locality| locality.priority = 0);
                before - all.endpoints.len()
            })
        },
    },
    Fault {
        name: "all localities are of one priority",
        at: CLIENT,
        caught_by: "the near cluster serves while it can",
        alter: |resource| endpoints(resource, SPREAD, one_priority),
    },
    Fault {
        name: "the weights of localities are swapped",
        at: CLIENT,
        caught_by: "shares of localities are kept",
        alter: |resource| {
            endpoints(resource, DEALT, |all| {
                let mut weights: Vec<_> = all.endpoints.iter().map(|l| l.load_balancing_weight).collect();
                weights.reverse();
                all.endpoints.iter_mut().zip(weights).map(|(l, weight)| l.load_balancing_weight = weight).count()
            })
        },
    },
    Fault {
        name: "a subset is the whole service",
        at: CLIENT,
        caught_by: "a rule by header comes before all others",
        alter: |resource| {
            message(resource, |cluster: &mut Cluster| {
                let meant = cluster.name == format!("outbound|80|v2|{WEB}");
                if let Some(source) = cluster.eds_cluster_config.as_mut().filter(|_| meant) {
                    source.service_name = format!("outbound|80||{WEB}");
                }
                usize::from(meant)
            })
        },
    },
    Fault {
        name: "the health of endpoints is ignored",
        at: CLIENT,
        caught_by: "what drains gets no new requests",
        alter: |resource| {
            cluster(resource, &format!("outbound|80||{WEB}"), |cluster| {
                let panic = Some(Percent { value: 100.0 });
                cluster.common_lb_config.get_or_insert_default().healthy_panic_threshold = panic;
            })
        },
    },
    Fault {
        name: "an endpoint that is its neighbour",
        at: CLIENT,
        caught_by: "its neighbour behind the same gateway is not mistaken for it",
        alter: |resource| {
            each_endpoint(resource, "outbound|80||second.app.svc.cluster.local", |_, endpoint| {
                endpoint.hostname = "outbound_.80_._.first.app.svc.cluster.local".to_owned();
                1
            })
        },
    },
];

pub const OF_EJECTION: &[Fault] = &[Fault {
    name: "nothing is ever ejected",
    at: "one/app/client-0",
    caught_by: "what is ejected leaves its traffic to the same region",
    alter: |resource| {
        message(resource, |cluster: &mut Cluster| usize::from(cluster.outlier_detection.take().is_some()))
    },
}];

fn one_priority(all: &mut ClusterLoadAssignment) -> usize {
    let later = all.endpoints.iter_mut().filter(|locality| locality.priority > 0);
    later.map(|locality| locality.priority = 0).count()
}
