//! Membership: who is believed about whom, and a merge that does not depend on order.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairlead_identity::introduction::Signer;
use fairlead_identity::membership::Merged;
use fairlead_identity::{
    Ca, IntroductionError, LeafRequest, Membership, NamespaceBound, SharedRoot, Statement, SystemRandom,
    TrustBundleSet, TrustDomain, TrustPolicy, VerifyError, WorkloadKey,
};
use mesh::control::{Control, member};
use mesh::{Mesh, START, at, domain};

fn everyone() -> TrustPolicy<'static> {
    static NO_BOUNDS: BTreeMap<String, NamespaceBound> = BTreeMap::new();
    static NOBODY: BTreeSet<String> = BTreeSet::new();
    TrustPolicy { namespaces: &NO_BOUNDS, detached_here: &NOBODY, admitted: None }
}

fn trust_of(ca: &Ca, membership: &Membership) -> TrustBundleSet {
    membership.trust(ca.cluster(), ca.bundle(), &BTreeSet::from([ca.issuing_key()]), everyone()).unwrap()
}

#[test]
fn an_introduction_is_believed_from_a_members_control_plane_only() {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let trust = mesh.trust.get();
    let now = mesh.clock.now();
    let east = Control::of(mesh.ca("east"));
    let west = member(mesh.ca("west"), 1, 0);
    let signed = east.introduce(west.clone()).signed().clone();
    let verified = signed.verify(&trust, now).unwrap();
    assert_eq!(verified.statement(), &Statement::Introduce(west.clone()));
    assert_eq!(verified.signer(), &domain("east").control());

    let mut changed = signed.clone();
    changed.body = changed.body.replace("\"incarnation\":1", "\"incarnation\":9");
    assert_eq!(changed.verify(&trust, now).unwrap_err(), IntroductionError::Signature);
    let mut backdated = signed.clone();
    backdated.signed_at -= 10;
    assert_eq!(backdated.verify(&trust, now).unwrap_err(), IntroductionError::Signature);
    let mut future = signed.clone();
    future.signed_at += 3600;
    assert!(matches!(future.verify(&trust, now), Err(IntroductionError::FromTheFuture { .. })));
    // It stays good after the signer's certificate has ended: it was good when it was signed.
    assert!(signed.verify(&trust, at(START + 7 * 24 * 3600)).is_ok());

    let detached = trust.with_revoked_domain(&domain("east")).unwrap();
    assert!(matches!(
        signed.verify(&detached, now),
        Err(IntroductionError::Signer(VerifyError::RevokedCluster { .. }))
    ));

    // A workload of a member may not introduce.
    let key = WorkloadKey::generate().unwrap();
    let csr = key.csr().unwrap();
    let frontend = domain("east").service_account("shop", "frontend").unwrap();
    let request = LeafRequest {
        csr_der: &csr,
        identity: &frontend,
        workload: None,
        pod_uid: None,
        lifetime: Duration::from_secs(3600),
        now,
    };
    let chain = mesh.ca("east").issue(&request, &mut SystemRandom).unwrap();
    let signer = Signer { key: &key, chain: &chain };
    assert_eq!(
        Statement::Introduce(west).sign(signer, now).unwrap_err(),
        IntroductionError::NotAControlPlane(frontend)
    );
}

#[test]
fn only_a_member_itself_changes_its_record() {
    let mesh = Mesh::per_cluster(&["east", "west"]);
    let trust = mesh.trust.get();
    let changed = member(mesh.ca("west"), 1, 4);
    let own = Control::of(mesh.ca("west")).introduce(changed.clone());
    assert!(own.signed().verify(&trust, mesh.clock.now()).is_ok());
    let foreign = Control::of(mesh.ca("east")).introduce(changed);
    assert!(matches!(
        foreign.signed().verify(&trust, mesh.clock.now()),
        Err(IntroductionError::NotItsOwn { revision: 4, .. })
    ));
}

#[test]
fn two_introductions_of_one_name_with_different_roots_are_a_clash() {
    let mesh = Mesh::per_cluster(&["east", "west"]);
    let control = Control::of(mesh.ca("east"));
    let mut membership = Membership::default();
    membership.merge(control.introduce(member(mesh.ca("west"), 1, 0)));
    let other = Ca::create_root("west", &domain("west"), at(START), &mut SystemRandom).unwrap();
    let merged = membership.merge(control.introduce(member(&other, 2, 0)));
    assert_eq!(merged, Merged::Clash { cluster: "west".to_owned() });
    assert!(membership.member("west").is_none(), "neither is a member");
}

