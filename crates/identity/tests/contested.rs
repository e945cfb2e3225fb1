//! Two authorities under one name: a false introduction puts out, as a revocation does, and opens nothing. What is asserted is whose
//! certificates are believed, not what the set says of itself.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairlead_identity::{
    Ca, Introduction, IntroductionError, LeafRequest, Member, Membership, NamespaceBound, SharedRoot, SignedStatement,
    Statement, SystemRandom, TrustBundle, TrustBundleSet, TrustConflict, TrustDomain, TrustPolicy, WorkloadKey,
    verdict,
};
use mesh::control::{Control, member};
use mesh::{Mesh, START, at, domain};
use rustls::pki_types::CertificateDer;

const DAY: u64 = 24 * 3600;

fn derive(of: &Ca, membership: &Membership) -> (TrustBundleSet, Vec<TrustConflict>) {
    static NO_BOUNDS: BTreeMap<String, NamespaceBound> = BTreeMap::new();
    static NOBODY: BTreeSet<String> = BTreeSet::new();
    let policy = TrustPolicy { namespaces: &NO_BOUNDS, detached_here: &NOBODY, admitted: None };
    let keys = BTreeSet::from([of.issuing_key()]);
    membership.trust_and_conflicts(of.cluster(), of.bundle(), &keys, policy).unwrap()
}

fn leaf(of: &Ca) -> Vec<CertificateDer<'static>> {
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let identity = of.trust_domain().service_account("shop", "frontend").unwrap();
    let lifetime = Duration::from_secs(3600);
    let request =
        LeafRequest { csr_der: &csr, identity: &identity, workload: None, pod_uid: None, lifetime, now: at(START) };
    of.issue(&request, &mut SystemRandom).unwrap()
}

/// Is a workload with a certificate of `issuer` taken for one of its cluster, by the control plane of `of`?
fn believes(of: &Ca, membership: &Membership, issuer: &Ca) -> bool {
    let believed = verdict(&leaf(issuer), &derive(of, membership).0, at(START));
    believed.is_ok_and(|peer| peer.cluster.as_deref() == Some(issuer.cluster()))
}

fn absorb(of: &Ca, membership: &mut Membership, said: &[&Introduction]) -> Vec<IntroductionError> {
    let statements: Vec<SignedStatement> = said.iter().map(|said| said.signed().clone()).collect();
    let (_, refused) = membership.absorb(&statements, &|known| derive(of, known).0, at(START));
    refused.into_iter().map(|(_, error)| error).collect()
}

/// East, north and west, each introduced by east with its first incarnation; north is hostile and has a root of its own for west.
struct Scene {
    mesh: Mesh,
    east: Control,
    north: Control,
    false_west: Ca,
    known: Membership,
}

fn scene() -> Scene {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let (east, north) = (Control::of(mesh.ca("east")), Control::of(mesh.ca("north")));
    let mut known = Membership::default();
    for ca in mesh.cas.values() {
        known.merge(east.introduce(member(ca, 1, 0)));
    }
    let false_west = Ca::create_root("west", &domain("west"), at(START), &mut SystemRandom).unwrap();
    Scene { mesh, east, north, false_west, known }
}

impl Scene {
    fn west(&self) -> &Ca {
        self.mesh.ca("west")
    }

    /// Real, then false.
    fn believed(&self, by: &str, membership: &Membership) -> (bool, bool) {
        let by = self.mesh.ca(by);
        (believes(by, membership, self.west()), believes(by, membership, &self.false_west))
    }
}

