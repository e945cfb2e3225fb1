//! Control planes that tell each other of members, one of them hostile, without sockets: what is vouched for, stored and believed.

use super::*;
use fairlead_identity::introduction::Statement;
use fairlead_identity::{SignedStatement, verdict};

fn open(cluster: &str, store: Arc<Store>) -> Authority {
    let domain = format!("{cluster}.shop.example");
    let opening = Opening::plain(cluster, &domain);
    Authority::open(&opening, store).unwrap()
}

fn new(cluster: &str) -> Authority {
    open(cluster, Arc::new(Store::in_memory().unwrap()))
}

fn told(by: &Authority) -> Vec<SignedStatement> {
    by.statements(None).unwrap().unwrap().1
}

/// Both tell each other until neither learns anything.
fn exchange(all: &[&Authority]) {
    for _ in 0..8 {
        let mut news = false;
        for (by, to) in
            all.iter().flat_map(|by| all.iter().map(move |to| (by, to))).filter(|(by, to)| by.cluster != to.cluster)
        {
            news |= to.absorb(&told(by)).unwrap();
        }
        if !news {
            return;
        }
    }
    panic!("they never came to an end");
}

fn join(newcomer: &Authority, to: &Authority) {
    newcomer.reincarnate().unwrap();
    // Refused as detached until its incarnation is younger than the tombstone: within one second of clock, that takes another try.
    let revoked = to.with_membership(|_, all| all.tombstone(&newcomer.cluster).map(|tombstone| tombstone.incarnation));
    while revoked >= Some(newcomer.me().incarnation) {
        newcomer.reincarnate().unwrap();
    }
    let introductions = to.reintroduce().unwrap();
    to.declare(Statement::Introduce(newcomer.me())).unwrap();
    newcomer.declare(Statement::Introduce(to.me())).unwrap();
    newcomer.absorb(&introductions).unwrap();
}

/// Does one take the other's control plane for that of its cluster?
fn believes(one: &Authority, other: &Authority) -> bool {
    let peer = verdict(other.own.load().chain(), &one.trust(), now());
    peer.is_ok_and(|peer| peer.cluster.as_deref() == Some(other.cluster.as_str()))
}

#[test]
fn a_false_introduction_costs_what_a_revocation_costs_and_is_healed_like_one() {
    let stored = Arc::new(Store::in_memory().unwrap());
    let (east, north, south, west) = (open("east", stored.clone()), new("north"), new("south"), new("west"));
    for other in [&north, &south, &west] {
        join(other, &east);
        exchange(&[&east, &north, &south, &west]);
    }
    assert!(believes(&east, &west) && believes(&south, &west));

    // North passes a cluster of its own making off as west.
    let false_west = new("west");
    let falsehood = Member { incarnation: west.me().incarnation + 1, ..false_west.me() };
    north.declare(Statement::Introduce(falsehood)).unwrap();
    exchange(&[&east, &north, &south]);
    let told_of_itself = told(&false_west);
    for one in [&east, &south] {
        one.absorb(&told_of_itself).unwrap();
        assert!(!believes(one, &false_west) && !believes(one, &west));
        assert!(one.peers().iter().all(|peer| peer.cluster != "west"), "it is not dialled");
        let conflicts = one.conflicts();
        assert!(matches!(conflicts.as_slice(), [TrustConflict::Contested { cluster, .. }] if cluster == "west"));
    }
    assert!(believes(&east, &south) && believes(&east, &north));
    // After a restart it is the same; and one that hears of it by east's word alone holds the same.
    let (claims, held) = east.with_membership(|_, all| (all.claims("west").count(), all.clone()));
    assert_eq!(claims, 2);
    let east = {
        drop(east);
        open("east", stored)
    };
    assert!(!believes(&east, &false_west) && !believes(&east, &west));
    assert_eq!(
        east.with_membership(|_, all| all.claims("west").cloned().collect::<Vec<_>>()),
        held.claims("west").cloned().collect::<Vec<_>>()
    );
    let fifth = new("fifth");
    join(&fifth, &east);
    exchange(&[&east, &fifth]);
    assert!(!believes(&fifth, &false_west) && !believes(&fifth, &west) && believes(&fifth, &south));

    // Detached by any member, and joined again. South was away, and hears of all of it at once.
    east.detach("west").unwrap();
    assert!(east.detach("west").is_err(), "it is out");
    join(&west, &east);
    exchange(&[&east, &south, &west]);
    for one in [&east, &south] {
        assert!(believes(one, &west) && !believes(one, &false_west));
        assert_eq!(one.conflicts(), []);
    }
}

