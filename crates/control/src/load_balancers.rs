//! Addresses of load balancers that have names only, as those of some clouds.
//!
//! Peers are told addresses, so this control plane looks the names up. Invariant: a name that cannot be looked up keeps what it had: a
//! resolver that is away for a while loses nobody's way.

use crate::event::Event;
use crate::quiet::{Quiet, short};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Between two looks at the same names.
const EVERY: Duration = Duration::from_secs(20);
/// A resolver that is silent for longer is asked again later.
const PATIENCE: Duration = Duration::from_secs(5);

static UNKNOWN: Quiet = Quiet::new();

/// Looks up what is wanted, again and again, and tells what became of it when it changed.
pub async fn follow(mut wanted: watch::Receiver<BTreeSet<String>>, events: mpsc::UnboundedSender<Event>) {
    let mut known = BTreeMap::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        let mut found = BTreeMap::new();
        for name in names {
            let before = known.get(&name).cloned();
            match look_up(&name).await.or(before) {
                Some(addresses) => drop(found.insert(name, addresses)),
                None => {
                    if let Some(more) = UNKNOWN.passes() {
                        tracing::warn!(name = short(&name), "the name of a load balancer has no address{more}");
                    }
                }
            }
        }
        if found != known {
            known = found;
            if events.send(Event::LookedUp(known.clone())).is_err() {
                return;
            }
        }
        let pause = if wanted.borrow().is_empty() { Duration::MAX } else { EVERY };
        if let Ok(Err(_)) = tokio::time::timeout(pause, wanted.changed()).await {
            return;
        }
    }
}

/// Sorted, as resolvers answer in another order each time.
async fn look_up(name: &str) -> Option<Vec<IpAddr>> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await.ok()?.ok()?;
    let addresses: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
    (!addresses.is_empty()).then(|| addresses.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_that_are_wanted_are_looked_up_and_forgotten_when_they_are_not() {
        let (want, wanted) = watch::channel(BTreeSet::from(["localhost".to_owned(), "nowhere.invalid".to_owned()]));
        let (events, mut told) = mpsc::unbounded_channel();
        tokio::spawn(follow(wanted, events));
        let Some(Event::LookedUp(found)) = told.recv().await else { panic!("something else was told") };
        assert_eq!(found.keys().collect::<Vec<_>>(), ["localhost"]);
        assert!(found["localhost"].iter().all(IpAddr::is_loopback) && !found["localhost"].is_empty());
        want.send_replace(BTreeSet::new());
        let Some(Event::LookedUp(found)) = told.recv().await else { panic!("something else was told") };
        assert!(found.is_empty());
    }
}
