//! `returned`: calls while a cluster that was away is back since so long.
//!
//! The link between the caller and the other cluster is cut, until the caller's proxy has given the other up, and healed; the calls
//! are made while the proxy gives the other just the weight of that time. A weight lasts a second or two, so this is done again and
//! again until enough calls were made. Invariant: a call counts only if the proxy showed the wanted weight before and after it.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_calls::Got;
use tokio::time::{Instant, sleep};

use super::caller::Plan;
use super::calling::{Calling, got, many};
use super::given::State;
use super::lab::{Lab, LabError};
use super::outcome::Origin;
use super::settle::{self, LONGEST, Rotation, Watched};
use crate::faults::{Fault, Heal};

/// Calls between two looks at the weight.
const BATCH: usize = 20;
/// Rounds without one call that counts.
const FRUITLESS: u32 = 5;

/// See the module.
pub(super) struct Returning<'l> {
    lab: &'l Lab,
    watched: Watched,
    /// What is cut each time.
    links: Vec<Fault>,
    /// By endpoint of a returned cluster, as the proxy holds it: its weight, in tenths.
    wanted: BTreeMap<(String, String), u8>,
}

impl<'l> Returning<'l> {
    /// None when this caller's proxy sees nothing return.
    pub(super) fn new(lab: &'l Lab, watched: &Watched, state: &State) -> Option<Self> {
        let away = |cluster: &str| state.returned.get(cluster).filter(|_| cluster != watched.cluster);
        let mut wanted = BTreeMap::new();
        for (envoy, workload) in &watched.baseline {
            let since = away(workload.split('/').next().unwrap_or_default());
            if let Some(since) = since
                && state.expected(&watched.cluster, workload) == Some(true)
            {
                wanted.insert((envoy.clone(), workload.clone()), tenths(*since));
            }
        }
        let clusters = state.returned.keys().filter(|cluster| **cluster != watched.cluster);
        // The caller alone: what its proxy sees by itself is what the weight is about, and others would tell it of their view late.
        let links = clusters.map(|cluster| Fault::Cut(watched.owner.clone(), cluster.clone())).collect();
        (!wanted.is_empty()).then(|| Self { lab, watched: watched.clone(), links, wanted })
    }

    /// Makes a call so many times at the wanted weight.
    pub(super) async fn call(&self, calling: &mut Calling<'_>, plan: &Plan, origin: &Origin, times: u32) -> Got {
        let mut told = Vec::new();
        let mut fruitless = 0;
        while told.len() < times as usize {
            if let Err(e) = self.go_and_come_back().await {
                return Got::undecided(format!("the state of `given` did not come about: {e}"));
            }
            calling.begin().await;
            let mut seen = Vec::new();
            while told.len() + seen.len() < times as usize && self.is_at_weight().await {
                let left = times as usize - told.len() - seen.len();
                let batch = many(plan, origin, left.min(BATCH) as u32).await;
                if !self.is_at_weight().await {
                    break;
                }
                seen.extend(batch);
            }
            fruitless = if seen.is_empty() { fruitless + 1 } else { 0 };
            if fruitless == FRUITLESS {
                return Got::undecided("the weight of `returned` passed each time before a call could be made");
            }
            told.extend(calling.told(origin, &seen).await);
        }
        got(told)
    }

    async fn go_and_come_back(&self) -> Result<(), LabError> {
        for link in &self.links {
            self.lab.fault(link.clone()).await?;
        }
        let gone = |held: &Rotation| self.wanted.keys().all(|key| held.get(key).is_none_or(|held| !held.healthy));
        let left = self.wait("still gets requests", gone).await;
        for link in &self.links {
            self.lab.handle().heal(&Heal::Fault(link.clone())).await?;
        }
        left?;
        let back = |held: &Rotation| self.shows(held) || self.is_past(held);
        self.wait("does not come back", back).await
    }

    async fn wait(&self, otherwise: &str, done: impl Fn(&Rotation) -> bool) -> Result<(), LabError> {
        let deadline = Instant::now() + LONGEST;
        loop {
            if settle::rotation(self.lab, &self.watched.owner).await.is_ok_and(|held| done(&held)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = self.wanted.keys().next().map_or("", |(_, workload)| workload.as_str());
                return Err(LabError::NotReady(vec![format!("{}: {what} {otherwise}", self.watched.owner)]));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_at_weight(&self) -> bool {
        settle::rotation(self.lab, &self.watched.owner).await.is_ok_and(|held| self.shows(&held))
    }

    fn shows(&self, held: &Rotation) -> bool {
        self.wanted.iter().all(|(key, tenths)| held.get(key).is_some_and(|h| h.healthy && h.tenths == *tenths))
    }

    fn is_past(&self, held: &Rotation) -> bool {
        self.wanted.iter().any(|(key, tenths)| held.get(key).is_some_and(|h| h.healthy && h.tenths > *tenths))
    }
}

/// max(0.1, t / 10 s) in steps of a second.
fn tenths(since: Duration) -> u8 {
    since.as_secs().clamp(1, 10) as u8
}
