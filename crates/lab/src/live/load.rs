//! Open-loop load: requests leave by a schedule, whatever became of those before.
//!
//! Latency counts from the scheduled time, so that a pause of the mesh shows in every request that fell into it. A request has
//! failed when its answer is not 2xx (gRPC: not status 0) or has not come within the deadline. Invariant: every scheduled request is
//! counted exactly once, as good or as failed with a reason.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::caller::{Connections, DEADLINE, Plan, Seen};

/// A request that leaves later than this after its time is counted as late: the generator, not the mesh, was slow.
const LATE: Duration = Duration::from_millis(10);

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// The request.
    pub plan: Plan,
    /// Requests a second.
    pub rate: f64,
    /// For how long.
    pub time: Duration,
}

/// What became of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Requests scheduled and sent.
    pub total: u64,
    /// Those that failed.
    pub failed: u64,
    /// Failures by reason: an HTTP status, a word, or `grpc-N`.
    pub failures: BTreeMap<String, u64>,
    /// Requests that left more than 10 ms after their time.
    pub late: u64,
    /// Seconds from the first to the last answer.
    pub seconds: f64,
    /// From the scheduled time to the end of the answer, milliseconds.
    pub latency: Latency,
    /// Answers by workload; `none` where no program answered.
    pub destinations: BTreeMap<String, u64>,
    /// Answers by cluster.
    pub clusters: BTreeMap<String, u64>,
    /// By second since the start.
    pub by_second: Vec<Second>,
    /// By workload, in seconds since the start: its first and last answer.
    pub spans: BTreeMap<String, Span>,
    /// The first failures, to look at.
    pub samples: Vec<Sample>,
}

/// Milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// All but one of a thousand.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// All by their number.
    pub mean: f64,
}

/// One second by the schedule.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Second {
    /// Since the start.
    pub second: u64,
    /// Requests scheduled in it.
    pub total: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Answers by workload.
    pub destinations: BTreeMap<String, u64>,
}

/// When a workload answered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Span {
    /// The earliest request (by its scheduled time) that it answered.
    pub first: f64,
    /// The latest.
    pub last: f64,
}

/// One failure.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the start, scheduled.
    pub at: f64,
    /// The reason, as counted.
    pub reason: String,
    /// What the caller saw.
    pub detail: String,
}

const SAMPLES: usize = 20;

/// Sends it, and waits for the last answer.
pub async fn run(load: &Load) -> Report {
    let count = (load.rate * load.time.as_secs_f64()).floor().max(1.0) as u64;
    let interval = Duration::from_secs_f64(1.0 / load.rate);
    let idle: Arc<Mutex<Vec<Connections>>> = Arc::default();
    let began = Instant::now();
    let mut book = Book::new();
    let mut running: JoinSet<Done> = JoinSet::new();
    for number in 0..count {
        let scheduled = began + interval.mul_f64(number as f64);
        sleep_until(scheduled).await;
        let (plan, idle) = (load.plan.clone(), idle.clone());
        running.spawn(async move { one(&plan, &idle, began, scheduled).await });
        while let Some(done) = running.try_join_next() {
            book.enter(done.ok());
        }
    }
    while let Some(done) = running.join_next().await {
        book.enter(done.ok());
    }
    book.report(began.elapsed())
}

struct Done {
    at: Duration,
    late: bool,
    latency: Duration,
    seen: Seen,
}

