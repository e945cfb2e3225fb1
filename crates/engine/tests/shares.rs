//! Shares against tables, and picks against shares.

// Functions beside the tests are tests too; clippy sees only those marked as such.
#![allow(clippy::unwrap_used)]

mod support;

use fairlead_engine::balance::{
    Condition, EndpointState, Group, Member, Policy, Ramp, ShareInput, TierHealth, priority_loads, shares,
};
use fairlead_engine::upstream::LbPolicy;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Priorities {
    why: String,
    tiers: Vec<[u64; 3]>,
    #[serde(default)]
    threshold: f64,
    load: Vec<u32>,
    degraded: Option<Vec<u32>>,
    panic: Option<Vec<bool>>,
}

#[test]
fn priorities() {
    for case in support::cases::<Priorities>("shares/priorities.yaml") {
        let tiers: Vec<TierHealth> = case
            .tiers
            .iter()
            .map(|[healthy, degraded, total]| TierHealth { total: *total, healthy: *healthy, degraded: *degraded })
            .collect();
        let loads = priority_loads(&tiers, 140, case.threshold);
        assert_eq!(loads.healthy, case.load, "{}", case.why);
        assert_eq!(loads.degraded, case.degraded.unwrap_or(vec![0; tiers.len()]), "{}", case.why);
        assert_eq!(loads.panic, case.panic.unwrap_or(vec![false; tiers.len()]), "{}", case.why);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoints {
    why: String,
    #[serde(default)]
    policy: PolicyCase,
    #[serde(default)]
    localities: BTreeMap<String, u32>,
    endpoints: BTreeMap<String, Vec<serde_json::Value>>,
    shares: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct PolicyCase {
    lb: Option<String>,
    locality_weighted: bool,
    failover_when_none: bool,
    panic: f64,
}

#[test]
fn endpoints() {
    for case in support::cases::<Endpoints>("shares/endpoints.yaml") {
        let (members, groups, policy) = read(&case);
        let got = shares(&ShareInput { members: &members, groups: &groups, policy });
        for (name, share) in case.endpoints.keys().zip(&got) {
            let want = fraction(&case.shares[name]);
            assert!((share - want).abs() < 1e-9, "{}: {name} gets {share}, not {want}", case.why);
        }
        let sum: f64 = got.iter().sum();
        assert!(sum == 0.0 || (sum - 1.0).abs() < 1e-9, "{}: sum {sum}", case.why);
    }
}

fn read(case: &Endpoints) -> (Vec<Member>, Vec<Group>, Policy) {
    let mut names: Vec<(u32, String)> = Vec::new();
    let mut groups = Vec::new();
    let mut members = Vec::new();
    for fields in case.endpoints.values() {
        let priority = fields[0].as_u64().unwrap() as u32;
        let locality = fields[1].as_str().unwrap().to_owned();
        let group = names.iter().position(|have| *have == (priority, locality.clone())).unwrap_or_else(|| {
            groups.push(Group { weight: case.localities.get(&locality).copied().unwrap_or(0) });
            names.push((priority, locality));
            names.len() - 1
        });
        let state = match fields.get(3).map_or("healthy", |state| state.as_str().unwrap()) {
            "healthy" => EndpointState::Healthy,
            "degraded" => EndpointState::Degraded,
            "draining" => EndpointState::Draining,
            "unhealthy" => EndpointState::Unhealthy,
            "ejected" => EndpointState::Ejected,
            "pathDown" => EndpointState::PathDown,
            other => panic!("{other}"),
        };
        let ramp = fields.get(4).map_or(Ramp::FULL, |ramp| Ramp::since(Duration::from_secs(ramp.as_u64().unwrap())));
        let weight = fields[2].as_u64().unwrap() as u32;
        members.push(Member { priority, group, weight, condition: Condition::new(state, ramp) });
    }
    let policy = Policy {
        lb: if case.policy.lb.as_deref() == Some("random") { LbPolicy::Random } else { LbPolicy::LeastRequest },
        locality_weighted: case.policy.locality_weighted,
        failover_when_none: case.policy.failover_when_none,
        panic_threshold: case.policy.panic,
        ..Policy::default()
    };
    (members, groups, policy)
}

fn fraction(value: &serde_json::Value) -> f64 {
    match value {
        serde_json::Value::Number(number) => number.as_f64().unwrap(),
        serde_json::Value::String(text) => {
            let (over, under) = text.split_once('/').unwrap_or((text, "1"));
            over.parse::<f64>().unwrap() / under.parse::<f64>().unwrap()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_ramp_has_steps_of_a_second() {
    let at = |ms| Ramp::since(Duration::from_millis(ms)).tenths();
    assert_eq!(
        [at(0), at(999), at(1000), at(1999), at(5500), at(9999), at(10_000), at(99_000)],
        [1, 1, 1, 1, 5, 9, 10, 10]
    );
}