#[test]
fn a_false_introduction_puts_out_and_opens_nothing_until_a_revocation_covers_it() {
    let scene = scene();
    assert_eq!(scene.believed("east", &scene.known), (true, false));
    let falsehood = scene.north.introduce(member(&scene.false_west, 2, 0));
    // What the false cluster says of itself, under the name that it is to take.
    let itself = Control::of(&scene.false_west).introduce(member(&scene.false_west, 2, 7));
    let mut east = scene.known.clone();
    let refused = absorb(scene.mesh.ca("east"), &mut east, &[&itself, &falsehood, &itself]);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(scene.believed("east", &east), (false, false));
    let conflicts = derive(scene.mesh.ca("east"), &east).1;
    assert!(matches!(conflicts.as_slice(), [TrustConflict::Contested { cluster, .. }] if cluster == "west"));
    let told = conflicts[0].to_string();
    assert!(told.contains("detach west, then join the real one again"), "{told}");
    for ca in [scene.west(), &scene.false_west] {
        assert!(told.contains(&ca.root_fingerprint().unwrap().to_string()), "{told}");
    }
    // Nobody else is concerned.
    assert!(believes(scene.mesh.ca("east"), &east, scene.mesh.ca("north")));

    // The remedy: a tombstone covers both; then the real one joins again.
    let tombstone = east.tombstone_of("west").unwrap();
    assert_eq!(tombstone.incarnation, 2);
    east.merge(Statement::Revoke(tombstone).sign(scene.east.signer(), at(START)).unwrap());
    assert_eq!(scene.believed("east", &east), (false, false));
    east.merge(falsehood);
    east.merge(scene.east.introduce(member(scene.west(), 3, 0)));
    assert_eq!(scene.believed("east", &east), (true, false));
}

#[test]
fn the_own_cluster_is_not_put_out_by_claims_to_its_name() {
    let scene = scene();
    let mut west = scene.known.clone();
    for incarnation in 2..=5 {
        let other = Ca::create_root("west", &domain("west"), at(START), &mut SystemRandom).unwrap();
        absorb(scene.west(), &mut west, &[&scene.north.introduce(member(&other, incarnation, 0))]);
        absorb(scene.west(), &mut west, &[&scene.north.introduce(member(&scene.false_west, incarnation, 0))]);
        assert_eq!(scene.believed("west", &west), (true, false));
        assert!(believes(scene.west(), &west, scene.mesh.ca("east")), "nor are the others, to it");
        assert!(matches!(derive(scene.west(), &west).1.as_slice(), [TrustConflict::Contested { .. }]), "it is told");
    }
}

#[test]
fn a_root_of_ones_own_beside_anothers_is_not_believed() {
    let scene = scene();
    let roots = |order: [&Ca; 2]| order.map(|ca| ca.bundle().roots().next().unwrap().clone());
    for (order, believed) in [
        // By its first root it passes for west, and nothing but that root is taken of it.
        ([scene.west(), &scene.false_west], (true, false)),
        ([&scene.false_west, scene.west()], (false, false)),
    ] {
        let bundle = TrustBundle::new(domain("west"), 9, roots(order)).unwrap();
        let mixed = Member { bundle, ..member(scene.west(), 2, 0) };
        let mut east = scene.known.clone();
        let itself = Control::of(&scene.false_west).introduce(Member { revision: 1, ..mixed.clone() });
        absorb(scene.mesh.ca("east"), &mut east, &[&scene.north.introduce(mixed.clone()), &itself]);
        assert_eq!(scene.believed("east", &east), believed);
    }
    // What west itself says of its roots is believed.
    let bundle = TrustBundle::new(domain("west"), 2, roots([scene.west(), &scene.false_west])).unwrap();
    let own = Control::of(scene.west()).introduce(Member { bundle, ..member(scene.west(), 1, 1) });
    let mut east = scene.known.clone();
    assert_eq!(absorb(scene.mesh.ca("east"), &mut east, &[&own]), []);
    assert_eq!(scene.believed("east", &east), (true, true));
}

#[test]
fn a_newcomer_that_heard_the_false_one_first_believes_neither_once_it_hears_the_real_one() {
    let scene = scene();
    let newcomer = Ca::create_root("fifth", &domain("fifth"), at(START), &mut SystemRandom).unwrap();
    let mut known = Membership::default();
    known.merge(Control::of(&newcomer).introduce(member(scene.mesh.ca("north"), 1, 0)));
    let east = scene.north.introduce(member(scene.mesh.ca("east"), 1, 0));
    let falsehood = scene.north.introduce(member(&scene.false_west, 1, 0));
    let itself = Control::of(&scene.false_west).introduce(member(&scene.false_west, 1, 90));
    absorb(&newcomer, &mut known, &[&falsehood, &itself, &east]);
    assert!(believes(&newcomer, &known, &scene.false_west), "it has nobody's word but north's");
    absorb(&newcomer, &mut known, &[&scene.east.introduce(member(scene.west(), 1, 0))]);
    assert!(!believes(&newcomer, &known, &scene.false_west));
    assert!(!believes(&newcomer, &known, scene.west()));
    assert!(believes(&newcomer, &known, scene.mesh.ca("east")));
}

