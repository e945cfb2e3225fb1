//! Predicates on strings and labels that routes and policies are made of.
//!
//! Invariant: a regex is kept as text; it was checked when its object was decoded (RE2 syntax, full match).

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

/// Istio's StringMatch, plus what AuthorizationPolicy adds (`Suffix`, `Present`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// RE2 syntax, the whole string must match.
    Regex(String),
    /// The thing exists (and, for AuthorizationPolicy's `*`, is not empty).
    Present,
}

/// Who may see a service, route set or destination policy (Istio `exportTo`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Visibility {
    #[default]
    Public,
    /// Only these namespaces; empty means nobody (`~`).
    Namespaces(BTreeSet<String>),
}

impl Visibility {
    pub fn allows(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(set) => set.contains(namespace),
        }
    }
}

/// What has labels, in whichever form.
pub trait LabelSource {
    /// The value of a label.
    fn value(&self, key: &str) -> Option<&str>;
}

impl LabelSource for Labels {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

/// Whether every entry of `wanted` is in `labels` (an empty selector selects everything).
pub fn selects(wanted: &Labels, labels: &impl LabelSource) -> bool {
    wanted.iter().all(|(k, v)| labels.value(k) == Some(v.as_str()))
}

/// Whether the host pattern (exact, or with a leading `*`) covers `host`. `*.foo.com` does not cover `foo.com`
/// (Istio host match).
pub fn host_covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern.eq_ignore_ascii_case(host),
    }
}
