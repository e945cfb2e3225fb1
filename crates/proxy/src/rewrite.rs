//! A seam for tests of the tests: it stands between what a control plane sent and what the proxy serves from.
//!
//! It proves that live calls notice a proxy that is wrong, without a line of wrong code in the product: what is changed, and how,
//! is given from outside ([`crate::ProxyOptions::rewrite`], `None` in the product's own binary). Must never know a fault itself.
//! Invariant: what is acked and kept on disk is what came; only what is served differs.

use fairlead_engine::{Change, Resource, Snapshot};
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// What is done to one resource: `None` leaves it as it is.
pub type How = Arc<dyn Fn(&Resource) -> Option<Change> + Send + Sync>;

/// Changes resources on their way into use.
#[derive(Clone)]
pub struct Rewrite {
    how: How,
    again: watch::Receiver<u64>,
}

impl Rewrite {
    /// `how` is asked for every resource of every configuration, and again for the present one whenever `again` changes. A
    /// resource that it changes must get another version.
    pub fn new(how: How, again: watch::Receiver<u64>) -> Self {
        Self { how, again }
    }

    /// What is served instead of `received`.
    pub(crate) fn of(&self, received: &Arc<Snapshot>) -> Arc<Snapshot> {
        let changes: Vec<Change> = received.resources().filter_map(|(_, _, resource)| (self.how)(resource)).collect();
        if changes.is_empty() {
            return received.clone();
        }
        let (served, rejected) = Snapshot::build(Some(received), changes);
        for one in rejected {
            tracing::error!(name = one.name, error = %one.error, "a rewritten resource cannot be used");
        }
        served
    }

    /// Resolves when the present configuration is to be rewritten anew.
    pub(crate) async fn again(&mut self) {
        if self.again.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rewrite")
    }
}
