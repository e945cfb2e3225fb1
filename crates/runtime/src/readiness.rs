//! Whether a process is ready, as named conditions that all must hold.
//!
//! Each part of a process owns the [`Condition`] it registered; the readiness endpoint shows which of them do not
//! hold and why. Invariant: a condition counts from its registration on, so a part that has registered and never
//! reported keeps the process unready; a condition whose owner has gone counts as it last stood.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The register of conditions. Clones are the same register.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    inner: Arc<Inner>,
}

/// One condition, held by the part it is about.
#[derive(Clone, Debug)]
pub struct Condition {
    name: Arc<str>,
    inner: Arc<Inner>,
}

/// How one condition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionStatus {
    /// Name it was registered under.
    pub name: String,
    /// `None` when it holds, else why it does not.
    pub missing: Option<String>,
}

impl Readiness {
    /// A register without conditions: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a condition; it does not hold until its owner says so. Registering a name again gives another
    /// handle to the same condition and makes it not hold.
    pub fn condition(&self, name: impl Into<Arc<str>>) -> Condition {
        let condition = Condition { name: name.into(), inner: self.inner.clone() };
        condition.not_ready("not reported yet");
        condition
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.inner.conditions.lock().values().all(Option::is_none)
    }

    /// Every condition by name.
    pub fn status(&self) -> Vec<ConditionStatus> {
        let conditions = self.inner.conditions.lock();
        let status = |(name, missing): (&Arc<str>, &Option<String>)| ConditionStatus {
            name: name.to_string(),
            missing: missing.clone(),
        };
        conditions.iter().map(status).collect()
    }

    /// Waits until every condition holds.
    pub async fn wait(&self) {
        let mut changes = self.inner.changes.subscribe();
        // The sender lives in `self`, so the channel cannot close under us.
        while !self.is_ready() {
            let _ = changes.changed().await;
        }
    }
}

impl Condition {
    /// The condition holds.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The condition does not hold; `why` is shown to operators.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, missing: Option<String>) {
        self.inner.conditions.lock().insert(self.name.clone(), missing);
        self.inner.changes.send_modify(|count| *count += 1);
    }
}

#[derive(Debug, Default)]
struct Inner {
    conditions: Mutex<BTreeMap<Arc<str>, Option<String>>>,
    changes: watch::Sender<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_condition_must_hold() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let a = readiness.condition("a");
        let b = readiness.condition("b");
        a.ready();
        assert!(!readiness.is_ready());
        b.not_ready("no certificate");
        assert_eq!(
            readiness.status(),
            [
                ConditionStatus { name: "a".into(), missing: None },
                ConditionStatus { name: "b".into(), missing: Some("no certificate".into()) },
            ]
        );
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait().await }
        });
        b.ready();
        waiting.await.unwrap();
    }
}