#[test]
fn a_newcomer_believes_everyone_through_the_one_it_joined() {
    let mesh = Mesh::per_cluster(&["east", "north", "south", "west"]);
    let east_control = Control::of(mesh.ca("east"));
    let mut east = Membership::default();
    for cluster in ["east", "north", "west"] {
        east.merge(east_control.introduce(member(mesh.ca(cluster), 1, 0)));
    }
    east.merge(east_control.revoke(&member(mesh.ca("west"), 1, 0)));
    // North changed its own record meanwhile, and introduced south.
    let north_control = Control::of(mesh.ca("north"));
    let mut statements = east.reintroduce(east_control.signer(), at(START)).unwrap();
    statements.insert(0, north_control.introduce(member(mesh.ca("north"), 1, 2)).signed().clone());
    statements.insert(0, north_control.introduce(member(mesh.ca("south"), 1, 0)).signed().clone());

    // The newcomer knows itself and, proven by the token, east.
    let newcomer = Ca::create_root("fifth", &domain("fifth"), at(START), &mut SystemRandom).unwrap();
    let mut membership = Membership::default();
    membership.merge(Control::of(&newcomer).introduce(member(mesh.ca("east"), 1, 0)));
    let (_, refused) = membership.absorb(&statements, &|known| trust_of(&newcomer, known), at(START));
    assert!(refused.is_empty(), "{refused:?}");
    let members: Vec<&str> = membership.members().map(|member| member.cluster.as_str()).collect();
    assert_eq!(members, ["east", "north", "south"]);
    assert_eq!(membership.member("north").unwrap().revision, 2);
    assert!(membership.tombstone("west").is_some());
    let trust = trust_of(&newcomer, &membership);
    assert!(trust.domain("west.shop.example").unwrap().revoked);
    assert!(!trust.domain("south.shop.example").unwrap().revoked);
}

#[test]
fn a_detached_cluster_cannot_bring_itself_back() {
    let mesh = Mesh::per_cluster(&["east", "west"]);
    let east_control = Control::of(mesh.ca("east"));
    let mut membership = Membership::default();
    membership.merge(east_control.introduce(member(mesh.ca("west"), 1, 0)));
    membership.merge(east_control.revoke(&member(mesh.ca("west"), 1, 0)));
    let trust = trust_of(mesh.ca("east"), &membership);
    let itself = Control::of(mesh.ca("west")).introduce(member(mesh.ca("west"), 2, 0));
    assert!(matches!(
        itself.signed().verify(&trust, at(START)),
        Err(IntroductionError::Signer(VerifyError::RevokedCluster { .. }))
    ));
    // The same or an older incarnation does not come back whoever says so; a younger one does.
    membership.merge(east_control.introduce(member(mesh.ca("west"), 1, 9)));
    assert!(membership.member("west").is_none());
    membership.merge(east_control.introduce(member(mesh.ca("west"), 2, 0)));
    assert!(membership.member("west").is_some());
    assert!(!trust_of(mesh.ca("east"), &membership).domain("west.shop.example").unwrap().revoked);
}

#[test]
fn membership_survives_its_store() {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let control = Control::of(mesh.ca("east"));
    let mut membership = Membership::default();
    membership.merge(control.introduce(member(mesh.ca("north"), 3, 0)));
    membership.merge(control.revoke(&member(mesh.ca("west"), 1, 0)));
    let stored = serde_json::to_string(&membership.statements().collect::<Vec<_>>()).unwrap();
    let statements: Vec<fairlead_identity::SignedStatement> = serde_json::from_str(&stored).unwrap();
    let mut again = Membership::default();
    for statement in statements {
        again.merge(statement.stored().unwrap());
    }
    assert_eq!(again, membership);
}

