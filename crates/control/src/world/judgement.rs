//! What reports mean: health of workloads, and whether the path to a peer answers.
//!
//! Pods of a Kubernetes cluster are judged by their kubelets and not here: of them only the paths that gateways see count. Invariants:
//! a report counts while a stream of its proxy, to whichever replica, or the grace after the last, lives; a peer is unreachable only
//! when every gateway that reports says so, and unknown when none does.

use super::World;
use crate::store::Bucket;
use fairlead_model::mesh::{GatewayKind, Workload};
use fairlead_model::report::ProxyStatus;
use fairlead_model::{ClusterId, Health, ObjectKey, WorkloadRef};
use fairlead_resolve::ClusterState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What a proxy reported.
#[derive(Debug)]
pub struct ReportState {
    /// What it said last on the stream that counts.
    pub status: ProxyStatus,
    /// The stream that said it.
    stream: Option<u64>,
    /// It holds until then; `None`: as long as its stream stands.
    until: Option<Instant>,
    /// Other streams that stand, and what was said on them, newest last: a proxy that moves to another replica has two for a while,
    /// and the end of the old one may be noticed late.
    others: Vec<(u64, ProxyStatus)>,
    /// Whether anything is judged by it.
    judges: bool,
}

/// A report as it is kept over restarts.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredReport {
    pub workload: WorkloadRef,
    pub status: ProxyStatus,
}

impl ReportState {
    /// Of before a restart.
    pub fn kept(status: ProxyStatus, until: Instant) -> Self {
        Self { status, stream: None, until: Some(until), others: Vec::new(), judges: true }
    }

    /// Whether it still counts.
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn said(&mut self, stream: u64, status: ProxyStatus) {
        self.others.retain(|(other, _)| *other != stream);
        let last = std::mem::replace(&mut self.status, status);
        if let Some(before) = self.stream.replace(stream).filter(|before| *before != stream) {
            self.others.push((before, last));
        }
        self.until = None;
    }

    /// A stream ended; what was said on another that stands counts now.
    fn ended(&mut self, stream: u64, until: Instant) {
        self.others.retain(|(other, _)| *other != stream);
        if self.stream != Some(stream) {
            return;
        }
        match self.others.pop() {
            Some((other, status)) => (self.stream, self.status) = (Some(other), status),
            None => (self.stream, self.until) = (None, Some(until)),
        }
    }
}

impl World {
    /// Takes a report, or the end of its stream. Whether the mesh must be resolved again.
    pub fn report(&mut self, stream: u64, workload: WorkloadRef, status: Option<ProxyStatus>, now: Instant) -> bool {
        let by_kubelet = self.has_kubelet(&workload);
        // What is judged by a report; none: nothing.
        let judged = |s: &ProxyStatus| {
            let health = (!by_kubelet).then_some((s.ready, s.draining));
            (health.is_some() || !s.paths.is_empty()).then(|| (health, s.paths.clone()))
        };
        let known = self.reports.get_mut(&workload);
        let before = known.as_ref().filter(|r| r.holds(now)).and_then(|r| judged(&r.status));
        let report = match (known, status) {
            (Some(report), Some(status)) => {
                report.said(stream, status);
                report
            }
            (Some(report), None) => {
                report.ended(stream, now + self.timings.report_grace);
                report
            }
            (None, None) => return false,
            (None, Some(status)) => {
                let first = ReportState { status, stream: Some(stream), until: None, others: Vec::new(), judges: true };
                self.reports.entry(workload.clone()).or_insert(first)
            }
        };
        let after = judged(&report.status);
        report.judges = after.is_some();
        if before == after {
            return false;
        }
        if report.judges {
            let stored = StoredReport { workload: workload.clone(), status: report.status.clone() };
            self.keeper.save(Bucket::Reports, workload.to_string(), stored);
        }
        true
    }

    /// Whether it is a pod of a Kubernetes cluster: its readiness is in its objects.
    fn has_kubelet(&self, workload: &WorkloadRef) -> bool {
        let key = ObjectKey::new(workload.cluster.clone(), "Pod", &*workload.namespace, &*workload.name);
        self.system_namespace.is_some() && self.objects.objects.binary_search_by(|o| o.key().cmp(&key)).is_ok()
    }

    /// Health by workload, where a proxy reports it; without reports the objects decide.
    pub(super) fn health(&self, now: Instant) -> BTreeMap<WorkloadRef, Health> {
        let of = |report: &ReportState| {
            if !report.holds(now) || !report.status.ready {
                Health::Unhealthy
            } else if report.status.draining {
                Health::Draining
            } else {
                Health::Healthy
            }
        };
        self.reports.iter().map(|(workload, report)| (workload.clone(), of(report))).collect()
    }

    /// Whether the path to a peer answers, by this cluster's gateways; `None`: nobody knows.
    pub fn path(
        &self,
        cluster: &ClusterId,
        workloads: &BTreeMap<WorkloadRef, Arc<Workload>>,
        now: Instant,
    ) -> Option<bool> {
        let probes =
            |workload: &WorkloadRef| workloads.get(workload).is_some_and(|w| w.gateway == Some(GatewayKind::EastWest));
        let reports = self.reports.iter().filter(|(workload, report)| report.holds(now) && probes(workload));
        reports.filter_map(|(_, report)| report.status.paths.get(cluster).copied()).reduce(|a, b| a || b)
    }

    /// The first moment after `since` at which something changes by time alone; it may have passed.
    pub fn next_deadline(&self, since: Instant) -> Option<Instant> {
        let reports = self.reports.values().filter(|r| r.judges).filter_map(|r| r.until);
        let leases = self.peers.values().filter_map(|p| p.lease.ends());
        reports.chain(leases).filter(|t| *t > since).min()
    }

    /// Reports of workloads that are no more.
    pub(super) fn forget_reports(&mut self, state: &ClusterState, now: Instant) {
        let keeper = &self.keeper;
        self.reports.retain(|workload, report| {
            let keep = state.workloads.contains_key(workload) || report.holds(now);
            if !keep {
                keeper.remove(Bucket::Reports, workload.to_string());
            }
            keep
        });
    }
}
