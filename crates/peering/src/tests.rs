//! What one side sends, the other receives.

use crate::{KINDS, PeerUpdate, Receiver, Sender, Told};
use fairlead_model::summary::{ClusterSummary, MemberSummary, ServiceSummary};
use fairlead_xds::client::{Handler, Update};
use fairlead_xds::{Name, Resource, ResourceView};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

fn summary(services: &[&str]) -> ClusterSummary {
    let member = MemberSummary {
        cluster: "west".into(),
        incarnation: 1,
        state: Default::default(),
        trust_domain: "west.shop.example".into(),
        networks: Vec::new(),
        gateways: Vec::new(),
        locality: Default::default(),
        version: "0".into(),
    };
    let service = |name: &&str| {
        let summary = ServiceSummary {
            namespace: "shop".into(),
            name: (*name).to_owned(),
            ports: Vec::new(),
            headless: false,
            visibility: Default::default(),
            labels: BTreeMap::new(),
            service_accounts: Default::default(),
            created: 0,
            capacity: BTreeMap::new(),
        };
        (format!("shop/{name}"), Arc::new(summary))
    };
    ClusterSummary { member, services: services.iter().map(service).collect(), endpoints: BTreeMap::new() }
}

/// Gives the receiver all of a view, as one delta response a kind.
fn give(receiver: &mut Receiver, view: &impl ResourceView, removed: &[Name], restored: bool) {
    for kind in KINDS {
        let resources: Vec<Resource> =
            view.resources(kind.url()).map(|all| all.iter().cloned().collect()).unwrap_or_default();
        let update = Update { type_url: kind.url(), upserts: &resources, removed, unavailable: &[], restored };
        assert!(receiver.apply(update).is_empty());
    }
}

fn receiver() -> (Receiver, mpsc::UnboundedReceiver<PeerUpdate>) {
    let (updates, told) = mpsc::unbounded_channel();
    (Receiver::new("west".into(), || 1_000, updates), told)
}

#[test]
fn a_summary_arrives_whole_and_only_whole() {
    let sent = summary(&["cart", "reviews"]);
    let view = Sender::at(1_090).view(1, &sent, &[]).expect("the first view");
    let (mut receiver, mut told) = receiver();
    give(&mut receiver, &view, &[], false);
    let first = told.try_recv().expect("told");
    assert_eq!(*first.summary, sent, "nothing was published before all of it came");
    assert_eq!(first.ahead, Some(90), "the clocks differ");
    while told.try_recv().is_ok() {}
    give(
        &mut receiver,
        &Sender::default().view(2, &summary(&["cart"]), &[]).expect("a view"),
        &["shop/reviews".into()],
        false,
    );
    let mut last = None;
    while let Ok(update) = told.try_recv() {
        last = Some(update);
    }
    assert_eq!(last.expect("told").summary.services.len(), 1);
}

#[test]
fn a_peer_that_exports_nothing_is_whole_at_once() {
    let view = Sender::default().view(1, &summary(&[]), &[]).expect("the first view");
    let (mut receiver, mut told) = receiver();
    let members: Vec<Resource> = view.resources(KINDS[0].url()).expect("members").iter().cloned().collect();
    receiver.apply(Update {
        type_url: KINDS[0].url(),
        upserts: &members,
        removed: &[],
        unavailable: &[],
        restored: false,
    });
    assert!(told.try_recv().expect("told").summary.services.is_empty());
}

#[test]
fn what_was_restored_is_no_news() {
    let view = Sender::default().view(1, &summary(&["cart"]), &[]).expect("the first view");
    let (mut receiver, mut told) = receiver();
    give(&mut receiver, &view, &[], true);
    assert!(told.try_recv().is_err());
    let empty = Sender::default().view(2, &summary(&[]), &[]).expect("a view");
    give(&mut receiver, &empty, &["shop/cart".into()], false);
    let last = std::iter::from_fn(|| told.try_recv().ok()).last();
    assert!(last.expect("told").summary.services.is_empty());
}