#[test]
fn trust_follows_admission_bounds_and_local_detachment() {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let control = Control::of(mesh.ca("east"));
    let mut membership = Membership::default();
    for cluster in ["north", "west"] {
        membership.merge(control.introduce(member(mesh.ca(cluster), 1, 0)));
    }
    let bounds = BTreeMap::from([("north".to_owned(), NamespaceBound::Only(BTreeSet::from(["shop".to_owned()])))]);
    let here = BTreeSet::from(["west".to_owned()]);
    let admitted = BTreeSet::from(["north".to_owned()]);
    let policy = |detached_here, admitted| TrustPolicy { namespaces: &bounds, detached_here, admitted };
    let east = mesh.ca("east");
    let keys = BTreeSet::from([east.issuing_key()]);
    let nobody = BTreeSet::new();
    let set = membership.trust("east", east.bundle(), &keys, policy(&here, None)).unwrap();
    assert!(set.domain("west.shop.example").unwrap().revoked);
    assert_eq!(set.domain("north.shop.example").unwrap().namespaces, bounds["north"]);
    assert_eq!(set.domain("east.shop.example").unwrap().cluster.as_deref(), Some("east"));
    let set = membership.trust("east", east.bundle(), &keys, policy(&nobody, Some(&admitted))).unwrap();
    assert!(set.domain("west.shop.example").is_none(), "not approved yet");
}

#[test]
fn shared_trust_follows_issuing_keys() {
    let shop = TrustDomain::new("cluster.local").unwrap();
    let root = SharedRoot::create(&shop, at(START), &mut SystemRandom).unwrap();
    let ca = |cluster: &str| root.intermediate(cluster, at(START), &mut SystemRandom).unwrap();
    let (east, north, west) = (ca("east"), ca("north"), ca("west"));
    let control = Control::of(&east);
    let mut membership = Membership::new(true);
    membership.merge(control.introduce(member(&north, 1, 0)));
    membership.merge(control.revoke(&member(&west, 1, 0)));
    let keys = BTreeSet::from([east.issuing_key()]);
    let set = membership.trust("east", east.bundle(), &keys, everyone()).unwrap();
    let issuers = &set.domain("cluster.local").unwrap().issuers;
    assert_eq!(issuers.len(), 3);
    assert!(issuers[&west.issuing_key()].revoked);
    assert!(!issuers[&north.issuing_key()].revoked);

    let mut same_key = member(&north, 1, 0);
    same_key.cluster = "south".to_owned();
    membership.merge(control.introduce(same_key));
    let (set, conflicts) = membership.trust_and_conflicts("east", east.bundle(), &keys, everyone()).unwrap();
    let issuers = &set.domain("cluster.local").unwrap().issuers;
    assert!(!issuers.contains_key(&north.issuing_key()), "neither is believed");
    assert!(issuers[&west.issuing_key()].revoked, "and revocations go on taking effect");
    let told = conflicts[0].to_string();
    assert!(told.contains("north and south claim one issuing key"), "{told}");
    // The own key is nobody else's to claim or revoke.
    let mut thief = member(&east, 1, 0);
    thief.cluster = "thief".to_owned();
    membership.merge(control.revoke(&thief));
    let set = membership.trust("east", east.bundle(), &keys, everyone()).unwrap();
    let own = &set.domain("cluster.local").unwrap().issuers[&east.issuing_key()];
    assert_eq!((own.cluster.as_str(), own.revoked), ("east", false));
}

#[test]
fn a_false_claim_to_a_trust_domain_costs_but_never_opens() {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let east = mesh.ca("east");
    let control = Control::of(east);
    let mut membership = Membership::default();
    membership.merge(control.introduce(member(mesh.ca("north"), 1, 0)));
    membership.merge(control.introduce(member(mesh.ca("west"), 1, 0)));
    // North introduces a cluster of its own making under west's domain, and one under east's.
    for (name, victim) in [("fake-one", "west"), ("fake-two", "east")] {
        let fake = Ca::create_root(name, &domain(victim), at(START), &mut SystemRandom).unwrap();
        membership.merge(control.introduce(member(&fake, 1, 0)));
    }
    let keys = BTreeSet::from([east.issuing_key()]);
    let (set, conflicts) = membership.trust_and_conflicts("east", east.bundle(), &keys, everyone()).unwrap();
    assert_eq!(conflicts.len(), 2, "{conflicts:?}");
    assert!(set.domain("west.shop.example").is_none());
    assert_eq!(set.domain("east.shop.example").unwrap().bundle.as_ref(), Some(east.bundle()));
    // Detaching north works all the same, and detaching the fakes heals.
    membership.merge(control.revoke(&member(mesh.ca("north"), 1, 0)));
    assert!(trust_of(east, &membership).domain("north.shop.example").unwrap().revoked);
    for name in ["fake-one", "fake-two"] {
        let fake = membership.member(name).unwrap().clone();
        membership.merge(control.revoke(&fake));
    }
    let set = trust_of(east, &membership);
    assert!(!set.domain("west.shop.example").unwrap().revoked);
    assert!(!set.domain("east.shop.example").unwrap().revoked);
}