#[test]
fn one_that_missed_a_revocation_hears_of_it_when_the_cluster_is_back_with_another_key() {
    let (east, north, south, west) = (new("east"), new("north"), new("south"), new("west"));
    for other in [&north, &south, &west] {
        join(other, &east);
        exchange(&[&east, &north, &south, &west]);
    }
    // North detaches west and leaves; its own word is believed no longer. South is away meanwhile.
    north.detach("west").unwrap();
    exchange(&[&east, &north]);
    east.detach("north").unwrap();
    let anew = new("west");
    join(&anew, &east);
    assert!(believes(&east, &anew));
    exchange(&[&east, &south]);
    assert!(believes(&south, &anew) && !believes(&south, &west) && !believes(&south, &north));
    assert_eq!(south.conflicts(), []);
}

#[test]
fn equal_content_is_signed_once() {
    let (east, west) = (new("east"), new("west"));
    join(&west, &east);
    exchange(&[&east, &west]);
    let first = told(&east);
    east.state.lock().revision += 1;
    assert_eq!(told(&east), first);
}

#[test]
fn a_record_told_anew_of_a_later_incarnation_does_not_outlive_a_restart() {
    let stored = Arc::new(Store::in_memory().unwrap());
    let (east, west) = (new("east"), open("west", stored.clone()));
    join(&west, &east);
    exchange(&[&east, &west]);
    // East tells west's gateways to be elsewhere.
    let networks = BTreeMap::from([("west".to_owned(), vec!["192.0.2.66:15443".to_owned()])]);
    let elsewhere = Member { networks, incarnation: west.me().incarnation + 5, ..west.me() };
    east.declare(Statement::Introduce(elsewhere)).unwrap();
    exchange(&[&east, &west]);
    drop(west);
    let west = open("west", stored);
    west.update_me(|me| me.networks.clear()).unwrap();
    exchange(&[&east, &west]);
    assert_eq!(east.with_membership(|_, all| all.member("west").cloned()), Some(west.me()));
    assert!(west.me().networks.is_empty());
}

#[test]
fn a_restart_says_nothing_new_of_where_peers_dial() {
    let stored = Arc::new(Store::in_memory().unwrap());
    let west = open("west", stored.clone());
    west.update_me(|me| me.control_addresses = vec!["192.0.2.2:15012".into()]).unwrap();
    let before = west.me();
    drop(west);
    assert_eq!(open("west", stored).me(), before);
}

/// Two replicas of one cluster, of which one has not yet heard what the other stored.
#[test]
fn what_another_replica_stored_is_not_taken_for_beaten() {
    let stored = Arc::new(Store::in_memory().unwrap());
    let (a, b) = (open("east", stored.clone()), open("east", stored.clone()));
    b.declare(Statement::Introduce(new("north").me())).unwrap();
    assert!(a.peers().is_empty());
    a.declare(Statement::Introduce(new("west").me())).unwrap();
    let clusters = |one: &Authority| one.peers().into_iter().map(|m| m.cluster).collect::<Vec<_>>();
    assert_eq!(clusters(&a), ["north", "west"]);
    b.reload().unwrap();
    assert_eq!(clusters(&b), ["north", "west"]);
    assert_eq!(clusters(&open("east", stored)), ["north", "west"], "and after a restart");
}

#[test]
fn nobody_is_introduced_as_of_an_incarnation_that_no_clock_reaches() {
    let (east, west) = (new("east"), new("west"));
    let ahead = Member { incarnation: now().as_secs() + 2 * 24 * 3600, ..west.me() };
    let refused = east.declare(Statement::Introduce(ahead)).unwrap_err().to_string();
    assert!(refused.contains("more than a day ahead"), "{refused}");
    assert!(!believes(&east, &west));
}
