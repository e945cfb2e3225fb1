//! Making the calls of one entry, and putting together what is told of them.
//!
//! One call at a time: a balancer that prefers the endpoint with fewer requests in flight has none in flight then, so that shares
//! are those of the policy and not of how fast whom answers. Invariant: every call made is told of, also when a record is missing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use fairlead_calls::{DecidedBy, Got, Outcome};
use tokio::time::{Instant, sleep};

use super::caller::{Connections, Plan, Seen};
use super::index::Index;
use super::lab::Lab;
use super::outcome::{Origin, Told, outcome};
use super::records::Reader;

/// Connections that take turns, so that more than one worker of the caller's proxy has a say.
const CONNECTIONS: usize = 4;
/// Proxies write a record when a call has ended; it is there within milliseconds.
const RECORDS_WITHIN: Duration = Duration::from_secs(6);

/// Makes calls and reads what the proxies wrote down about them.
pub(super) struct Calling<'l> {
    lab: &'l Lab,
    reader: Reader,
}

impl<'l> Calling<'l> {
    pub(super) fn new(lab: &'l Lab) -> Self {
        Self { lab, reader: Reader::default() }
    }

    /// Makes a call so many times.
    pub(super) async fn call(&mut self, plan: &Plan, origin: &Origin, times: u32) -> Vec<Told> {
        self.begin().await;
        let seen = many(plan, origin, times).await;
        self.told(origin, &seen).await
    }

    /// What was written before is not about the calls that follow.
    pub(super) async fn begin(&mut self) {
        drop(self.reader.read(self.lab.handle(), self.lab.proxies()).await);
    }

    /// Puts together what is told of calls made since [`Calling::begin`].
    pub(super) async fn told(&mut self, origin: &Origin, seen: &[Seen]) -> Vec<Told> {
        let proxies = self.lab.proxies();
        let mut index = Index::default();
        let deadline = Instant::now() + RECORDS_WITHIN;
        loop {
            index.add(self.reader.read(self.lab.handle(), proxies.clone()).await);
            index.pair(origin, seen);
            let proxied = |name: &str| proxies.iter().any(|p| p == name);
            if index.complete(origin, seen, proxied) || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let cluster = origin.caller.split('/').next().unwrap_or_default();
        let names = self.lab.spec().clusters.get(cluster).map(|c| c.names.clone()).unwrap_or_default();
        let gateway_at = |address: IpAddr| self.lab.gateway_at(address);
        let named = |address: IpAddr| names.get(&address).cloned();
        let written =
            |cluster: &str, policy: &str| self.lab.spec().clusters.get(cluster)?.policies.get(policy).cloned();
        seen.iter().map(|s| outcome(origin, s, &mut index, &gateway_at, &named, &written)).collect()
    }
}

/// Makes a call so many times, one after the other.
pub(super) async fn many(plan: &Plan, origin: &Origin, times: u32) -> Vec<Seen> {
    let mut clients: Vec<Connections> = (0..CONNECTIONS).map(|_| Connections::new()).collect();
    let mut all = Vec::new();
    for n in 0..times as usize {
        let connections = &mut clients[n % CONNECTIONS];
        all.push(plan.call(connections).await);
        if !origin.is_balanced_by_request() {
            // Whoever answers was chosen for the connection.
            connections.close();
        }
    }
    all
}

/// All that is told of some calls, each with the same share.
pub(super) fn got(told: Vec<Told>) -> Got {
    let decided_by: BTreeSet<DecidedBy> = told.iter().flat_map(|t| t.decided_by.iter().cloned()).collect();
    let outcomes: Vec<Outcome> = told.into_iter().map(|t| t.outcome).collect();
    Got { decided_by: decided_by.into_iter().collect(), ..Got::from_samples(outcomes) }
}