#[test]
fn a_member_that_missed_the_revocation_hears_of_it_with_the_new_incarnation() {
    let scene = scene();
    let anew = Ca::create_root("west", &domain("west"), at(START), &mut SystemRandom).unwrap();
    let mut east = scene.known.clone();
    east.merge(scene.east.revoke(&member(scene.west(), 1, 0)));
    east.merge(scene.east.introduce(member(&anew, 2, 0)));
    // North was away and still holds the first west.
    let mut north = scene.known.clone();
    let statements: Vec<SignedStatement> = east.statements().cloned().collect();
    let trust = |known: &Membership| derive(scene.mesh.ca("north"), known).0;
    let (_, refused) = north.absorb(&statements, &trust, at(START));
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(north, east);
    for of in ["east", "north"] {
        assert!(believes(scene.mesh.ca(of), &north, &anew));
        assert!(!believes(scene.mesh.ca(of), &north, scene.west()));
    }
    // A newcomer is told too, so that the first west's return is no claim there.
    let told = east.reintroduce(scene.east.signer(), at(START)).unwrap();
    let mut newcomer = Membership::default();
    newcomer.absorb(&told, &|_| scene.mesh.trust.get().as_ref().clone(), at(START));
    newcomer.merge(scene.north.introduce(member(scene.west(), 1, 0)));
    assert_eq!(newcomer.member("west").unwrap().incarnation, 2);
}

#[test]
fn incarnations_that_no_clock_reaches_are_refused() {
    let scene = scene();
    let west = |incarnation| member(scene.west(), incarnation, 0);
    let latest = START + DAY;
    for (incarnation, good) in [(latest, true), (latest + 1, false), (u64::MAX, false)] {
        for said in [scene.north.introduce(west(incarnation)), scene.north.revoke(&west(incarnation))] {
            let mut east = scene.known.clone();
            let refused = absorb(scene.mesh.ca("east"), &mut east, &[&said]);
            assert_eq!(refused.is_empty(), good, "{refused:?}");
            if !good {
                let expected = IntroductionError::IncarnationAhead { cluster: "west".into(), incarnation, now: START };
                assert_eq!(refused, [expected]);
                assert_eq!(scene.believed("east", &east), (true, false));
            }
        }
    }
}

#[test]
fn where_trust_is_shared_another_issuing_key_is_another_authority() {
    let shop = TrustDomain::new("cluster.local").unwrap();
    let root = SharedRoot::create(&shop, at(START), &mut SystemRandom).unwrap();
    let ca = |cluster: &str| root.intermediate(cluster, at(START), &mut SystemRandom).unwrap();
    let (east, north, west, false_west) = (ca("east"), ca("north"), ca("west"), ca("west"));
    let control = Control::of(&east);
    let mut known = Membership::new(true);
    for ca in [&east, &north, &west] {
        known.merge(control.introduce(member(ca, 1, 0)));
    }
    assert!(believes(&east, &known, &west));
    // Under west's name a key of its own beside west's, and beside east's.
    for beside in [west.issuing_key(), east.issuing_key()] {
        let mut known = known.clone();
        let keys = BTreeSet::from([beside, false_west.issuing_key()]);
        let mixed = Member { issuing_keys: keys, ..member(&false_west, 2, 0) };
        assert_eq!(absorb(&east, &mut known, &[&Control::of(&north).introduce(mixed)]), []);
        assert!(!believes(&east, &known, &false_west));
        assert!(!believes(&east, &known, &west));
        assert!(believes(&north, &known, &east), "a third is not concerned");
        let tombstone = known.tombstone_of("west").unwrap();
        assert!(tombstone.issuing_keys.contains(&false_west.issuing_key()));
        known.merge(Statement::Revoke(tombstone).sign(control.signer(), at(START)).unwrap());
        assert!(!believes(&east, &known, &false_west));
        assert!(believes(&north, &known, &east), "nor by the remedy");
    }
}
