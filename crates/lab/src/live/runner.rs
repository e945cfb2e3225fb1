//! Call tables, live: conditions are made, waited for, and undone; calls are made as often as their shares need.
//!
//! Calls with the same conditions share them. Invariant: calls are reported by their index, whatever the order in which they were
//! made; a condition that does not come about makes the call undecided, never passed.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_calls::{Got, TableCall, times};
use tokio::time::Instant;

use super::caller::Plan;
use super::calling::{Calling, got};
use super::given::State;
use super::lab::{Lab, LabError};
use super::outcome::Origin;
use super::prepare::plan;
use super::processes::PROXY;
use super::returning::Returning;
use super::settle::{self, Memory, Watched};
use super::start::{self, Progress};
use crate::faults::{Fault, Heal};

/// Calls that are made beforehand where only failures tell that something is down: several times Istio's default of five errors in
/// a row.
const FINDING_OUT: u32 = 40;
/// And no longer than this.
const FINDING_OUT_WITHIN: Duration = Duration::from_secs(30);
/// A wait that is longer is explained.
const LONG: Duration = Duration::from_secs(4);

/// What one call got, for each of its callers.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The call's number in the tables.
    pub index: usize,
    /// How often each caller made it.
    pub times: u32,
    /// By caller.
    pub got: Vec<(String, Got)>,
}

/// Runs calls, in an order of its own. The error is the table's: a name that means nothing.
pub async fn run(lab: &Lab, calls: &[TableCall], progress: Progress) -> Result<Vec<Ran>, LabError> {
    let mut prepared = Vec::new();
    for call in calls {
        prepared.push(Prepared::new(lab, call)?);
    }
    let mut groups: Vec<(State, Vec<Prepared<'_>>)> = Vec::new();
    for call in prepared {
        match groups.iter_mut().find(|(state, _)| *state == call.state) {
            Some((_, calls)) => calls.push(call),
            None => groups.push((call.state.clone(), vec![call])),
        }
    }
    groups.sort_by_key(|(state, _)| state.cost());
    // What a run before has broken is to be back before it is noted what is there: in profile istio what is not ready is not told.
    if lab.is_disturbed()
        && lab.broken().await.is_empty()
        && let Err(e) = start::all_acked(lab, Instant::now() + settle::LONGEST + lab.spec().slowest_probe()).await
    {
        progress(format!("after what was broken before: {e}"));
    }
    let mut runner =
        Runner { lab, watched: watch(lab, &groups).await, calling: Calling::new(lab), progress, waited: None };
    let mut ran = Vec::new();
    for (state, calls) in &groups {
        ran.extend(runner.group(state, calls).await);
    }
    runner.make_whole().await;
    ran.sort_by_key(|r| r.index);
    Ok(ran)
}

/// A call with everything looked up.
struct Prepared<'c> {
    call: &'c TableCall,
    state: State,
    times: u32,
    /// By caller: the plan and where its records are; or why it cannot be made.
    callers: Vec<(String, Result<(Plan, Origin, Option<String>), String>)>,
}

impl<'c> Prepared<'c> {
    fn new(lab: &Lab, call: &'c TableCall) -> Result<Self, LabError> {
        let state = State::of(lab, &call.call.given)?;
        let times = times::times(&call.call).map_err(LabError::Unknown)?;
        let names = lab.names().callers(&call.call.from).map_err(LabError::Unknown)?;
        let mut callers = Vec::new();
        for name in names {
            let plan = match call.call.undecidable_field() {
                Some(field) => Err(format!("{field} is not decided by this version")),
                None => plan(lab, &name, call),
            };
            callers.push((name, plan));
        }
        Ok(Self { call, state, times, callers })
    }
}

