//! The merge of memberships does not depend on order, repetition or grouping, tombstones win, and what a hostile member introduces
//! under another's name is never believed in its place.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use fairlead_identity::{
    Ca, Introduction, Member, Membership, SpkiHash, Statement, SystemRandom, TrustBundle, TrustPolicy,
};
use mesh::control::{Control, member};
use mesh::{Mesh, START, at, domain};
use proptest::prelude::*;

/// Statements to shuffle, signed once: key generation is what costs.
struct Pool {
    mesh: Mesh,
    statements: Vec<Introduction>,
    /// The root of the real west, and the roots that north would pass off as west's.
    real: SpkiHash,
    false_roots: BTreeSet<SpkiHash>,
}

fn pool() -> &'static [Introduction] {
    &the_pool().statements
}

fn the_pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let mesh = Mesh::per_cluster(&["east", "north", "west"]);
        let controls: Vec<Control> = mesh.cas.values().map(Control::of).collect();
        let mut pool = Vec::new();
        for control in &controls {
            for ca in mesh.cas.values() {
                for incarnation in 1..=3 {
                    for revision in 0..=1 {
                        pool.push(control.introduce(member(ca, incarnation, revision)));
                    }
                    pool.push(control.revoke(&member(ca, incarnation, 0)));
                }
            }
        }
        let north = Control::of(mesh.ca("north"));
        let mut false_roots = BTreeSet::new();
        let real = mesh.ca("west").bundle().roots().next().unwrap().clone();
        for _ in 0..2 {
            let ca = Ca::create_root("west", &domain("west"), at(START), &mut SystemRandom).unwrap();
            let own = ca.bundle().roots().next().unwrap().clone();
            false_roots.insert(ca.root_fingerprint().unwrap());
            for incarnation in 1..=4 {
                for roots in [vec![own.clone()], vec![own.clone(), real.clone()], vec![real.clone(), own.clone()]] {
                    let bundle = TrustBundle::new(domain("west"), 1, roots).unwrap();
                    pool.push(north.introduce(Member { bundle, ..member(&ca, incarnation, 0) }));
                }
            }
        }
        let real = mesh.ca("west").root_fingerprint().unwrap();
        Pool { mesh, statements: pool, real, false_roots }
    })
}

/// The roots that east believes of west's trust domain.
fn believed_of_west(membership: &Membership) -> BTreeSet<SpkiHash> {
    let east = the_pool().mesh.ca("east");
    let policy = TrustPolicy { namespaces: &BTreeMap::new(), detached_here: &BTreeSet::new(), admitted: None };
    let trust = membership.trust("east", east.bundle(), &BTreeSet::from([east.issuing_key()]), policy).unwrap();
    let west = trust.domain("west.shop.example").filter(|west| !west.revoked);
    west.and_then(|west| west.bundle.as_ref()).map(|bundle| bundle.fingerprints().collect()).unwrap_or_default()
}

fn merged<'a>(statements: impl IntoIterator<Item = &'a Introduction>) -> Membership {
    let mut membership = Membership::default();
    for statement in statements {
        membership.merge(statement.clone());
    }
    membership
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Any order, any repetition, any grouping: the same set.
    #[test]
    fn merging_does_not_depend_on_order(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        order in prop::collection::vec(any::<u32>(), 40),
        split in any::<prop::sample::Index>(),
    ) {
        let statements: Vec<&Introduction> = picks.iter().map(|pick| pick.get(pool())).collect();
        let expected = merged(statements.iter().copied());

        let mut shuffled: Vec<(u32, &Introduction)> = order.iter().copied().zip(statements.iter().copied()).collect();
        shuffled.sort_by_key(|(key, _)| *key);
        let mut twice: Vec<&Introduction> = shuffled.iter().map(|(_, statement)| *statement).collect();
        twice.extend(statements.iter().copied());
        prop_assert_eq!(&merged(twice), &expected);

        let (left, right) = statements.split_at(split.index(statements.len()));
        let (mut one, mut two) = (merged(left.iter().copied()), merged(right.iter().copied()));
        let before = one.clone();
        one.union(&two);
        two.union(&before);
        prop_assert_eq!(&one, &expected);
        prop_assert_eq!(&two, &expected);
        prop_assert!(one.union(&two).is_empty());
    }

    /// A tombstone beats every introduction of the same or an older incarnation, whenever it comes.
    #[test]
    fn tombstones_win(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40)) {
        let statements: Vec<&Introduction> = picks.iter().map(|pick| pick.get(pool())).collect();
        let membership = merged(statements.iter().copied());
        for statement in statements {
            if let Statement::Revoke(tombstone) = statement.statement() {
                for claim in membership.claims(&tombstone.cluster) {
                    prop_assert!(claim.incarnation > tombstone.incarnation);
                }
            }
        }
    }

    /// Whatever is said besides: while no revocation covers the real west, its name is believed of nobody else; and of itself exactly
    /// when nothing false is as young as what is not revoked.
    #[test]
    fn a_name_is_never_anothers_while_its_owner_is_in(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let pool = the_pool();
        let statements: Vec<&Introduction> = picks.iter().map(|pick| pick.get(&pool.statements)).collect();
        let membership = merged(statements.iter().copied());
        let (mut revoked, mut real, mut others) = (0, 0, 0);
        for statement in &statements {
            match statement.statement() {
                Statement::Revoke(tombstone) if tombstone.cluster == "west" => revoked = revoked.max(tombstone.incarnation),
                Statement::Introduce(member) if member.cluster == "west" => {
                    let is_real = member.bundle.fingerprints().next() == Some(pool.real);
                    let newest = if is_real { &mut real } else { &mut others };
                    *newest = member.incarnation.max(*newest);
                }
                _ => {}
            }
        }
        let believed = believed_of_west(&membership);
        if real > revoked {
            prop_assert!(believed.is_disjoint(&pool.false_roots));
            prop_assert_eq!(believed.contains(&pool.real), others <= revoked);
        }
        prop_assert!(membership.statements().count() <= 3 * 3, "three at most of each name");
    }
}
