//! The promise of the crate, as properties of both state machines over a bad link.
//!
//! Random edits, wishes, cuts, restarts, late and repeated messages; then the link heals, and client, handler and
//! the server's books must agree with what is offered. The same property must fail for each planted bug: a test that
//! cannot fail proves nothing.

mod sotw;
mod world;

use crate::faults::Faults;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use world::{Op, World};

const CASES: u32 = 1_000;

#[test]
fn delta_clients_converge() {
    if let Err(failure) = explore(Faults::default()) {
        panic!("{failure}");
    }
}

#[test]
fn a_removal_lost_on_resume_is_found() {
    finds(Faults { lost_removal_on_resume: true, ..Faults::default() }, &["offered None, held Some"]);
}

#[test]
fn an_accepted_stale_nack_is_found() {
    finds(Faults { accept_stale_nack: true, ..Faults::default() }, &["booked as acked: false", "was unanswered"]);
}

#[test]
fn an_applied_reordered_version_is_found() {
    finds(Faults { apply_reordered: true, ..Faults::default() }, &["offered"]);
}

#[test]
fn state_of_the_world_clients_converge() {
    let result = runner().run(&vec(sotw::op(), 0..100), |ops| {
        let mut world = sotw::World::new();
        ops.iter().for_each(|op| world.step(op));
        world.heal().map_err(TestCaseError::fail)
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

fn finds(faults: Faults, symptoms: &[&str]) {
    let failure = explore(faults).expect_err("the planted bug must be found");
    let TestError::Fail(reason, _) = &failure else { panic!("{failure}") };
    let told = |symptom: &&str| reason.message().contains(*symptom);
    assert!(symptoms.iter().any(told), "{failure}");
}

fn explore(faults: Faults) -> Result<(), TestError<Vec<Op>>> {
    runner().run(&vec(op(), 0..120), |ops| {
        let mut world = World::new(faults);
        for op in &ops {
            world.step(op).map_err(TestCaseError::fail)?;
        }
        world.heal().map_err(TestCaseError::fail)
    })
}

/// Always the same cases: a failure is a failure on every machine.
fn runner() -> TestRunner {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn op() -> impl Strategy<Value = Op> {
    let (kind, name) = (0..world::TYPES.len(), 0..world::NAMES.len());
    prop_oneof![
        6 => (kind.clone(), name.clone(), 0..world::VERSIONS.len()).prop_map(|(t, n, v)| Op::Put(t, n, v)),
        4 => (kind.clone(), name.clone()).prop_map(|(t, n)| Op::Remove(t, n)),
        4 => Just(Op::Publish),
        3 => (kind.clone(), name.clone()).prop_map(|(t, n)| Op::Subscribe(t, n)),
        2 => (kind.clone(), name).prop_map(|(t, n)| Op::Unsubscribe(t, n)),
        1 => kind.prop_map(Op::SubscribeAll),
        6 => Just(Op::Speak),
        8 => Just(Op::Up),
        8 => Just(Op::Down),
        1 => Just(Op::RepeatDown),
        2 => Just(Op::CopyAnswer),
        2 => Just(Op::DeliverCopy),
        2 => Just(Op::Cut),
        3 => Just(Op::Open),
        1 => Just(Op::DeliverGhost),
        1 => Just(Op::RestartClient),
    ]
}
