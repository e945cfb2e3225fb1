//! Delta: subscriptions, resume, answers, limits.

use crate::bench::*;
use fairlead_proto::discovery::DeltaDiscoveryRequest;
use fairlead_proto::envoy::rpc::Status;
use fairlead_xds::server::{Encoding, Event, Violation};
use fairlead_xds::{Absence, Limits, ResourceView, Resources};
use std::sync::Arc;

const DELTA: Encoding = Encoding::Delta;

#[test]
fn an_empty_first_request_asks_for_everything_and_names_add_to_it() {
    let mut session = session(DELTA, view(1, &[(OWN, "a@1 b@1")]));
    let events = ask(&mut session, OWN, "");
    assert!(matches!(&events[..], [Event::Subscribed { wildcard: true, names, .. }] if names.is_empty()));
    assert_eq!(told_and_acked(&mut session), "a@1 b@1");
    ask(&mut session, OWN, "a");
    assert_eq!(told_and_acked(&mut session), "a@1", "asked for by name, it is sent again");
    ask(&mut session, OWN, "-*");
    session.publish(Arc::new(view(2, &[(OWN, "a@2 b@2")])));
    assert_eq!(told_and_acked(&mut session), "a@2", "only the name is left");
    ask(&mut session, OWN, "-a");
    session.publish(Arc::new(view(3, &[(OWN, "a@3 b@3")])));
    assert_eq!(told(&mut session), "nothing", "an emptied list does not mean everything");
}

#[test]
fn a_first_request_is_answered_even_if_there_is_nothing() {
    let mut session = session(DELTA, view(1, &[]));
    ask(&mut session, CDS, "");
    assert_eq!(told_and_acked(&mut session), "");
    assert_eq!(told(&mut session), "nothing");
}

#[test]
fn a_name_that_does_not_exist_is_told_so_and_sent_when_it_appears() {
    let mut session = session(DELTA, view(1, &[(OWN, "a@1")]));
    ask(&mut session, OWN, "a ghost");
    assert_eq!(told_and_acked(&mut session), "a@1 -ghost");
    assert_eq!(told(&mut session), "nothing", "absence is told once");
    ask(&mut session, OWN, "ghost");
    assert_eq!(told_and_acked(&mut session), "-ghost", "and again when asked again");
    session.publish(Arc::new(view(2, &[(OWN, "a@1 ghost@1")])));
    assert_eq!(told_and_acked(&mut session), "ghost@1");
    session.publish(Arc::new(view(3, &[(OWN, "a@1")])));
    assert_eq!(told_and_acked(&mut session), "-ghost");
}

