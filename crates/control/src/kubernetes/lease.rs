//! Which replica writes what all of them derive alike: the holder of one Lease of coordination.k8s.io.
//!
//! [`evaluate`] decides, the rest asks and writes. Never trusts another machine's clock: a lease is over when it stood unchanged for
//! its duration by the own clock. Invariant: a holder stops being one before anybody else can become one, also when the API server is
//! away: [`GIVE_UP`] counts from before the last renewal was sent and is shorter than [`DURATION`].

use super::PART_OF;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The Lease object's name.
pub const NAME: &str = "fairlead-control";
/// Another replica takes over when a holder was silent for this long.
pub const DURATION: Duration = Duration::from_secs(10);
/// A holder that could not renew for this long is none any more.
pub const GIVE_UP: Duration = Duration::from_secs(7);
/// Between two looks at the lease.
pub const PERIOD: Duration = Duration::from_secs(2);
/// One request.
const LIMIT: Duration = Duration::from_secs(2);

/// What to do about a lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is ours, or free: write this.
    Write(LeaseSpec),
    /// Somebody else holds it, at least for so long.
    Wait(Duration),
}

/// `unchanged`: for how long this very version was seen. Pure.
pub fn evaluate(spec: Option<&LeaseSpec>, unchanged: Duration, me: &str, now: Timestamp) -> Decision {
    let transitions = spec.and_then(|s| s.lease_transitions).unwrap_or(0);
    let holder = spec.and_then(|s| s.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let acquired = spec.and_then(|s| s.acquire_time.clone());
    let (acquired, transitions) = match holder {
        Some(holder) if holder == me => (acquired.unwrap_or(MicroTime(now)), transitions),
        Some(_) => {
            let seconds = spec.and_then(|s| s.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
            let lasts = seconds.map_or(DURATION, Duration::from_secs);
            if unchanged < lasts {
                return Decision::Wait(lasts - unchanged);
            }
            (MicroTime(now), transitions.saturating_add(1))
        }
        None => (MicroTime(now), transitions.saturating_add(i32::from(spec.is_some()))),
    };
    Decision::Write(LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: Some(acquired),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    })
}

/// Whether this replica holds the lease; asked before, and while, something is written.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    pub fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until the lease is held.
    pub async fn gained(&mut self) {
        while !self.holds() {
            if self.0.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until the lease is not held.
    pub async fn lost(&self) {
        let mut held = self.0.clone();
        loop {
            let Some(until) = *held.borrow_and_update() else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until) => if !self.holds() {
                    return;
                },
                changed = held.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Does something only while the lease is held; `None` if it was not, or was lost on the way: then it is dropped where it stood.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        if !self.holds() {
            return None;
        }
        tokio::select! {
            biased;
            () = self.lost() => None,
            done = work => Some(done),
        }
    }
}

/// Stands for election until it is dropped.
pub struct Candidate {
    api: Api<Lease>,
    me: String,
    held: watch::Sender<Option<Instant>>,
    /// The version seen last, and since when.
    seen: Option<(Option<String>, Instant)>,
}

impl Candidate {
    /// `me` must be another for each replica and each start.
    pub fn new(api: Api<Lease>, me: String) -> (Self, Leadership) {
        let (held, leadership) = watch::channel(None);
        (Self { api, me, held, seen: None }, Leadership(leadership))
    }

    /// For ever. When `end` comes, gives the lease back, so that nobody has to wait for it.
    pub async fn run(mut self, mut end: watch::Receiver<bool>) {
        let mut ended = std::pin::pin!(async move {
            if end.wait_for(|end| *end).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        loop {
            let pause = self.once().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut ended => break,
            }
        }
        let held = self.held.send_replace(None).is_some_and(|until| Instant::now() < until);
        if held && tokio::time::timeout(LIMIT, self.release()).await.is_err() {
            tracing::debug!("the lease {NAME} could not be given back in time");
        }
    }

    /// One look, and one write if it is ours to make; until when to wait.
    async fn once(&mut self) -> Duration {
        let begun = Instant::now();
        let (pause, held) = match tokio::time::timeout(LIMIT, self.attempt(begun)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(e)) => {
                tracing::debug!("lease {NAME}: {e}");
                // Whether it is still ours is said by what was written last.
                (PERIOD, *self.held.borrow())
            }
            Err(_) => (PERIOD, *self.held.borrow()),
        };
        let was = self.held.borrow().is_some();
        let held = held.filter(|until| Instant::now() < *until);
        match (was, held.is_some()) {
            (false, true) => tracing::info!(me = self.me, "this replica holds the lease {NAME} and writes"),
            (true, false) => tracing::warn!(me = self.me, "this replica has lost the lease {NAME} and writes no more"),
            _ => {}
        }
        self.held.send_replace(held);
        pause
    }

    async fn attempt(&mut self, begun: Instant) -> Result<(Duration, Option<Instant>), kube::Error> {
        let lease = self.api.get_opt(NAME).await?;
        let version = lease.as_ref().and_then(|l| l.metadata.resource_version.clone());
        let since = match &self.seen {
            Some((last, since)) if *last == version => *since,
            _ => begun,
        };
        self.seen = Some((version, since));
        let spec = lease.as_ref().and_then(|l| l.spec.as_ref());
        let spec = match evaluate(spec, begun.duration_since(since), &self.me, Timestamp::now()) {
            Decision::Wait(wait) => return Ok((wait.min(PERIOD), None)),
            Decision::Write(spec) => spec,
        };
        let metadata = match lease {
            Some(lease) => lease.metadata,
            None => {
                let labels = Some([(PART_OF.0.to_owned(), PART_OF.1.to_owned())].into());
                ObjectMeta { name: Some(NAME.into()), labels, ..ObjectMeta::default() }
            }
        };
        let is_new = metadata.resource_version.is_none();
        let wanted = Lease { metadata, spec: Some(spec) };
        let written = match is_new {
            true => self.api.create(&PostParams::default(), &wanted).await,
            false => self.api.replace(NAME, &PostParams::default(), &wanted).await,
        };
        match written {
            Ok(_) => Ok((PERIOD, Some(begun + GIVE_UP))),
            // Somebody else was faster, and so has it.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok((PERIOD / 4, None)),
            Err(e) => Err(e),
        }
    }

    async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(NAME).await else { return };
        let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&self.me)) else { return };
        spec.holder_identity = Some(String::new());
        if let Err(e) = self.api.replace(NAME, &PostParams::default(), &lease).await {
            tracing::debug!("the lease {NAME} could not be given back: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake_api::FakeApi;

    fn held_by(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(3),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }
    }

    fn written(decision: Decision) -> LeaseSpec {
        match decision {
            Decision::Write(spec) => spec,
            Decision::Wait(wait) => panic!("waits {wait:?}"),
        }
    }

    #[test]
    fn who_may_take_it() {
        let now = Timestamp::now();
        let decide = |spec: Option<&LeaseSpec>, seconds| evaluate(spec, Duration::from_secs(seconds), "me", now);
        let first = written(decide(None, 0));
        assert_eq!((first.holder_identity.as_deref(), first.lease_transitions), (Some("me"), Some(0)));
        // Renewing keeps when it was acquired.
        let own = written(decide(Some(&held_by("me", 10)), 3600));
        assert_eq!((own.acquire_time, own.lease_transitions), (Some(MicroTime(Timestamp::UNIX_EPOCH)), Some(3)));
        assert_eq!(own.renew_time, Some(MicroTime(now)));
        // Another's holds for as long as it says, by our own clock, whatever its renewTime says.
        assert_eq!(decide(Some(&held_by("other", 30)), 12), Decision::Wait(Duration::from_secs(18)));
        let taken = written(decide(Some(&held_by("other", 30)), 30));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("me"), Some(4)));
        // One that was given back is free at once.
        assert_eq!(written(decide(Some(&held_by("", 30)), 0)).lease_transitions, Some(4));
        assert!(GIVE_UP + LIMIT < DURATION, "a holder gives up before another may begin");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_one_holds_it_and_the_other_takes_over() {
        let api = FakeApi::new();
        let (end, ended) = watch::channel(false);
        let start = |me: &str, ended| {
            let (candidate, leadership) = Candidate::new(Api::namespaced(api.client(), "fairlead-system"), me.into());
            (tokio::spawn(candidate.run(ended)), leadership)
        };
        let (first, mut a) = start("a", ended.clone());
        a.gained().await;
        let (_second, mut b) = start("b", watch::channel(false).1);
        tokio::time::sleep(DURATION * 3).await;
        assert!(a.holds() && !b.holds());
        // Given back: nobody waits for the rest of it.
        end.send_replace(true);
        first.await.unwrap();
        let begun = Instant::now();
        b.gained().await;
        assert!(begun.elapsed() <= PERIOD * 2, "{:?}", begun.elapsed());
        assert!(!a.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_without_api_server_stops_before_another_starts() {
        let api = FakeApi::new();
        let start = |api: &FakeApi, me: &str| {
            let (candidate, leadership) = Candidate::new(Api::namespaced(api.client(), "fairlead-system"), me.into());
            (tokio::spawn(candidate.run(watch::channel(false).1)), leadership)
        };
        // Two ways to one API server, of which one can be cut.
        let other = api.another_way();
        let (_first, mut a) = start(&api, "a");
        a.gained().await;
        let (_second, mut b) = start(&other, "b");
        api.set_away(true);
        let begun = Instant::now();
        // Work that never ends is dropped when the lease is lost.
        assert_eq!(a.while_held(std::future::pending::<()>()).await, None);
        assert!(begun.elapsed() <= GIVE_UP && !b.holds());
        b.gained().await;
        assert!(!a.holds() && begun.elapsed() <= DURATION + PERIOD * 2, "{:?}", begun.elapsed());
        assert_eq!(a.while_held(async { 1 }).await, None, "and nothing is begun");
        // The first comes back and finds it taken.
        api.set_away(false);
        tokio::time::sleep(DURATION * 2).await;
        assert!(b.holds() && !a.holds());
    }
}
