//! Outlier detection, step by step as Envoy has it.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

use fairlead_engine::outlier::{Cause, Detector, TryResult};
use fairlead_engine::upstream::{EndpointKey, OutlierConfig};
use std::time::{Duration, Instant};

fn keys(count: usize) -> Vec<EndpointKey> {
    (0..count).map(|n| EndpointKey(format!("192.0.2.{n}:80").into())).collect()
}

fn detector(config: OutlierConfig, count: usize, now: Instant) -> (Detector, Vec<EndpointKey>) {
    let keys = keys(count);
    let mut detector = Detector::new(config, now);
    detector.keep(&keys);
    (detector, keys)
}

fn record(detector: &Detector, key: &EndpointKey, result: TryResult) -> Option<Cause> {
    detector.monitor(key).unwrap().record(detector.config(), result)
}

/// Fails an endpoint until it is reported, and reports it.
fn eject(detector: &mut Detector, key: &EndpointKey, now: Instant) -> bool {
    for _ in 0..100 {
        if let Some(cause) = record(detector, key, TryResult::Status(500)) {
            return detector.report(key, cause, now, 0);
        }
    }
    false
}

#[test]
fn five_in_a_row_and_a_success_between_starts_anew() {
    let now = Instant::now();
    let (detector, keys) = detector(OutlierConfig::default(), 3, now);
    for _ in 0..4 {
        assert_eq!(record(&detector, &keys[0], TryResult::Status(503)), None);
    }
    assert_eq!(record(&detector, &keys[0], TryResult::Status(200)), None);
    for _ in 0..4 {
        assert_eq!(record(&detector, &keys[0], TryResult::ConnectFailed), None);
    }
    assert_eq!(record(&detector, &keys[0], TryResult::Timeout), Some(Cause::Consecutive5xx));
    // Told once; others are untouched.
    assert_eq!(record(&detector, &keys[0], TryResult::Status(500)), None);
    assert_eq!(record(&detector, &keys[1], TryResult::Status(500)), None);
}

#[test]
fn gateway_errors_are_enforced_only_where_told() {
    let now = Instant::now();
    let config = OutlierConfig { consecutive_gateway_failure: 2, consecutive_5xx: 0, ..OutlierConfig::default() };
    let (mut lenient, keys) = detector(config.clone(), 3, now);
    record(&lenient, &keys[0], TryResult::Status(502));
    let cause = record(&lenient, &keys[0], TryResult::Status(504));
    assert_eq!(cause, Some(Cause::ConsecutiveGatewayFailure));
    assert!(!lenient.report(&keys[0], Cause::ConsecutiveGatewayFailure, now, 0), "enforcing is 0 by default");
    let (mut strict, keys) = detector(OutlierConfig { enforcing_consecutive_gateway_failure: 100, ..config }, 3, now);
    record(&strict, &keys[0], TryResult::Status(502));
    // A 500 is a 5xx and no gateway error.
    record(&strict, &keys[0], TryResult::Status(500));
    assert_eq!(record(&strict, &keys[0], TryResult::Status(502)), None);
    assert_eq!(record(&strict, &keys[0], TryResult::Status(503)), Some(Cause::ConsecutiveGatewayFailure));
    assert!(strict.report(&keys[0], Cause::ConsecutiveGatewayFailure, now, 99));
}

#[test]
fn own_failures_count_apart_when_split() {
    let now = Instant::now();
    let config =
        OutlierConfig { split_local_origin: true, consecutive_local_origin_failure: 2, ..OutlierConfig::default() };
    let (detector, keys) = detector(config, 3, now);
    assert_eq!(record(&detector, &keys[0], TryResult::ConnectFailed), None);
    // A response does not reset what connecting counts, a connection does.
    assert_eq!(record(&detector, &keys[0], TryResult::Status(200)), None);
    assert_eq!(record(&detector, &keys[0], TryResult::Reset), Some(Cause::ConsecutiveLocalOriginFailure));
    record(&detector, &keys[1], TryResult::Timeout);
    record(&detector, &keys[1], TryResult::Connected);
    assert_eq!(record(&detector, &keys[1], TryResult::Timeout), None);
}

#[test]
fn at_most_the_percentage_but_at_least_one() {
    let now = Instant::now();
    // 10 %: one of three may go, and no second.
    let (mut few, keys) = detector(OutlierConfig::default(), 3, now);
    assert!(eject(&mut few, &keys[0], now));
    assert!(!eject(&mut few, &keys[1], now));
    // 50 % of four: two, for 25 % is below 50 and 50 is not.
    let (mut half, keys) = detector(OutlierConfig { max_ejection_percent: 50, ..OutlierConfig::default() }, 4, now);
    let ejected: Vec<bool> = keys.iter().map(|key| eject(&mut half, key, now)).collect();
    assert_eq!(ejected, [true, true, false, false]);
    // 0 %: none, unless one always may.
    let (mut none, keys) = detector(OutlierConfig { max_ejection_percent: 0, ..OutlierConfig::default() }, 4, now);
    assert!(!eject(&mut none, &keys[0], now));
    let always = OutlierConfig { max_ejection_percent: 0, always_eject_one: true, ..OutlierConfig::default() };
    let (mut one, keys) = detector(always, 4, now);
    assert!(eject(&mut one, &keys[0], now) && !eject(&mut one, &keys[1], now));
}

#[test]
fn ejections_last_longer_each_time_and_are_forgiven() {
    let start = Instant::now();
    let (mut detector, keys) = detector(OutlierConfig::default(), 10, start);
    let interval = Duration::from_secs(10);
    let mut now = start;
    // Sweeps until the endpoint is back; how long it was away.
    let away = |detector: &mut Detector, now: &mut Instant| {
        let since = *now;
        loop {
            *now += interval;
            if detector.sweep(*now).contains(&keys[0]) {
                return now.duration_since(since).as_secs();
            }
        }
    };
    assert!(eject(&mut detector, &keys[0], now) && detector.is_ejected(&keys[0]));
    assert!(detector.sweep(now + Duration::from_secs(1)).is_empty(), "not before the interval");
    assert_eq!(away(&mut detector, &mut now), 30);
    assert!(eject(&mut detector, &keys[0], now));
    assert_eq!(away(&mut detector, &mut now), 60);
    assert!(eject(&mut detector, &keys[0], now));
    assert_eq!(away(&mut detector, &mut now), 90);
    assert_eq!(detector.ejections(&keys[0]), 3);
    // Two good intervals forgive two.
    for _ in 0..2 {
        now += interval;
        detector.sweep(now);
    }
    assert!(eject(&mut detector, &keys[0], now));
    assert_eq!(away(&mut detector, &mut now), 60);
    // Never longer than the longest.
    for _ in 0..30 {
        assert!(eject(&mut detector, &keys[0], now));
        assert!(away(&mut detector, &mut now) <= 300);
    }
}

#[test]
fn endpoints_that_stay_keep_their_ejection() {
    let now = Instant::now();
    let (mut detector, keys) = detector(OutlierConfig::default(), 4, now);
    assert!(eject(&mut detector, &keys[1], now));
    detector.keep(&keys[1..3]);
    assert!(detector.is_ejected(&keys[1]) && detector.monitor(&keys[0]).is_none());
    detector.keep(&keys[2..]);
    assert!(!detector.is_ejected(&keys[1]));
    assert!(!detector.report(&keys[1], Cause::Consecutive5xx, now, 0), "it is gone");
}
