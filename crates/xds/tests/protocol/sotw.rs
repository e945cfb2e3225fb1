//! State of the world: the same core, the other form.

use crate::bench::*;
use fairlead_proto::discovery::DiscoveryResponse;
use fairlead_xds::server::{Encoding, Event, Session};
use std::sync::Arc;

const SOTW: Encoding = Encoding::StateOfTheWorld;

fn next(session: &mut Session) -> DiscoveryResponse {
    session.next_sotw().expect("a response")
}

#[test]
fn clusters_come_in_full_and_endpoints_as_they_change() {
    let mut session = session(SOTW, view(1, &[(CDS, "a@1 b@1"), (EDS, "a@1 b@1")]));
    list(&mut session, CDS, "", "");
    let clusters = next(&mut session);
    assert_eq!(bodies(&clusters), "a@1 b@1");
    let events = list(&mut session, CDS, "", &clusters.nonce);
    assert!(matches!(&events[..], [Event::Acked { generation: 1, .. }]), "{events:?}");
    list(&mut session, EDS, "a b", "");
    let endpoints = next(&mut session);
    assert_eq!(bodies(&endpoints), "a@1 b@1");
    list(&mut session, EDS, "a b", &endpoints.nonce);

    session.publish(Arc::new(view(2, &[(CDS, "a@2 b@1"), (EDS, "a@1 b@2")])));
    let again = next(&mut session);
    assert_eq!(bodies(&again), "a@2 b@1");
    assert_ne!(again.version_info, clusters.version_info);
    assert_eq!(bodies(&next(&mut session)), "a@1 b@2", "what changed, and the endpoints of what changed");
    assert!(session.next_sotw().is_none());
}

#[test]
fn a_cluster_goes_only_after_what_replaces_it_is_told() {
    let mut session = session(SOTW, view(1, &[(CDS, "old@1"), (LDS, "l@1")]));
    list(&mut session, CDS, "", "");
    list(&mut session, LDS, "", "");
    let (clusters, listeners) = (next(&mut session), next(&mut session));
    list(&mut session, CDS, "", &clusters.nonce);
    list(&mut session, LDS, "", &listeners.nonce);
    session.publish(Arc::new(view(2, &[(CDS, "new@1"), (LDS, "l@2")])));
    let clusters = next(&mut session);
    assert_eq!(bodies(&clusters), "new@1 old@1");
    let listeners = next(&mut session);
    assert_eq!(bodies(&listeners), "l@2");
    assert!(session.next_sotw().is_none());
    list(&mut session, CDS, "", &clusters.nonce);
    assert_eq!(bodies(&next(&mut session)), "new@1");
}

#[test]
fn a_list_that_has_become_empty_asks_for_nothing() {
    let mut session = session(SOTW, view(1, &[(CDS, "a@1 b@1")]));
    list(&mut session, CDS, "*", "");
    let first = next(&mut session);
    list(&mut session, CDS, "a", &first.nonce);
    let second = next(&mut session);
    assert_eq!(bodies(&second), "a@1");
    list(&mut session, CDS, "", &second.nonce);
    session.publish(Arc::new(view(2, &[(CDS, "a@2 b@2")])));
    assert!(session.next_sotw().is_none());
}

#[test]
fn a_name_that_does_not_exist_is_an_error_and_the_full_state_says_it_by_itself() {
    let mut session = session(SOTW, view(1, &[]));
    list(&mut session, EDS, "ghost", "");
    let endpoints = next(&mut session);
    assert_eq!(bodies(&endpoints), "!ghost");
    list(&mut session, EDS, "ghost", &endpoints.nonce);
    list(&mut session, LDS, "ghost", "");
    assert_eq!(bodies(&next(&mut session)), "");
    session.publish(Arc::new(view(2, &[(EDS, "ghost@1")])));
    assert_eq!(bodies(&next(&mut session)), "ghost@1");
}

#[test]
fn a_stale_answer_is_no_answer_but_its_names_count() {
    let mut session = session(SOTW, view(1, &[(EDS, "a@1 b@1")]));
    list(&mut session, EDS, "a", "");
    let first = next(&mut session);
    list(&mut session, EDS, "a", &first.nonce);
    session.publish(Arc::new(view(2, &[(EDS, "a@2 b@1")])));
    let second = next(&mut session);
    let events = list(&mut session, EDS, "a b", &first.nonce);
    assert!(matches!(&events[..], [Event::Subscribed { .. }]), "{events:?}");
    assert!(session.next_sotw().is_none(), "one response is out");
    list(&mut session, EDS, "a b", &second.nonce);
    assert_eq!(bodies(&next(&mut session)), "b@1");
}
