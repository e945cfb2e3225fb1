//! Load from a pod: the caller's program sends by the clock, and a report says who answered in which second.
//!
//! Invariant: a load that could not be run is an error, never a report without failures.

use super::Mesh;
use super::inside::Pod;
use anyhow::Context as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What `fairlead call --rate` reports.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Report {
    pub total: u64,
    pub failed: u64,
    #[serde(rename = "by-second")]
    by_second: Vec<Second>,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Second {
    second: u64,
    destinations: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Sample {
    at: f64,
    reason: String,
    detail: String,
}

/// A load under way.
pub struct Load {
    child: Child,
    begun: Instant,
}

impl Load {
    pub fn start(mesh: &Mesh<'_>, caller: &Pod, request: &str, rate: u32, time: Duration) -> anyhow::Result<Self> {
        let mut command = caller.fairlead(mesh)?;
        command.args(["call", request, "--rate", &rate.to_string()]);
        command.args(["--for", &format!("{}ms", time.as_millis()), "-o", "json"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Self { child, begun: Instant::now() })
    }

    /// Waits for a moment of the load's time.
    pub fn until(&self, at: Duration) {
        std::thread::sleep((self.begun + at).saturating_duration_since(Instant::now()));
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn end(self) -> anyhow::Result<Report> {
        let done = self.child.wait_with_output()?;
        serde_json::from_slice(&done.stdout)
            .with_context(|| format!("the load ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr)))
    }
}

impl Report {
    /// Calls scheduled in these seconds that workloads of a cluster answered.
    pub fn answered(&self, cluster: &str, seconds: std::ops::Range<u64>) -> u64 {
        let of = |second: &Second| {
            let mine = second.destinations.iter().filter(|(name, _)| name.split('/').next() == Some(cluster));
            mine.map(|(_, count)| count).sum::<u64>()
        };
        self.by_second.iter().filter(|second| seconds.contains(&second.second)).map(of).sum()
    }

    /// The first of these seconds in which a cluster answered.
    pub fn first(&self, cluster: &str, seconds: std::ops::Range<u64>) -> Option<u64> {
        seconds.into_iter().find(|second| self.answered(cluster, *second..second + 1) > 0)
    }

    /// The last second.
    pub fn last(&self) -> u64 {
        self.by_second.last().map_or(0, |second| second.second)
    }

    /// What failed, in words.
    pub fn failures(&self) -> String {
        let some: Vec<_> =
            self.samples.iter().take(5).map(|one| format!("{:.1} s {} ({})", one.at, one.reason, one.detail)).collect();
        format!("{} of {} failed: {}", self.failed, self.total, some.join("; "))
    }

    /// Answers by cluster and second, for who looks at a failure.
    pub fn course(&self, clusters: &[&str]) -> String {
        let line = |cluster: &&str| {
            let counts: Vec<_> =
                (0..=self.last()).map(|second| self.answered(cluster, second..second + 1).to_string()).collect();
            format!("{cluster} {}", counts.join(" "))
        };
        clusters.iter().map(line).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_cluster_and_second() {
        let text = r#"{"total": 5, "failed": 1, "by-second": [
            {"second": 0, "total": 2, "failed": 0, "destinations": {"east/app/web-0": 1, "west/app/web-0": 1}},
            {"second": 1, "total": 2, "failed": 0, "destinations": {"east/app/web-0": 2}},
            {"second": 2, "total": 1, "failed": 1, "destinations": {"west/app/web-0": 1}}],
            "samples": [{"at": 2.5, "reason": "503", "detail": "x"}]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!((report.answered("east", 0..3), report.answered("west", 0..3)), (3, 2));
        assert_eq!((report.first("west", 1..3), report.first("west", 1..2)), (Some(2), None));
        assert_eq!(report.course(&["west"]), "west 1 0 1");
        assert!(report.failures().contains("1 of 5 failed: 2.5 s 503"));
    }
}
