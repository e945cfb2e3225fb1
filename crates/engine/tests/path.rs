//! The path state machine against the staleness contract.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

use fairlead_engine::path::{Path, PathEvent, PathState};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn fail_three_times(path: &mut Path, now: Instant) {
    for _ in 0..3 {
        path.on(PathEvent::ConnectFailed, now);
    }
}

/// Lets a path live by its own wishes, all probes failing or succeeding, until `until`.
fn live(path: &mut Path, mut now: Instant, until: Instant, answers: bool) -> Instant {
    while now < until {
        if path.wants_probe(now) {
            path.probe_sent(now);
            if answers {
                path.on(PathEvent::ProbeOk, now);
            }
        }
        let next = path.next_wake(now).unwrap_or(until).max(now + Duration::from_millis(1));
        now = next.min(until);
        path.tick(now);
    }
    now
}

#[test]
fn a_blackholed_path_is_out_of_rotation_well_within_ten_seconds() {
    // The quietest failure: one unanswered PING, 3 s after the last good byte, then nothing but silent probes.
    for event in [PathEvent::PingFailed, PathEvent::UserTimeout, PathEvent::ConnectFailed] {
        let start = Instant::now();
        let mut path = Path::new();
        path.on(PathEvent::PingOk, start);
        let seen = start + secs(3);
        assert!(path.on(event, seen));
        assert!(matches!(path.state(), PathState::Suspect { .. }) && !path.is_down());
        assert!(path.wants_probe(seen), "in doubt: probe at once");
        live(&mut path, seen, seen + secs(4), false);
        assert!(path.is_down(), "{event:?}");
    }
}

#[test]
fn doubt_ends_with_any_good_sign() {
    for event in [PathEvent::ProbeOk, PathEvent::PingOk, PathEvent::ConnectOk] {
        let now = Instant::now();
        let mut path = Path::new();
        path.on(PathEvent::ConnectFailed, now);
        path.on(PathEvent::ConnectFailed, now);
        assert!(path.on(event, now + secs(1)));
        assert_eq!(path.state(), PathState::Up);
        // And what was held against it is forgotten.
        path.on(PathEvent::ConnectFailed, now + secs(2));
        assert!(!path.is_down());
    }
}

#[test]
fn three_failures_in_a_row_settle_it() {
    let now = Instant::now();
    let mut path = Path::new();
    path.on(PathEvent::ConnectFailed, now);
    path.on(PathEvent::ConnectFailed, now);
    assert!(!path.is_down());
    path.on(PathEvent::ConnectFailed, now);
    assert!(path.is_down());
}

#[test]
fn only_a_good_probe_brings_it_back_and_under_a_ramp() {
    let start = Instant::now();
    let mut path = Path::new();
    fail_three_times(&mut path, start);
    let now = start + secs(5);
    path.on(PathEvent::ConnectOk, now);
    assert!(path.is_down(), "a straggler is no probe");
    assert!(path.wants_probe(now), "but worth one at once");
    path.probe_sent(now);
    assert!(!path.wants_probe(now + secs(60)), "one at a time");
    assert!(path.on(PathEvent::ProbeOk, now));
    assert_eq!(path.state(), PathState::Returning { since: now });
    let tenths: Vec<u8> = (0..10).map(|second| path.ramp(now + secs(second)).tenths()).collect();
    assert_eq!(tenths, [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(path.next_wake(now), Some(now + secs(1)), "balancers are rebuilt every step");
    assert!(path.tick(now + secs(10)));
    assert_eq!((path.state(), path.ramp(now + secs(10)).is_full()), (PathState::Up, true));
}

#[test]
fn it_returns_within_seconds_of_answering_again() {
    let start = Instant::now();
    let mut path = Path::new();
    fail_three_times(&mut path, start);
    let healed = live(&mut path, start, start + secs(60), false);
    let back = live(&mut path, healed, healed + secs(4), true);
    assert!(matches!(path.state(), PathState::Returning { .. }), "at {:?}", back - healed);
}

#[test]
fn a_failure_while_returning_is_the_end_of_it() {
    let start = Instant::now();
    let mut path = Path::new();
    fail_three_times(&mut path, start);
    path.on(PathEvent::ProbeOk, start + secs(2));
    assert!(path.on(PathEvent::PingFailed, start + secs(3)) && path.is_down());
}

#[test]
fn reports_are_weighed_against_own_evidence() {
    let now = Instant::now();
    let mut unused = Path::new();
    unused.on(PathEvent::ReportedDown, now);
    assert!(unused.is_down(), "nobody here knows better");
    unused.on(PathEvent::ProbeFailed, now + secs(1));
    assert!(!unused.wants_probe(now + secs(1)));
    unused.on(PathEvent::ReportedUp, now + secs(1));
    assert!(unused.is_down() && unused.wants_probe(now + secs(1)), "a report is no probe");
    let mut used = Path::new();
    used.on(PathEvent::PingOk, now);
    used.on(PathEvent::ReportedDown, now + secs(1));
    assert!(!used.is_down() && used.wants_probe(now + secs(1)), "own evidence is fresher");
}

fn event() -> impl Strategy<Value = PathEvent> {
    use PathEvent::*;
    prop_oneof![
        Just(ConnectOk),
        Just(ConnectFailed),
        Just(PingOk),
        Just(PingFailed),
        Just(UserTimeout),
        Just(ProbeOk),
        Just(ProbeFailed),
        Just(ReportedDown),
        Just(ReportedUp)
    ]
}

proptest! {
    #[test]
    fn nothing_returns_without_a_good_probe(events in proptest::collection::vec((event(), 0u64..3000), 0..60)) {
        let mut now = Instant::now();
        let mut path = Path::new();
        for (event, pause) in events {
            now += Duration::from_millis(pause);
            path.tick(now);
            let was_down = path.is_down();
            let before = path.state();
            let changed = path.on(event, now);
            prop_assert!(changed == (before != path.state()));
            if was_down && !path.is_down() {
                prop_assert_eq!(event, PathEvent::ProbeOk);
            }
            // Whatever happens, somebody will look again, or nothing can change by itself.
            let settled = matches!(path.state(), PathState::Up);
            prop_assert!(path.next_wake(now).is_some() || settled);
        }
        // Left alone without a good sign, doubt ends in being down.
        if let PathState::Suspect { .. } = path.state() {
            path.tick(now + secs(5));
            prop_assert!(path.is_down());
        }
    }
}
