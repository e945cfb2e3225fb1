//! Addresses of load balancers that have names only, as those of some clouds.
//!
//! Peers are told addresses, so this control plane looks the names up. Invariants: a name that cannot be looked up keeps what it had: a
//! resolver that is away for a while loses nobody's way; whatever is wanted is told of after one round, be it that nothing was found.

use crate::event::Event;
use crate::quiet::{Quiet, short};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Between two looks at the same names.
const EVERY: Duration = Duration::from_secs(20);
/// The same, while one of them has no answer.
const AGAIN: Duration = Duration::from_secs(2);
/// A resolver that is silent for longer is asked again later.
const PATIENCE: Duration = Duration::from_secs(5);

static UNKNOWN: Quiet = Quiet::new();

/// Looks up what is wanted, again and again, and tells what became of it when it changed; of a name without an answer nothing.
pub async fn follow(mut wanted: watch::Receiver<BTreeSet<String>>, events: mpsc::UnboundedSender<Event>) {
    let mut known: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    loop {
        let names: Vec<String> = wanted.borrow_and_update().iter().cloned().collect();
        let answers = futures::future::join_all(names.iter().map(|name| look_up(name))).await;
        let silent = names.iter().zip(&answers).find(|(_, answer)| answer.is_none()).map(|(name, _)| name.clone());
        let found: BTreeMap<_, _> = names
            .into_iter()
            .zip(answers)
            .map(|(name, answer)| {
                let addresses = answer.or_else(|| known.get(&name).cloned()).unwrap_or_default();
                (name, addresses)
            })
            .collect();
        if let Some(name) = &silent
            && let Some(more) = UNKNOWN.passes()
        {
            tracing::warn!(name = short(name), "the name of a load balancer has no address{more}");
        }
        if found != known {
            known = found;
            if events.send(Event::LookedUp(known.clone())).is_err() {
                return;
            }
        }
        let pause = match (known.is_empty(), silent) {
            (true, _) => Duration::MAX,
            (false, None) => EVERY,
            (false, Some(_)) => AGAIN,
        };
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
        assert!(found["localhost"].iter().all(IpAddr::is_loopback) && !found["localhost"].is_empty());
        assert!(found["nowhere.invalid"].is_empty(), "nothing was found, and that is told");
        want.send_replace(BTreeSet::new());
        let Some(Event::LookedUp(found)) = told.recv().await else { panic!("something else was told") };
        assert!(found.is_empty());
    }
}