async fn one(plan: &Plan, idle: &Mutex<Vec<Connections>>, began: Instant, scheduled: Instant) -> Done {
    let late = scheduled.elapsed() > LATE;
    let mut connections = lock(idle).pop().unwrap_or_default();
    let seen = timeout_at(scheduled + DEADLINE, plan.call(&mut connections)).await;
    let seen = seen.unwrap_or_else(|_| {
        connections.close();
        Seen { status: "timeout".into(), reason: Some(format!("no answer within {DEADLINE:?}")), ..Seen::default() }
    });
    lock(idle).push(connections);
    Done { at: scheduled - began, late, latency: scheduled.elapsed(), seen }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Book {
    report: Report,
    /// Microseconds, up to 100 s.
    latency: Option<Histogram<u64>>,
    seconds: BTreeMap<u64, Second>,
}

impl Book {
    fn new() -> Self {
        // Three digits over eight orders of magnitude: 200 KB.
        Self {
            report: Report::default(),
            latency: Histogram::new_with_bounds(1, 100_000_000, 3).ok(),
            seconds: BTreeMap::new(),
        }
    }

    fn enter(&mut self, done: Option<Done>) {
        let Some(done) = done else {
            self.report.total += 1;
            self.report.failed += 1;
            *self.report.failures.entry("lost".into()).or_default() += 1;
            return;
        };
        let at = done.at.as_secs_f64();
        let second = self.seconds.entry(at as u64).or_insert_with(|| Second { second: at as u64, ..Second::default() });
        self.report.total += 1;
        second.total += 1;
        self.report.late += u64::from(done.late);
        if let Some(latency) = &mut self.latency {
            latency.saturating_record(done.latency.as_micros() as u64);
        }
        let workload = answered_by(&done.seen.body).unwrap_or_else(|| "none".into());
        let cluster = workload.split('/').next().unwrap_or_default().to_owned();
        *second.destinations.entry(workload.clone()).or_default() += 1;
        *self.report.destinations.entry(workload.clone()).or_default() += 1;
        *self.report.clusters.entry(cluster).or_default() += 1;
        let span = self.report.spans.entry(workload).or_insert(Span { first: at, last: at });
        (span.first, span.last) = (span.first.min(at), span.last.max(at));
        if let Some(reason) = failure(&done.seen) {
            self.report.failed += 1;
            second.failed += 1;
            *self.report.failures.entry(reason.clone()).or_default() += 1;
            if self.report.samples.len() < SAMPLES {
                let body = String::from_utf8_lossy(&done.seen.body).chars().take(200).collect();
                let flags = done.seen.reason.clone().unwrap_or(body);
                let detail = format!("{} {flags}", done.seen.request_id);
                self.report.samples.push(Sample { at, reason, detail });
            }
        }
    }

    fn report(mut self, took: Duration) -> Report {
        let latency = self.latency.as_ref();
        let at = |quantile: f64| latency.map_or(0.0, |l| l.value_at_quantile(quantile) as f64 / 1000.0);
        self.report.latency = Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: latency.map_or(0.0, |l| l.max() as f64 / 1000.0),
            mean: latency.map_or(0.0, |l| l.mean() / 1000.0),
        };
        self.report.seconds = took.as_secs_f64();
        self.report.by_second = self.seconds.into_values().collect();
        self.report
    }
}

/// None when it is good.
fn failure(seen: &Seen) -> Option<String> {
    if let Some(code) = seen.grpc_status {
        return (code != 0).then(|| format!("grpc-{code}"));
    }
    let good = seen.status == "ok" || seen.status.len() == 3 && seen.status.starts_with('2');
    (!good).then(|| seen.status.clone())
}

/// Who answered, as the echo program tells it.
pub(super) fn answered_by(body: &[u8]) -> Option<String> {
    let told: Value = serde_json::from_slice(body).ok()?;
    told["workload"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(at: u64, status: &str, workload: &str) -> Option<Done> {
        let seen =
            Seen { status: status.into(), body: format!(r#"{{"workload":"{workload}"}}"#).into(), ..Seen::default() };
        Some(Done { at: Duration::from_millis(at), late: at == 0, latency: Duration::from_millis(4), seen })
    }

    #[test]
    fn every_request_is_counted_once() {
        let mut book = Book::new();
        for one in [
            done(0, "200", "east/s/a"),
            done(900, "200", "west/s/a"),
            done(1100, "200", "west/s/a"),
            done(1500, "503", ""),
        ] {
            book.enter(one);
        }
        book.enter(None);
        let report = book.report(Duration::from_secs(2));
        assert_eq!((report.total, report.failed, report.late), (5, 2, 1));
        assert_eq!(report.failures, [("503".to_owned(), 1), ("lost".to_owned(), 1)].into());
        assert_eq!(report.clusters["west"], 2);
        assert_eq!(
            report.by_second.iter().map(|s| (s.second, s.total, s.failed)).collect::<Vec<_>>(),
            [(0, 2, 0), (1, 2, 1)]
        );
        assert_eq!((report.spans["west/s/a"].first, report.spans["west/s/a"].last), (0.9, 1.1));
        assert!((report.latency.p50 - 4.0).abs() < 0.1);
    }

    #[test]
    fn grpc_fails_by_its_own_status() {
        let seen = |grpc_status| Seen { status: "200".into(), grpc_status, ..Seen::default() };
        assert_eq!(failure(&seen(Some(0))), None);
        assert_eq!(failure(&seen(Some(14))).as_deref(), Some("grpc-14"));
        assert_eq!(failure(&seen(None)), None);
        assert_eq!(failure(&Seen { status: "2".into(), ..Seen::default() }).as_deref(), Some("2"));
    }
}
