//! Make before break: what refers is told after what it refers to, and what is referred to goes last.

use crate::bench::*;
use fairlead_xds::server::{Encoding, Session};
use std::sync::Arc;

fn subscribed() -> Session {
    let mut session = session(Encoding::Delta, view(1, &[]));
    for kind in [RDS, LDS, EDS, CDS, OWN] {
        ask(&mut session, kind, "*");
        told_and_acked(&mut session);
    }
    session
}

/// Every response until there is none, each acked at once, as `kind: text`.
fn all(session: &mut Session) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(response) = session.next_delta() {
        ack(session, &response);
        let kind = response.type_url.rsplit(['.', '/']).next().unwrap_or_default();
        all.push(format!("{kind}: {}", text(&response)));
    }
    all
}

#[test]
fn additions_in_order_and_removals_last_and_backwards() {
    let mut session = subscribed();
    let first = [(CDS, "c1@1"), (EDS, "c1@1"), (LDS, "l1@1"), (RDS, "r1@1"), (OWN, "m1@1")];
    session.publish(Arc::new(view(2, &first)));
    let expected =
        ["Cluster: c1@1", "ClusterLoadAssignment: c1@1", "Listener: l1@1", "RouteConfiguration: r1@1", "Member: m1@1"];
    assert_eq!(all(&mut session), expected);

    let second = [(CDS, "c2@1"), (EDS, "c2@1"), (LDS, "l2@1"), (RDS, "r2@1"), (OWN, "m2@1")];
    session.publish(Arc::new(view(3, &second)));
    let expected = [
        "Cluster: c2@1",
        "ClusterLoadAssignment: c2@1",
        "Listener: l2@1",
        "RouteConfiguration: r2@1",
        "Member: m2@1 -m1",
        "RouteConfiguration: -r1",
        "Listener: -l1",
        "ClusterLoadAssignment: -c1",
        "Cluster: -c1",
    ];
    assert_eq!(all(&mut session), expected);
}

#[test]
fn what_refers_waits_while_what_it_refers_to_cannot_be_sent() {
    let mut session = subscribed();
    session.publish(Arc::new(view(2, &[(CDS, "c1@1")])));
    let first = session.next_delta().unwrap();
    session.publish(Arc::new(view(3, &[(CDS, "c1@1 c2@1"), (RDS, "r@1"), (OWN, "m@1")])));
    assert_eq!(told(&mut session), "m@1", "only what is independent goes");
    assert_eq!(told(&mut session), "nothing");
    ack(&mut session, &first);
    assert_eq!(told(&mut session), "c2@1");
    assert_eq!(told(&mut session), "r@1", "on one stream it is enough to be sent after");
}

#[test]
fn steady_change_of_endpoints_starves_nothing() {
    let mut session = subscribed();
    session.publish(Arc::new(view(2, &[(CDS, "c1@1 c2@1"), (EDS, "c1@1")])));
    all(&mut session);
    let mut endpoints = None;
    for version in 2..6 {
        let eds = format!("c1@{version}");
        session.publish(Arc::new(view(version, &[(CDS, "c1@1"), (EDS, &eds), (RDS, "r@1")])));
        if let Some(response) = endpoints.take() {
            ack(&mut session, &response); // It always has another change waiting by now.
        }
        endpoints = session.next_delta().filter(|r| r.type_url == EDS);
        assert!(endpoints.is_some());
        while let Some(response) = session.next_delta() {
            ack(&mut session, &response);
        }
    }
    let standing = session.standing(RDS).unwrap();
    assert!(standing.acked && standing.generation < 5, "routes were sent meanwhile: {standing:?}");
    let clusters = session.standing(CDS).unwrap();
    assert!(clusters.acked && clusters.generation >= 2, "and clusters removed: {clusters:?}");
}

#[test]
fn endpoints_of_a_changed_cluster_are_sent_again() {
    let mut session = subscribed();
    session.publish(Arc::new(view(2, &[(CDS, "c1@1 c2@1"), (EDS, "c1@1 c2@1")])));
    all(&mut session);
    session.publish(Arc::new(view(3, &[(CDS, "c1@2 c2@1"), (EDS, "c1@1 c2@1")])));
    assert_eq!(all(&mut session), ["Cluster: c1@2", "ClusterLoadAssignment: c1@1"]);
}

#[test]
fn what_refers_to_a_new_cluster_waits_for_its_endpoints() {
    let mut session = session(Encoding::Delta, view(1, &[]));
    for (kind, names) in [(CDS, "*"), (EDS, "c0"), (RDS, "r")] {
        ask(&mut session, kind, names);
        told_and_acked(&mut session);
    }
    let mesh = |generation| view(generation, &[(CDS, "c1@1"), (EDS, "c1@1"), (RDS, "r@1")]);
    session.publish(Arc::new(mesh(2)));
    assert_eq!(told_and_acked(&mut session), "c1@1");
    assert_eq!(told(&mut session), "nothing", "the client has no endpoints of c1");
    assert_eq!(session.settlement(), None);
    ask(&mut session, EDS, "c1");
    assert_eq!(told(&mut session), "c1@1");
    assert_eq!(told(&mut session), "r@1");

    // A client that never asks for them does not wait for ever.
    let mut session = crate::bench::session(Encoding::Delta, view(1, &[]));
    for kind in [CDS, RDS] {
        ask(&mut session, kind, "*");
        told_and_acked(&mut session);
    }
    session.publish(Arc::new(mesh(2)));
    assert_eq!(told_and_acked(&mut session), "c1@1");
    assert_eq!(told(&mut session), "nothing");
    assert!(session.is_waiting());
    session.stop_waiting();
    assert_eq!(told(&mut session), "r@1");
}
