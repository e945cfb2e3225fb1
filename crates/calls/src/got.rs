//! What a call got: the outcomes it can have, each with its share.
//!
//! Invariant: the same type for an offline answer (exact shares) and for live samples (equal shares); `Got` has every field of
//! `Expect`, null where one does not apply.

use crate::expect::{LastHopTls, Received, Response};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Different values of a field that are shown: of thousands of live calls each has headers of its own.
const MOST_VALUES: usize = 16;

/// One way a call can end.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Of all calls; offline exact.
    pub share: f64,
    /// HTTP status, or `ok`, `refused`, `reset`, `timeout`, `unresolved`.
    pub status: String,
    pub grpc_status: Option<u32>,
    /// On gRPC, when a proxy made the answer: the HTTP status it maps from.
    pub proxy_status: Option<u16>,
    /// `cluster/namespace/workload` or `outside/ADDRESS:PORT` that the request reached.
    pub to: Option<String>,
    /// Gateways passed, in order, short form; `cluster/east-west@ADDRESS` where the address is known.
    pub via: Vec<String>,
    pub tls: Option<LastHopTls>,
    pub seen_as: Option<String>,
    pub received: Option<Received>,
    pub response: Option<Response>,
    pub attempts: Option<u32>,
    pub route: Option<String>,
    pub denied_by: Option<String>,
    pub flags: Vec<String>,
    pub resolves: Option<Vec<String>>,
    /// Added by fault injection.
    pub delay: Option<Duration>,
}

/// All outcomes of one caller's call, or why they cannot be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Got {
    pub outcomes: Vec<Outcome>,
    pub undecided: Option<String>,
    pub decided_by: Vec<DecidedBy>,
}

/// An object, path and line that decided something on the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DecidedBy {
    pub object: String,
    pub path: String,
    pub file: String,
    pub line: u32,
}

impl From<&fairlead_model::Origin> for DecidedBy {
    fn from(origin: &fairlead_model::Origin) -> Self {
        Self {
            object: origin.object.to_string(),
            path: origin.path.clone(),
            file: origin.file.to_string(),
            line: origin.line,
        }
    }
}

impl Got {
    pub fn undecided(reason: impl Into<String>) -> Self {
        Self { undecided: Some(reason.into()), ..Self::default() }
    }

    /// Live: one sample an entry, equal shares.
    pub fn from_samples(mut samples: Vec<Outcome>) -> Self {
        let share = 1.0 / samples.len().max(1) as f64;
        for sample in &mut samples {
            sample.share = share;
        }
        Self { outcomes: samples, ..Self::default() }
    }

    /// Sums the shares by what `key` says of an outcome.
    pub fn shares<K: Ord>(&self, key: impl Fn(&Outcome) -> Option<K>) -> BTreeMap<K, f64> {
        let mut sums = BTreeMap::new();
        for outcome in &self.outcomes {
            if let Some(key) = key(outcome) {
                *sums.entry(key).or_insert(0.0) += outcome.share;
            }
        }
        sums
    }

    /// As printed in `got`.
    pub fn to_json(&self) -> Value {
        let to = self.shares(|o| o.to.clone());
        let to = shares_json(&to);
        let status = one_or_shares(&self.shares(|o| Some(o.status.clone())));
        let via = one_or_shares(&self.shares(|o| Some(chain(&o.via))));
        let common = |f: &dyn Fn(&Outcome) -> Option<Value>| {
            let mut seen: BTreeSet<String> = BTreeSet::new();
            let mut values: Vec<Value> = Vec::new();
            for value in self.outcomes.iter().filter_map(f) {
                if values.len() == MOST_VALUES {
                    break;
                }
                if seen.insert(value.to_string()) {
                    values.push(value);
                }
            }
            match values.len() {
                0 => Value::Null,
                1 => values.remove(0),
                _ => Value::Array(values),
            }
        };
        fn of<T: Serialize>(value: &Option<T>) -> Option<Value> {
            value.as_ref().and_then(|v| serde_json::to_value(v).ok())
        }
        json!({
            "status": status,
            "grpc-status": common(&|o| of(&o.grpc_status)),
            "to": to.clone(),
            "at-most": to.clone(),
            "at-least": to,
            "via": via,
            "tls": common(&|o| of(&o.tls)),
            "seen-as": common(&|o| of(&o.seen_as)),
            "received": common(&|o| of(&o.received)),
            "response": common(&|o| of(&o.response)),
            "resolves": common(&|o| of(&o.resolves)),
            "mirrored": Value::Null,
            "sticky": Value::Null,
            "delay": common(&|o| o.delay.map(|delay| json!(format!("{delay:?}")))),
            "attempts": common(&|o| of(&o.attempts)),
            "route": common(&|o| of(&o.route)),
            "denied-by": common(&|o| of(&o.denied_by)),
            "flags": common(&|o| (!o.flags.is_empty()).then(|| json!(o.flags))),
            "undecided": self.undecided,
        })
    }
}

/// `direct`, or the gateways joined by ` > ` without their addresses.
pub fn chain(via: &[String]) -> String {
    if via.is_empty() {
        return "direct".into();
    }
    let plain: Vec<&str> = via.iter().map(|g| g.split('@').next().unwrap_or(g)).collect();
    plain.join(" > ")
}

/// A share as text: exact percentages short, others with two decimals.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if (percent - percent.round()).abs() < 1e-6 { format!("{percent:.0}%") } else { format!("{percent:.2}%") }
}

fn shares_json(shares: &BTreeMap<String, f64>) -> Value {
    shares.iter().map(|(k, v)| (k.clone(), Value::String(percent(*v)))).collect::<serde_json::Map<_, _>>().into()
}

fn one_or_shares(shares: &BTreeMap<String, f64>) -> Value {
    match shares.len() {
        0 => Value::Null,
        1 => shares.keys().next().map(|k| k.parse::<u16>().map_or_else(|_| json!(k), |n| json!(n))).unwrap_or_default(),
        _ => shares_json(shares),
    }
}
