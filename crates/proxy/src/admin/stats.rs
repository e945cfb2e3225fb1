//! `/stats` and `/stats/prometheus`.

use super::server::Admin;
use fairlead_runtime::metrics::Sample;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

/// Prometheus' text format: Istio's metrics and Envoy's most used ones.
pub fn prometheus(admin: &Admin) -> String {
    let mut out = admin.shared.registry.render();
    // Writing to a String cannot fail.
    let mut family = |name: &str, kind: &str, lines: Vec<(String, u64)>| {
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    for (name, kind, read) in CLUSTER_STATS {
        let world = admin.shared.world.load();
        let mut lines: Vec<_> = world
            .upstreams
            .iter()
            .map(|(cluster, upstream)| {
                (format!("{{envoy_cluster_name=\"{}\"}}", escape(cluster)), read(&upstream.stats))
            })
            .collect();
        lines.sort();
        family(&format!("envoy_cluster_{}", name.replace('.', "_")), kind, lines);
    }
    for (name, value) in own(admin) {
        family(&format!("fairlead_{}", name.replace('.', "_")), "gauge", vec![(String::new(), value)]);
    }
    out
}

/// Envoy's `name: value` lines; of `filter` those that contain it. Labels follow the name, `;label=value` each.
pub fn plain(admin: &Admin, filter: &str) -> String {
    let mut lines = Vec::new();
    let world = admin.shared.world.load();
    for (cluster, upstream) in &world.upstreams {
        for (name, _, read) in CLUSTER_STATS {
            lines.push(format!("cluster.{cluster}.{name}: {}", read(&upstream.stats)));
        }
    }
    for (name, value) in own(admin) {
        lines.push(format!("fairlead.{name}: {value}"));
    }
    for sample in admin.shared.registry.samples() {
        lines.push(line(&sample));
    }
    lines.retain(|line| line.contains(filter));
    lines.sort();
    lines.push(String::new());
    lines.join("\n")
}

fn line(sample: &Sample) -> String {
    let mut out = sample.name.clone();
    for (label, value) in &sample.labels {
        // One line a number, whatever a caller has made a label of.
        let value = value.replace(|c: char| c.is_control(), " ");
        let _ = write!(out, ";{label}={value}");
    }
    let _ = write!(out, ": {}", sample.value);
    out
}

type Read = fn(&crate::upstream::ClusterStats) -> u64;

const CLUSTER_STATS: [(&str, &str, Read); 12] = [
    ("upstream_rq_active", "gauge", |s| u64::from(s.rq_active.load(Relaxed))),
    ("upstream_rq_pending_active", "gauge", |s| u64::from(s.rq_pending.load(Relaxed))),
    ("upstream_cx_active", "gauge", |s| u64::from(s.cx_active.load(Relaxed))),
    ("upstream_rq_total", "counter", |s| s.rq_total.load(Relaxed)),
    ("upstream_rq_retry", "counter", |s| s.rq_retry.load(Relaxed)),
    ("upstream_rq_retry_success", "counter", |s| s.rq_retry_success.load(Relaxed)),
    ("upstream_rq_pending_overflow", "counter", |s| s.rq_overflow.load(Relaxed)),
    ("upstream_cx_total", "counter", |s| s.cx_total.load(Relaxed)),
    ("upstream_cx_overflow", "counter", |s| s.cx_overflow.load(Relaxed)),
    ("upstream_cx_connect_fail", "counter", |s| s.cx_connect_fail.load(Relaxed)),
    ("upstream_cx_none_healthy", "counter", |s| s.none_healthy.load(Relaxed)),
    ("upstream_rq_retry_active", "gauge", |s| u64::from(s.retries_active.load(Relaxed))),
];

fn own(admin: &Admin) -> Vec<(&'static str, u64)> {
    let shared = &admin.shared;
    vec![
        ("endpoints_added", shared.changes.added.load(Relaxed)),
        ("endpoints_removed", shared.changes.removed.load(Relaxed)),
        ("endpoints_health_changed", shared.changes.health.load(Relaxed)),
        ("in_flight", shared.in_flight.load(Relaxed) as u64),
        ("snapshot_generation", shared.world.load().snapshot.generation()),
        ("uptime_seconds", admin.started.elapsed().as_secs()),
    ]
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_line() {
        let labels = [("reporter", "source"), ("request_host", "a\nb")].map(|(l, v)| (l.to_owned(), v.to_owned()));
        let sample = Sample { name: "istio_requests_total".into(), labels: labels.into(), value: 3.0 };
        assert_eq!(line(&sample), "istio_requests_total;reporter=source;request_host=a b: 3");
    }
}