/// The proxies that must show a state, with what they hold while all is well.
async fn watch(lab: &Lab, groups: &[(State, Vec<Prepared<'_>>)]) -> BTreeMap<String, Watched> {
    let owners = groups
        .iter()
        .flat_map(|(_, calls)| calls)
        .flat_map(|c| &c.callers)
        .filter_map(|(_, plan)| plan.as_ref().ok()?.2.clone());
    let mut watched = BTreeMap::new();
    for owner in owners {
        if watched.contains_key(&owner) {
            continue;
        }
        // One that cannot be read shows itself when a state is waited for.
        let held = settle::rotation(lab, &owner).await.unwrap_or_default();
        // What the lab does not run, and objects say is not ready, comes back by no deed of ours.
        let ours = |workload: &str| lab.spec().workload(workload).is_some();
        let baseline =
            held.into_iter().filter(|((_, name), held)| held.healthy || ours(name)).map(|(key, _)| key).collect();
        let cluster = owner.split('/').next().unwrap_or_default().to_owned();
        watched.insert(owner.clone(), Watched { owner, cluster, baseline });
    }
    watched
}

struct Runner<'l> {
    lab: &'l Lab,
    watched: BTreeMap<String, Watched>,
    calling: Calling<'l>,
    progress: Progress,
    /// What the present group waited for last.
    waited: Option<String>,
}

impl Runner<'_> {
    async fn group(&mut self, state: &State, calls: &[Prepared<'_>]) -> Vec<Ran> {
        let began = Instant::now();
        let whole = state.is_whole();
        let ready = self.make(state, calls).await;
        let (settled, waited) = (began.elapsed(), self.waited.take());
        if settled > LONG
            && let Some(waited) = waited
        {
            (self.progress)(format!("waited {:.1} s, last for: {waited}", settled.as_secs_f64()));
        }
        let mut ran = Vec::new();
        for call in calls {
            let mut all = Vec::new();
            for (caller, plan) in &call.callers {
                let one = match (&ready, plan) {
                    (_, Err(reason)) => Got::undecided(reason.clone()),
                    (Err(e), _) => Got::undecided(format!("the state of `given` did not come about: {e}")),
                    (Ok(()), Ok((plan, origin, owner))) => {
                        if state.is_found_by_failures() {
                            // Where packets vanish each call takes its time: it is not waited for for ever.
                            let finding = self.calling.call(plan, origin, FINDING_OUT);
                            let _ = tokio::time::timeout(FINDING_OUT_WITHIN, finding).await;
                        }
                        match owner.as_ref().and_then(|o| Returning::new(self.lab, self.watched.get(o)?, state)) {
                            Some(returning) => returning.call(&mut self.calling, plan, origin, call.times).await,
                            None => got(self.calling.call(plan, origin, call.times).await),
                        }
                    }
                };
                all.push((caller.clone(), one));
            }
            ran.push(Ran { index: call.call.index, times: call.times, got: all });
        }
        let healed = Instant::now();
        if !whole {
            if let Err(e) = self.lab.heal_all().await {
                (self.progress)(format!("healing: {e}"));
            }
            // Also where healing found nothing to do: what `returned` cuts it heals itself, and leaves a ramp.
            self.lab.set_disturbed(true);
        }
        let names: Vec<String> = calls.iter().map(|c| c.call.index.to_string()).collect();
        (self.progress)(format!(
            "call{} {}: state after {:.1} s, made after {:.1} s, healed in {:.1} s",
            if names.len() == 1 { "" } else { "s" },
            names.join(" "),
            settled.as_secs_f64(),
            (healed - began).as_secs_f64(),
            healed.elapsed().as_secs_f64()
        ));
        ran
    }

    /// Makes the state and waits until the callers' proxies show it.
    async fn make(&mut self, state: &State, calls: &[Prepared<'_>]) -> Result<(), LabError> {
        let owners = calls.iter().flat_map(|c| &c.callers).filter_map(|(_, plan)| plan.as_ref().ok()?.2.as_ref());
        let watched: Vec<Watched> = owners.filter_map(|owner| self.watched.get(owner).cloned()).collect();
        if self.lab.is_disturbed() && self.lab.broken().await.is_empty() {
            // What was broken before, by these calls or others, must be forgotten first: a ramp, or an ejection, would change shares.
            let whole = State::whole(self.lab);
            self.settle(&watched, &whole, Memory::Allowed).await?;
            self.forget(&watched).await?;
            self.settle(&watched, &whole, Memory::Gone).await?;
            self.lab.set_disturbed(false);
        }
        state.apply(self.lab).await?;
        self.settle(&watched, state, Memory::Allowed).await
    }

    async fn settle(&mut self, watched: &[Watched], state: &State, memory: Memory) -> Result<(), LabError> {
        let began = Instant::now();
        let waited = settle::settle(self.lab, watched, state, memory).await?;
        let what = if state.is_whole() { "what was broken before" } else { "what is given" };
        let told = waited.map(|waited| format!("{waited} ({what}, {:.1} s)", began.elapsed().as_secs_f64()));
        self.waited = told.or(self.waited.take());
        Ok(())
    }

    /// Starts anew the callers' proxies that remember what was broken: a return takes 10 s, an ejection 30 s and more. What
    /// a proxy does meanwhile is asked for with `returned`, and is not what other calls are about.
    async fn forget(&self, watched: &[Watched]) -> Result<(), LabError> {
        let mut restarted = Vec::new();
        for one in watched {
            if restarted.contains(&&one.owner) || !settle::remembers(self.lab, one).await {
                continue;
            }
            let fault = Fault::Kill { target: one.owner.clone(), process: Some(PROXY.to_owned()) };
            self.lab.fault(fault.clone()).await?;
            self.lab.handle().heal(&Heal::Fault(fault)).await?;
            restarted.push(&one.owner);
        }
        if !restarted.is_empty() {
            start::all_acked(self.lab, Instant::now() + settle::LONGEST + self.lab.spec().slowest_probe()).await?;
        }
        Ok(())
    }

    async fn make_whole(&mut self) {
        if let Err(e) = self.lab.heal_all().await {
            (self.progress)(format!("healing: {e}"));
        }
    }
}
