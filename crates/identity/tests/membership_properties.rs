//! The merge of memberships does not depend on order, repetition or grouping, and tombstones win.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::sync::OnceLock;

use fairlead_identity::{Introduction, Membership, Statement};
use mesh::Mesh;
use mesh::control::{Control, member};
use proptest::prelude::*;

/// Statements to shuffle, signed once: key generation is what costs.
fn pool() -> &'static [Introduction] {
    static POOL: OnceLock<Vec<Introduction>> = OnceLock::new();
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
        pool
    })
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
            if let Statement::Revoke(tombstone) = statement.statement()
                && let Some(member) = membership.member(&tombstone.cluster)
            {
                prop_assert!(member.incarnation > tombstone.incarnation);
            }
        }
    }
}
