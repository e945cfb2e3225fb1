//! Which of the kinds that come by CustomResourceDefinitions are there, and at which version.
//!
//! Asked gently and again and again, so that kinds that appear later are found. Invariants: a kind is taken to be there as soon as
//! one answer says so, and to be gone only when two complete answers in a row say so (an API server that starts may not know all its
//! kinds yet); an answer that fails says nothing.

use super::kinds::WATCHED;
use super::timings::Timings;
use fairlead_resources::Kind;
use kube::Client;
use kube::api::ApiResource;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;

/// What is served, by kind.
pub type Served = BTreeMap<Kind, ApiResource>;

/// An answer takes no longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Looks until nobody listens. `None`: no answer yet. `kept`: kinds that there were objects of before the start; a first answer without
/// one of them is not believed before a second, so that policies do not vanish while an API server starts beside us.
pub async fn discover(client: Client, timings: Timings, kept: BTreeSet<Kind>, served: watch::Sender<Option<Served>>) {
    let mut missed: BTreeSet<Kind> = BTreeSet::new();
    let mut doubted = false;
    let mut attempt = 0;
    loop {
        let found = tokio::time::timeout(TIMEOUT, look(&client)).await;
        let pause = match found {
            Ok(Ok(found)) if !doubted && served.borrow().is_none() && !is_whole(&kept, &found) => {
                doubted = true;
                attempt = 0;
                timings.discover
            }
            Ok(Ok(mut found)) => {
                attempt = 0;
                let last = served.borrow().clone();
                missed = keep_once(last.as_ref(), &mut found, &missed);
                served.send_if_modified(|served| {
                    let changed = served.as_ref() != Some(&found);
                    *served = Some(found);
                    changed
                });
                timings.discover
            }
            failed => {
                let why = failed
                    .map_or_else(|_| "no answer".to_owned(), |f| f.err().map_or_else(String::new, |e| e.to_string()));
                tracing::debug!("kinds cannot be looked for: {why}");
                attempt += 1;
                timings.backoff.sample(attempt).min(timings.discover)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = served.closed() => return,
        }
    }
}

/// Whether all kinds are there that there were objects of.
fn is_whole(kept: &BTreeSet<Kind>, found: &Served) -> bool {
    kept.iter().all(|kind| found.contains_key(kind))
}

/// Kinds that were there and are missing for the first time stay. Which those are.
fn keep_once(last: Option<&Served>, found: &mut Served, missed: &BTreeSet<Kind>) -> BTreeSet<Kind> {
    let missing: Vec<_> = last.into_iter().flatten().filter(|(kind, _)| !found.contains_key(kind)).collect();
    let mut once = BTreeSet::new();
    for (kind, resource) in missing {
        if !missed.contains(kind) {
            once.insert(*kind);
            found.insert(*kind, resource.clone());
        }
    }
    once
}

async fn look(client: &Client) -> kube::Result<Served> {
    let groups = client.list_api_groups().await?;
    let mut resources: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut served = Served::new();
    for watched in WATCHED.iter().filter(|w| w.is_custom()) {
        let Some(group) = groups.groups.iter().find(|group| group.name == watched.kind.group()) else { continue };
        for version in watched.kind.versions() {
            let name = format!("{}/{version}", group.name);
            if !group.versions.iter().any(|v| v.group_version == name) {
                continue;
            }
            if !resources.contains_key(&name) {
                let list = client.list_api_group_resources(&name).await?;
                let plurals = list.resources.into_iter().map(|r| r.name).collect();
                resources.insert(name.clone(), plurals);
            }
            if resources.get(&name).is_some_and(|plurals| plurals.contains(watched.plural)) {
                served.insert(watched.kind, watched.resource(version));
                break;
            }
        }
    }
    Ok(served)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_answer_without_what_was_kept_is_doubtful() {
        let policies = WATCHED.iter().find(|w| w.kind == Kind::AuthorizationPolicy).unwrap();
        let kept = BTreeSet::from([Kind::AuthorizationPolicy]);
        assert!(!is_whole(&kept, &Served::new()));
        assert!(is_whole(&kept, &Served::from([(Kind::AuthorizationPolicy, policies.resource("v1"))])));
        assert!(is_whole(&BTreeSet::new(), &Served::new()));
    }

    #[test]
    fn a_kind_is_gone_when_two_answers_say_so() {
        let gateways = WATCHED.iter().find(|w| w.kind == Kind::Gateway).unwrap();
        let had = Served::from([(Kind::Gateway, gateways.resource("v1"))]);
        let mut found = Served::new();
        let missed = keep_once(Some(&had), &mut found, &BTreeSet::new());
        assert_eq!(found, had);
        assert_eq!(missed, BTreeSet::from([Kind::Gateway]));
        let mut found = Served::new();
        assert!(keep_once(Some(&had), &mut found, &missed).is_empty());
        assert!(found.is_empty());
        // In between it was seen: the count begins anew.
        let mut found = had.clone();
        let missed = keep_once(Some(&had), &mut found, &missed);
        assert!(missed.is_empty());
    }
}
