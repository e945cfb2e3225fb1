//! The state of the mesh before a call.
//!
//! Invariant: everything here is healed after the call; names are resolved by whoever applies it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Lists name `cluster`, `cluster/namespace/name`, `cluster/control`, `cluster/east-west`, `cluster/east-west@ADDRESS`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Given {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub down: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<String>,
    /// Control stream frozen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<String>,
    /// Pairs of clusters whose link is cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<[String; 2]>,
    /// Pairs of clusters between which packets vanish.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blackholed: Vec<[String; 2]>,
    /// Back since so long, for example `1s`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub returned: BTreeMap<String, String>,
    /// How a program answers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, Answer>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub listens: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_first: Vec<String>,
}

/// `503`, `grpc-14`, `reset` or `{delay: 2s}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Answer {
    Status(u16),
    Word(String),
    Delay { delay: String },
}

impl Given {
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// Reads `500ms`, `2s`, `1m`, `1h` and sums such as `1m30s` (Go and proto durations).
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let bad = || format!("`{text}` is no duration: write 500ms, 2s or 1m30s");
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (value, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += value.parse::<f64>().map_err(|_| bad())? * scale;
        rest = tail;
    }
    std::time::Duration::try_from_secs_f64(total).map_err(|_| bad())
}