struct Waiting(&'static str, Absence);

impl ResourceView for Waiting {
    fn generation(&self) -> u64 {
        7
    }
    fn resources(&self, _: &str) -> Option<Arc<Resources>> {
        Some(Arc::new(resources(self.0).into_iter().collect()))
    }
    fn absence(&self, _: &str, _: &str) -> Absence {
        self.1.clone()
    }
}

#[test]
fn a_pending_name_is_waited_for_and_a_refused_one_gets_a_reason() {
    let mut session = session(DELTA, view(1, &[]));
    session.publish(Arc::new(Waiting("a@1", Absence::Pending)));
    ask(&mut session, OWN, "a b");
    assert_eq!(told_and_acked(&mut session), "a@1");
    session.publish(Arc::new(Waiting("", Absence::Pending)));
    assert_eq!(told(&mut session), "nothing", "neither missing nor gone while pending");
    let refused = Absence::Refused { code: 7, message: "not yours".into() };
    session.publish(Arc::new(Waiting("a@1", refused)));
    let response = session.next_delta().unwrap();
    assert_eq!(text(&response), "-b !b");
    assert_eq!(response.resource_errors[0].error_detail.as_ref().unwrap().code, 7);
}

#[test]
fn resuming_sends_differences_only_and_what_is_gone() {
    let mut session = session(DELTA, view(1, &[(OWN, "same@1 changed@2 new@1")]));
    ask_with(&mut session, OWN, "*", "same@1 changed@1 gone@1").unwrap();
    assert_eq!(told_and_acked(&mut session), "changed@2 new@1 -gone");

    let mut session = crate::bench::session(DELTA, view(1, &[(OWN, "same@1")]));
    ask_with(&mut session, OWN, "same gone never", "same@1 gone@1 unwanted@1").unwrap();
    assert_eq!(told_and_acked(&mut session), "-never -gone");

    let mut session = crate::bench::session(DELTA, view(1, &[(OWN, "same@1")]));
    ask_with(&mut session, OWN, "*", "same@1").unwrap();
    assert_eq!(told_and_acked(&mut session), "", "all the same, and the client knows that it is in step");
}

#[test]
fn a_slow_client_gets_only_the_latest() {
    let mut session = session(DELTA, view(1, &[(OWN, "a@1")]));
    ask(&mut session, OWN, "*");
    let first = session.next_delta().unwrap();
    for generation in 2..100 {
        let list = format!("a@{generation} b{generation}@1");
        session.publish(Arc::new(view(generation, &[(OWN, &list)])));
        assert_eq!(told(&mut session), "nothing", "one response is out already");
    }
    ack(&mut session, &first);
    assert_eq!(told_and_acked(&mut session), "a@99 b99@1");
}

#[test]
fn answers_count_only_for_the_latest_response() {
    let mut session = session(DELTA, view(1, &[(OWN, "a@1")]));
    ask(&mut session, OWN, "*");
    let first = session.next_delta().unwrap();
    assert_eq!(
        ack(&mut session, &first),
        [Event::Acked { type_url: OWN.into(), nonce: first.nonce.clone(), generation: 1 }]
    );
    assert_eq!(session.settlement(), Some(Event::Settled { generation: 1, rejected: 0 }));
    assert_eq!(session.settlement(), None, "once for each generation");
    assert_eq!(ack(&mut session, &first), [], "a repeated ack is nothing new");

    session.publish(Arc::new(view(2, &[(OWN, "a@2 b@1")])));
    let second = session.next_delta().unwrap();
    assert_eq!(second.system_version_info, "g2");
    assert_eq!(ack(&mut session, &first), [], "stale");
    assert_eq!(session.settlement(), None);
    let nack = DeltaDiscoveryRequest {
        type_url: OWN.to_owned(),
        response_nonce: second.nonce.clone(),
        error_detail: Some(Status { code: 3, message: "bad".into(), ..Default::default() }),
        ..Default::default()
    };
    let events = session.delta_request(nack).unwrap();
    let [Event::Nacked { generation: 2, detail, names, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((detail.as_str(), names.len()), ("bad", 0));
    assert_eq!(session.settlement(), Some(Event::Settled { generation: 2, rejected: 2 }));
    assert_eq!(told(&mut session), "nothing", "what was refused is not sent again until it changes");
    session.publish(Arc::new(view(3, &[(OWN, "a@1 b@1")])));
    assert_eq!(told_and_acked(&mut session), "a@1");
    assert_eq!(session.settlement(), Some(Event::Settled { generation: 3, rejected: 1 }));
}

#[test]
fn a_generation_that_changes_nothing_for_a_client_settles_at_once() {
    let mut session = session(DELTA, view(1, &[(OWN, "a@1")]));
    ask(&mut session, OWN, "*");
    told_and_acked(&mut session);
    session.publish(Arc::new(view(2, &[(OWN, "a@1")])));
    assert_eq!(told(&mut session), "nothing");
    assert_eq!(session.settlement(), Some(Event::Settled { generation: 2, rejected: 0 }));
}

#[test]
fn large_changes_go_in_several_responses() {
    let limits = Limits { response_bytes: 20, ..Limits::default() };
    let mut session = limited(DELTA, view(1, &[(OWN, "a@1 b@1 c@1 d@1 e@1")]), limits);
    ask_with(&mut session, OWN, "*", "x@1 y@1").unwrap();
    let mut all = Vec::new();
    loop {
        match told_and_acked(&mut session).as_str() {
            "nothing" => break,
            text => all.push(text.to_owned()),
        }
    }
    assert_eq!(all, ["a@1 b@1 c@1 d@1", "e@1 -x -y"]);
}

#[test]
fn strangers_are_bounded() {
    let limits = Limits { names: 2, name_bytes: 4, types: 2, ..Limits::default() };
    let fresh = || limited(DELTA, view(1, &[]), limits);
    assert_eq!(ask_with(&mut fresh(), OWN, "a b c", ""), Err(Violation::TooManyNames(2)));
    assert_eq!(ask_with(&mut fresh(), OWN, "abcde", ""), Err(Violation::NameTooLong(4)));
    assert_eq!(ask_with(&mut fresh(), "", "a", ""), Err(Violation::NoType));
    let mut session = fresh();
    ask(&mut session, CDS, "a");
    ask(&mut session, EDS, "b");
    assert_eq!(ask_with(&mut session, LDS, "", ""), Err(Violation::TooManyTypes(2)));
    assert_eq!(ask_with(&mut session, EDS, "c", ""), Err(Violation::TooManyNames(2)), "over all types");
}