#[test]
fn equal_summaries_are_told_once_and_encode_equally() {
    let mut sender = Sender::default();
    let first = sender.view(1, &summary(&["cart"]), &[]).expect("the first view");
    assert!(sender.view(2, &summary(&["cart"]), &[]).is_none());
    let again = Sender::default().view(1, &summary(&["cart"]), &[]).expect("another sender's first");
    for kind in KINDS {
        assert_eq!(first.resources(kind.url()), again.resources(kind.url()));
    }
    let more = sender.view(3, &summary(&["cart", "reviews"]), &[]).expect("a change");
    let endpoints = |view: &crate::PeerView| view.resources(KINDS[2].url()).expect("endpoints");
    assert!(Arc::ptr_eq(&endpoints(&first), &endpoints(&more)), "what did not change is shared");
}

/// What an update says of how far the peer was heard, the last that is there.
fn heard(told: &mut mpsc::UnboundedReceiver<PeerUpdate>) -> Option<Told> {
    std::iter::from_fn(|| told.try_recv().ok()).last().and_then(|update| update.told).map(|heard| heard.told)
}

#[test]
fn a_number_counts_when_all_it_was_given_to_is_there() {
    let mut sender = Sender::default();
    let (mut receiver, mut told) = receiver();
    let at = |sequence| Some(Told { incarnation: 1, sequence });
    give(&mut receiver, &sender.view(7, &summary(&["cart"]), &[]).expect("the first view"), &[], false);
    assert_eq!(heard(&mut told), at(7));
    // The next state is the same but for a label: equal counts, and its number comes before what it speaks of.
    let mut changed = summary(&["cart"]);
    let cart = changed.services.get_mut("shop/cart").expect("cart");
    Arc::make_mut(cart).labels.insert("a".into(), "b".into());
    let next = sender.view(8, &changed, &[]).expect("a change");
    for (kind, expected) in KINDS.into_iter().zip([at(7), at(8), at(8)]) {
        let resources: Vec<Resource> = next.resources(kind.url()).expect("resources").iter().cloned().collect();
        let update =
            Update { type_url: kind.url(), upserts: &resources, removed: &[], unavailable: &[], restored: false };
        assert!(receiver.apply(update).is_empty());
        assert_eq!(heard(&mut told), expected, "{kind}");
    }
    // A removal, told after its number.
    let last = sender.view(9, &summary(&[]), &[]).expect("a removal");
    give(&mut receiver, &last, &[], false);
    assert_eq!(heard(&mut told), at(8));
    give(&mut receiver, &last, &["shop/cart".into()], false);
    assert_eq!(heard(&mut told), at(9));
}

#[test]
fn two_replicas_number_one_state_differently() {
    let heard_of = |sequence| {
        let (mut receiver, mut told) = receiver();
        let view = Sender::default().view(sequence, &summary(&["cart"]), &[]).expect("the first view");
        give(&mut receiver, &view, &[], false);
        std::iter::from_fn(|| told.try_recv().ok()).last().and_then(|update| update.told).expect("heard whole")
    };
    let (one, other) = (heard_of(7), heard_of(9));
    assert_ne!(one.told, other.told);
    assert!(one.covers(&other) && other.covers(&one));
}

#[test]
fn a_peer_speaks_for_itself_only() {
    let view = Sender::default().view(1, &summary(&[]), &[]).expect("a view");
    let (updates, mut told) = mpsc::unbounded_channel();
    let mut receiver = Receiver::new("north".into(), || 1_000, updates);
    let members: Vec<Resource> = view.resources(KINDS[0].url()).expect("members").iter().cloned().collect();
    let update =
        Update { type_url: KINDS[0].url(), upserts: &members, removed: &[], unavailable: &[], restored: false };
    let refused = receiver.apply(update);
    assert_eq!(refused[0].reason, "north calls itself west");
    assert!(told.try_recv().is_err());
}
